"""`flexrelay opcua`: our certificate, the trust list, browsing."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from support.opcua_rig import certificate_pair
from support.opcua_server import NAMESPACE, node_server
from typer.testing import CliRunner, Result

from flexrelay.cli.main import app
from flexrelay_adapters.opcua import TrustList, UntrustedServer

pytestmark = pytest.mark.timeout(600)
TOML = """
network = "net"
passphrase = "x"

[[gateways]]
org = "dso"
folder = "dso"

[gateways.adapters.plant]
type = "opcua"
url = "{url}"
security = "{security}"
server = "urn:test:node-opcua"
application_uri = "urn:example:gateway"

[gateways.adapters.plant.devices.meter.registers]
power_w = {{ node = "ns=1;s=meter.power", unit = "W" }}
"""


def configured(folder: Path, url: str = "opc.tcp://127.0.0.1:1", security: str = "Basic256Sha256") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "flexrelay.toml").write_text(TOML.format(url=url, security=security))
    return folder


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["opcua", *map(str, arguments)])


def answer(*arguments: object) -> Any:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_certificates(tmp_path: Path) -> None:
    folder = configured(tmp_path / "pilot")
    made = answer("certificate", folder)
    assert made["application_uri"] == "urn:example:gateway" and Path(made["certificate"]).is_file()
    again = run("certificate", folder)
    assert again.exit_code == 2 and "--renew" in again.output
    before = Path(made["certificate"]).read_bytes()
    answer("certificate", folder, "--renew")
    assert Path(made["certificate"]).read_bytes() != before

    pem, _, der = certificate_pair(tmp_path / "server", NAMESPACE)
    with pytest.raises(UntrustedServer):
        TrustList(folder / "pki").check_server(der, NAMESPACE, "opc.tcp://x")
    (waiting,) = answer("list", folder)
    assert (waiting["state"], waiting["application_uri"]) == ("pending", NAMESPACE)
    assert answer("trust", folder, waiting["thumbprint"][:16])["state"] == "trusted"
    assert answer("reject", folder, waiting["thumbprint"][:16])["state"] == "rejected"
    assert answer("add", folder, pem)["state"] == "trusted"
    assert "trusted" in run("list", folder).output

    unknown = run("trust", folder, "ffff")
    assert unknown.exit_code == 2 and "no certificate ffff" in unknown.output
    assert run("add", folder, folder / "flexrelay.toml").exit_code == 2
    assert run("list", folder, "--adapter", "none").exit_code == 2
    assert run("list", tmp_path / "nowhere").exit_code == 2


def test_an_unreachable_server(tmp_path: Path) -> None:
    result = run("browse", configured(tmp_path / "pilot", security="None"))
    assert result.exit_code == 4 and "is the server up" in result.output


async def test_browse(tmp_path: Path) -> None:
    async with node_server(tmp_path / "server") as server:
        folder = configured(tmp_path / "pilot", server.url, "None")
        found = await asyncio.to_thread(answer, "browse", folder)
    (meter,) = [each for each in found if each["path"] == "meter"]
    assert {variable["name"] for variable in meter["variables"]} == {"power", "import"}
    assert meter["variables"][0]["node"].startswith(f"nsu={NAMESPACE};s=meter.")
