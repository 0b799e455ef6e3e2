from pathlib import Path

import pytest

from irstd_edge.edge.lists import held_out, names_of_list, names_of_split
from irstd_edge.edge.types import IrstdError


def listed(tmp_path: Path, raw: bytes) -> Path:
    path = tmp_path / "test.txt"
    path.write_bytes(raw)
    return path


def test_a_list_may_name_files_and_have_blank_lines_and_a_byte_order_mark(tmp_path: Path) -> None:
    path = listed(tmp_path, b"\xef\xbb\xbf\r\nn6.png\r\n\r\n  n7.v2 \r\nmy frame\r\n")
    assert names_of_list(path) == ("n6", "n7.v2", "my frame")


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"", "the list is empty: write a name a line"),
        (b"\n \n", "the list is empty: write a name a line"),
        (b"a\nb\na.png\n", "a is listed twice: remove one"),
        (b"\xff\xfe\x00", "not UTF-8 text: write a name a line"),
        (b"a\n../b\n", "'../b' is a path: write the frame's name alone"),
        (b"a\nimages/b\n", "'images/b' is a path: write the frame's name alone"),
        (b"a\\b\n", "'a\\\\b' is a path: write the frame's name alone"),
        (b"/etc/passwd\n", "'/etc/passwd' is a path: write the frame's name alone"),
    ],
)
def test_a_list_that_cannot_be_used_is_refused(tmp_path: Path, raw: bytes, why: str) -> None:
    path = listed(tmp_path, raw)
    with pytest.raises(IrstdError) as caught:
        names_of_list(path)
    assert str(caught.value) == f"{path}: {why}"


def test_train_and_val_keep_the_order_of_the_list() -> None:
    names = ("b", "000020", "c", "000000", "e")
    assert names_of_split(names, "val") == ("000020", "000000")
    assert names_of_split(names, "train") == ("b", "c", "e")
    for split in ("test", "trainval"):
        assert names_of_split(names, split) == names


def test_held_out_is_a_tenth_by_the_hash_of_the_name() -> None:
    names = tuple(f"{i:06d}" for i in range(1000))
    held = held_out(names)
    # sha256 begins with 91b4d142 = 2444546370 for 000000, with da5fd72f = 3663714095 for 000005
    assert "000000" in held
    assert "000005" not in held
    assert 70 < len(held) < 130
    assert held_out(names[::-1][:500]) == held & set(names[500:])


def test_held_out_of_a_tiny_set_is_the_name_with_the_smallest_hash() -> None:
    # sha256: b 3e23e816, c 2e7d2c03; of the multiples of ten 000000 91b4d142, 000020 30433c96
    assert held_out(("b", "c")) == {"c"}
    assert held_out(("000000", "000020")) == {"000020"}
    assert held_out(("000000", "b")) == {"000000"}
    assert held_out(("000000",)) == frozenset()
