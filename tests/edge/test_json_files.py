import json
from pathlib import Path

import pytest

from irstd_edge.edge.json_files import read_json, write_json
from irstd_edge.edge.types import IrstdError


def test_json_goes_there_and_back(tmp_path: Path) -> None:
    value = {"b": [1, 2.5, None, True], "a": {"é": "x"}}
    write_json(tmp_path / "v.json", value)
    assert read_json(tmp_path / "v.json", "a value") == value
    assert list(json.loads((tmp_path / "v.json").read_text())) == ["b", "a"]


def test_rows_are_one_line_each_and_the_same_value(tmp_path: Path) -> None:
    value = {"a": [{"x": 1.5, "é": None}, {"x": 2}], "b": [], "c": {"d": [[1, 2], (3, "[4]")]}}
    write_json(tmp_path / "v.json", value, rows=True)
    assert (tmp_path / "v.json").read_text() == (
        '{\n  "a": [\n    {"x": 1.5, "é": null},\n    {"x": 2}\n  ],\n  "b": [],\n'
        '  "c": {\n    "d": [\n      [1, 2],\n      [3, "[4]"]\n    ]\n  }\n}\n'
    )
    assert read_json(tmp_path / "v.json", "a value") == json.loads(json.dumps(value))


@pytest.mark.parametrize("rows", [False, True])
def test_json_has_no_nan(tmp_path: Path, rows: bool) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "v.json", {"f1": [{"pd": float("nan")}]}, rows=rows)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "raw", [b"", b"{", b'{"a": NaN}', b"[Infinity]", b"\xff\xfe{", b"[" * 100_000, b"{} {}"]
)
def test_json_that_is_none_is_one_line_with_the_fix(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "bench.json"
    path.write_bytes(raw)
    with pytest.raises(IrstdError) as caught:
        read_json(path, "a bench")
    line = str(caught.value)
    assert line.startswith(f"{path}: not the JSON of a bench (")
    assert line.endswith("): write it again or give another file")
    assert "\n" not in line
