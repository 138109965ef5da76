"""`flexrelay run`: the gateways of a data folder, until SIGINT or SIGTERM."""

import asyncio
import json
import logging
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from flexrelay.app import Level, Site, open_site
from flexrelay.cli.folder import Folder, in_use
from flexrelay.cli.output import Json, err, explained, out
from flexrelay.cli.signals import asked_to_stop
from flexrelay.collector import settle
from flexrelay.config import FILE_NAME, Config, ConfigError, load
from flexrelay.ledger.embedded import LedgerLocked


def run(
    folder: Folder,
    http_port: Annotated[
        int, typer.Option(min=-1, max=65535, help="Instead of http.port of the configuration; 0 takes a free one.")
    ] = -1,
    ledger: Annotated[str, typer.Option(help="Run only on this kind of ledger: embedded or fabric.")] = "",
    json_: Json = False,
) -> None:
    """Run the gateways until SIGINT or SIGTERM; with --json one line says when they are up.

    A Fabric network that does not answer is waited for; /readyz says which peers are away. What is wrong by
    configuration (certificate, channel, chaincode) ends the start.
    """
    with explained(json_):
        config = load(folder)
        if ledger not in ("", config.ledger.kind):
            raise ConfigError(
                f"{folder / FILE_NAME}: ledger.kind is {config.ledger.kind}, not {ledger}; a folder keeps its ledger: "
                "`flexrelay init FOLDER --profile ORG=FILE` makes one on Fabric"
            )
        logging.getLogger().setLevel(config.log_level)
        asyncio.run(_serve(folder, config, http_port, json_))


async def _serve(folder: Path, config: Config, http_port: int, as_json: bool) -> None:
    stop, up = asyncio.Event(), asyncio.Event()
    main = asyncio.current_task()
    assert main is not None

    def ask() -> None:
        if not (stop.is_set() or up.is_set()):
            main.cancel()  # it waits for a ledger, or for its files
        stop.set()

    port = http_port if http_port >= 0 else None
    with asked_to_stop(ask):
        try:
            async with open_site(folder, config, Level.SERVING, http_port=port, patient=True) as site:
                up.set()
                settle()
                _announce(site, config, as_json)
                await stop.wait()
                err.print("stopping: what is under way is finished first", markup=False)
        except LedgerLocked as error:
            raise in_use(folder, config, error) from None
        except asyncio.CancelledError:
            if up.is_set() or not stop.is_set():
                raise
            main.uncancel()
        err.print("stopped", markup=False)


def _announce(site: Site, config: Config, as_json: bool) -> None:
    base = f"http://{config.http.host}:{site.http_port}" if site.http_port else ""
    if as_json:
        up = {"network": site.network, "organisations": sorted(site.gateways), "http": base, "pid": os.getpid()}
        sys.stdout.write(json.dumps(up) + "\n")
        sys.stdout.flush()
        return
    out.print(f"network {site.network}: gateways of {', '.join(sorted(site.gateways))} are up", markup=False)
    if base:
        out.print(f"{base}/healthz  {base}/readyz  {base}/metrics", markup=False, soft_wrap=True)
    else:
        out.print("no operator endpoints: http.port is 0 (--http-port)", markup=False)
