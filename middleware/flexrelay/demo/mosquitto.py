"""A Mosquitto child process on loopback, configured from accounts, with everything it writes in one folder."""

import asyncio
import os
import pwd
import shutil
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from flexrelay.demo.accounts import Account, BrokerError, Tls

_SEARCH = ("/usr/sbin", "/usr/local/sbin", "/opt/homebrew/sbin")
MAX_INFLIGHT = 2000
"""Unacknowledged messages to one client: Mosquitto's own default of 20 would mean 20 readings a commit."""
MAX_PAYLOAD_BYTES = 1024 * 1024


def mosquitto_path() -> str | None:
    """The Mosquitto program on PATH or where Debian and Homebrew put it, None when it is not installed."""
    return shutil.which("mosquitto") or shutil.which("mosquitto", path=os.pathsep.join(_SEARCH))


def free_port() -> int:
    """A loopback port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Mosquitto:
    """A Mosquitto child process with its configuration, log and session store in one folder."""

    mqtt5 = True

    def __init__(
        self,
        folder: Path,
        accounts: Sequence[Account],
        *,
        program: str,
        port: int | None = None,
        tls: Tls | None = None,
        max_inflight: int = MAX_INFLIGHT,
        max_payload_bytes: int = MAX_PAYLOAD_BYTES,
    ) -> None:
        self.folder = folder
        self.host = "127.0.0.1"
        self.port = port or free_port()
        self.kind = "mosquitto"
        self._program = program
        self._accounts = tuple(accounts)
        self._tls = tls
        self._max_inflight = max_inflight
        self._max_payload_bytes = max_payload_bytes
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    async def start(self) -> None:
        """Write the configuration and wait until the listener answers. Raises BrokerError."""
        await asyncio.to_thread(self._write)
        self._spawn()
        await self._wait()

    def _spawn(self) -> None:
        with (self.folder / "mosquitto.log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._program, "-c", str(self.folder / "mosquitto.conf")],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C in the terminal must not take the broker away before the gateways
            )

    async def stop(self) -> None:
        """End the process (it writes its sessions down) and wait for it."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            await asyncio.to_thread(process.wait, 10)
        except subprocess.TimeoutExpired:
            process.kill()
            await asyncio.to_thread(process.wait)

    async def restart(self) -> None:
        """Stop and start on the same port with the same sessions."""
        await self.stop()
        self._spawn()
        await self._wait()

    async def _wait(self) -> None:
        process = self._process
        for _ in range(200):
            if process is None or process.poll() is not None:
                break
            try:
                _, writer = await asyncio.open_connection(self.host, self.port)
            except OSError:
                await asyncio.sleep(0.05)
                continue
            writer.close()
            return
        log = (self.folder / "mosquitto.log").read_text(errors="replace")[-500:]
        await self.stop()
        raise BrokerError(f"Mosquitto did not start on port {self.port}; {self.folder / 'mosquitto.log'} says: {log}")

    def _write(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        version = subprocess.run([self._program, "-h"], capture_output=True, text=True, check=False, timeout=10).stdout
        self.kind = " ".join(version.split()[:3]).replace(" version", "")
        passwords = self.folder / "passwords"
        with _private(passwords) as file:
            file.write("".join(f"{account.user}:{account.password}\n" for account in self._accounts))
        if self._accounts:
            hashing = subprocess.run(
                [shutil.which("mosquitto_passwd") or "mosquitto_passwd", "-U", str(passwords)],
                capture_output=True,
                text=True,
                check=False,
                timeout=60,
            )
            if hashing.returncode:
                passwords.unlink()
                raise BrokerError(f"mosquitto_passwd failed: {(hashing.stderr or hashing.stdout).strip()}")
        with _private(self.folder / "acl") as file:
            for account in self._accounts:
                file.write(f"user {account.user}\n")
                file.writelines(f"topic read {topic}\n" for topic in account.read)
                file.writelines(f"topic write {topic}\n" for topic in account.write)
        (self.folder / "mosquitto.conf").write_text("\n".join(self._settings()) + "\n")

    def _settings(self) -> list[str]:
        settings = [
            f"listener {self.port} {self.host}",
            f"max_inflight_messages {self._max_inflight}",
            "max_queued_messages 1000000",
            f"message_size_limit {self._max_payload_bytes}",
            "persistence true",
            f"persistence_location {self.folder}/",
            "autosave_interval 30",
            "allow_anonymous false",
            f"acl_file {self.folder / 'acl'}",
            f"user {pwd.getpwuid(os.geteuid()).pw_name}",
            "log_dest stderr",
            "log_type error",
            "log_type warning",
            "log_type notice",
            "set_tcp_nodelay true",
        ]
        tls = self._tls
        if tls is None or not tls.require_certificate:
            settings.append(f"password_file {self.folder / 'passwords'}")
        if tls is not None:
            settings += [f"cafile {tls.ca}", f"certfile {tls.certificate}", f"keyfile {tls.key}"]
            if tls.require_certificate:
                settings += ["require_certificate true", "use_identity_as_username true"]
        return settings


def _private(path: Path) -> TextIO:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w")
