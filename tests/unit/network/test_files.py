"""Small parts: TOML that is written, ports, the network's folder, endpoints."""

from __future__ import annotations

import socket
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from flexrelay.network import Network, NetworkError, parse
from flexrelay.network.folder import Folder
from flexrelay.network.ports import choose, is_free
from flexrelay.network.toml import dumps


def test_toml_is_read_back_as_it_was_meant() -> None:
    document = {
        "v": 1,
        "text": 'a "quoted" \\ back\nslash ünïcode \x7f \U0001f50c',
        "yes": True,
        "nothing": None,
        "table": {"plain-key_1": "x", "needs.quotes": ["a", "b"]},
        "later": "after a table",
        "rows": [{"a": 1}, {"a": 2, "b": []}],
        "empty": {},
    }
    expected = {key: value for key, value in document.items() if value is not None}
    assert tomllib.loads(dumps(document)) == expected


def test_ports_stay_and_new_ones_are_free() -> None:
    first = choose(["a", "b"], {}, None)
    again = choose(["a", "b", "c"], first, None)
    assert again["a"] == first["a"]
    assert again["b"] == first["b"]
    assert len(set(again.values())) == 3
    assert all(is_free(port) for port in again.values())
    assert all(port < 32_768 for port in again.values())  # below what systems give to outgoing connections


def test_a_taken_base_port_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(NetworkError, match=rf"base_port: port {port} \(for a\) is taken"):
            choose(["a"], {}, port)


def test_a_base_port_with_too_few_above_it_is_named() -> None:
    purposes = [f"p{number}" for number in range(600)]
    had = {purpose: 65_000 + number for number, purpose in enumerate(purposes[:536])}
    with pytest.raises(NetworkError, match=r"base_port: from 65000 on there is no port left for p536"):
        choose(purposes, had, 65_000)


def test_one_command_at_a_time(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "n")
    with folder.locked(), pytest.raises(NetworkError, match="another command works on"), folder.locked():
        pass
    with folder.locked():
        pass


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(NetworkError, match="is not empty and holds no network"), Folder(tmp_path).locked():
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]
    (tmp_path / "network.json").write_text("{")
    with pytest.raises(NetworkError, match="is damaged"):
        Folder(tmp_path).read()


def test_ledgers_in_containers_are_not_looked_for_here(tmp_path: Path) -> None:
    spec = parse({"name": "n", "organisations": [{"name": "dso"}], "channels": [{"name": "market"}]}, "net.toml")
    folder = Folder(tmp_path / "n")
    with folder.locked():
        folder.write(replace(folder.new_state(spec.model_dump(mode="json")), containers=True))
    network = Network(spec, tmp_path / "n")
    for command, work in (
        ("backup", lambda: network.backup("peer0.dso", tmp_path / "kept")),
        ("restore", lambda: network.restore("peer0.dso", tmp_path / "kept")),
    ):
        with pytest.raises(NetworkError, match=f"rendered for containers.*out of reach of `{command}`"):
            work()


def test_what_a_killed_first_write_has_left_does_not_count(tmp_path: Path) -> None:
    (tmp_path / "lock").touch()
    (tmp_path / ".network.json.4711.new").write_text("{")
    folder = Folder(tmp_path)
    with folder.locked():
        folder.write(folder.new_state({}))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lock", "network.json"]


def test_a_removal_leaves_nothing(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "n")
    with folder.locked():
        folder.write(folder.new_state({}))
        (folder.root / "logs").mkdir()
        (folder.root / "logs" / "a.log").write_text("x")
        folder.remove()
    assert not folder.root.exists()
