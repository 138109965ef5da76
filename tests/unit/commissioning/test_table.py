"""What an onboarding's table may look like, and what is said about one that it cannot be."""

import json
from pathlib import Path

import pytest

from flexrelay.commissioning.errors import CommissioningError
from flexrelay.commissioning.onboarding.table import MAX_FIELD, read_table


def csv(folder: Path, data: str | bytes, name: str = "d.csv") -> Path:
    path = folder / name
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def test_rows_with_their_lines(tmp_path: Path) -> None:
    text = '\ufeffname,kind,receivers\r\nm1,meter,a b\r\n\r\n"m2","pv","a\r\n"\r\nm3, ev ,\r\n'
    table = read_table(csv(tmp_path, text))
    assert [(row.line, row["name"], row["kind"]) for row in table.rows] == [
        (2, "m1", "meter"),
        (4, "m2", "pv"),
        (6, "m3", "ev"),
    ]
    assert table.problems == () and table.rows[0]["credential"] == ""


def test_bad_rows_are_told_and_the_others_read(tmp_path: Path) -> None:
    text = f"name,kind\nm1,meter\nm2\nm3,meter,x\n,meter\nm4,\nm5,me\tter\nm6,{'x' * (MAX_FIELD + 1)}\nm7,pv\n"
    table = read_table(csv(tmp_path, text))
    assert [row["name"] for row in table.rows] == ["m1", "m7"]
    told = [(problem.line, problem.column) for problem in table.problems]
    assert told == [(3, ""), (4, ""), (5, "name"), (6, "kind"), (7, "kind"), (8, "kind")]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "column name, kind is missing"),
        (b"name\nm1\n", "column kind is missing"),
        (b"name,kind,colour\n", "line 1: unknown column 'colour'"),
        (b"name,kind,kind\n", "kind stands twice"),
        (b"name,kind\nm1,meter\nm\xff,pv\n", "line 3: not UTF-8"),
    ],
)
def test_a_table_that_is_none(tmp_path: Path, data: bytes, said: str) -> None:
    with pytest.raises(CommissioningError, match=said):
        read_table(csv(tmp_path, data))


def test_a_quote_that_does_not_end(tmp_path: Path) -> None:
    table = read_table(csv(tmp_path, 'name,kind\nm1,meter\n"m2,meter\nm3,meter\n'))
    assert [row["name"] for row in table.rows] == ["m1"]
    assert [problem.line for problem in table.problems] == [3]


def test_json_lines(tmp_path: Path) -> None:
    good = {"name": "m1", "kind": "meter", "receivers": ["a", "b"], "unsigned": True}
    bad = ["{", "[1]", '{"name": "x", "kind": 7}', '{"name": "x", "kind": "pv", "colour": "red"}', '{"name": "x"}',
           '{"name": "x", "name": "y", "kind": "pv"}', "[" * 5000]  # fmt: skip
    table = read_table(csv(tmp_path, "\n".join([json.dumps(good), *bad]), "d.jsonl"))
    (row,) = table.rows
    assert (row["receivers"], row["unsigned"]) == ("a b", "yes")
    assert [problem.line for problem in table.problems] == [2, 3, 4, 5, 6, 7, 8]


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(CommissioningError, match="No such file"):
        read_table(tmp_path / "nothing.csv")
