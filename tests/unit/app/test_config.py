"""The configuration: the sample works, and every mistake is named by its key."""

from pathlib import Path

import pytest

from flexrelay.config import Config, ConfigError, load

SAMPLE = """
network = "pilot"
log_level = "INFO"

[ledger]
kind = "embedded"
folder = "ledger"

[http]
port = 9464

[[gateways]]
org = "dso"
folder = "dso"

[gateways.ingest]
max_frame_bytes = 32768

[gateways.adapters.meters]
type = "mqtt"
host = "127.0.0.1"
"""


@pytest.fixture(autouse=True)
def _passphrase(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLEXRELAY_PASSPHRASE", "correct horse")


def write(folder: Path, text: str) -> Path:
    (folder / "flexrelay.toml").write_text(text)
    return folder


def test_the_sample_is_read(tmp_path: Path) -> None:
    config = load(write(tmp_path, SAMPLE))
    assert config.network == "pilot"
    assert config.gateways[0].ingest.max_frame_bytes == 32768
    assert config.gateways[0].adapters["meters"]["host"] == "127.0.0.1"
    assert config.passphrase.get_secret_value() == "correct horse"


def test_the_passphrase_never_shows(tmp_path: Path) -> None:
    config = load(write(tmp_path, SAMPLE))
    assert "correct horse" not in repr(config)
    assert "correct horse" not in config.model_dump_json()


def test_an_adapter_s_password_never_shows(tmp_path: Path) -> None:
    config = load(write(tmp_path, SAMPLE + 'password = "battery staple"\n'))
    assert config.gateways[0].adapters["meters"]["password"] == "battery staple"
    assert "staple" not in f"{config!r} {config} {config.gateways[0]}"
    with pytest.raises(ConfigError) as error:
        load(write(tmp_path, SAMPLE + 'password = "battery staple"\n[gateways.adapters.more]\npassword = "staple"\n'))
    assert "staple" not in str(error.value) and error.value.__cause__ is None


def test_environment_overrides_one_nested_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLEXRELAY_HTTP__PORT", "9999")
    config: Config = load(write(tmp_path, SAMPLE))
    assert config.http.port == 9999
    assert config.ledger.folder == Path("ledger")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (SAMPLE.replace('network = "pilot"', ""), "network is missing"),
        (SAMPLE.replace("[http]", "[http]\nprot = 1"), "http.prot is not a known key"),
        (SAMPLE.replace("port = 9464", "port = 70000"), "http.port"),
        (SAMPLE + '\n[[gateways]]\norg = "dso"\nfolder = "two"\n', "stands twice: dso, dso"),
        (SAMPLE + '\n[[gateways]]\norg = "other"\nfolder = "./dso/"\n', "a folder stands twice: dso, dso"),
        (SAMPLE.replace('type = "mqtt"', ""), "adapters.meters has no type"),
        (SAMPLE.replace('kind = "embedded"', 'kind = "paper"'), "ledger.kind"),
        (SAMPLE.replace("max_frame_bytes = 32768", "retention_days = 30"), "must be more than stale_after_days 30"),
        (SAMPLE.replace("max_frame_bytes = 32768", f"retention_days = {10**12}"), "retention_days"),
        ("network = ", "flexrelay.toml"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, text: str, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        load(write(tmp_path, text))


def test_every_mistake_is_named_and_nothing_that_only_follows(tmp_path: Path) -> None:
    text = SAMPLE.replace("max_frame_bytes = 32768", 'max_frame_bytes = "much"\nqueue = 1').replace(
        "log_level", "level"
    )
    with pytest.raises(ConfigError) as caught:
        load(write(tmp_path, text))
    told = str(caught.value)
    for named in (
        "gateways.0.ingest.max_frame_bytes: ",
        "gateways.0.ingest.queue is not a known key",
        "level is not a",
    ):
        assert named in told
    assert "at least 1 item" not in told, "there is a gateway; its ingest is wrong"
    assert "FLEXRELAY_" not in told
    with pytest.raises(ConfigError, match=r"gateways: .*at least 1 item"):
        load(write(tmp_path, 'network = "pilot"\ngateways = []'))


def test_a_missing_passphrase_is_named_with_its_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FLEXRELAY_PASSPHRASE")
    with pytest.raises(ConfigError, match="FLEXRELAY_PASSPHRASE"):
        load(write(tmp_path, SAMPLE))


def test_a_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="flexrelay init"):
        load(tmp_path)
