"""Strict JSON: what one reader takes, every other takes alike."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any, NoReturn

from irstd_edge.edge.files import read_bytes, write_atomic
from irstd_edge.edge.policy import MAX_TEXT_BYTES
from irstd_edge.edge.types import IrstdError

NESTED = (dict, list, tuple)
MAX_DIGITS = 18
"""Of a whole number: it stays within 64 bits."""


def read_json(path: Path, what: str, max_bytes: int = MAX_TEXT_BYTES) -> Any:
    """The value in a strict JSON file (RFC 8259: no NaN, no Infinity, no name twice).

    `what` names the file's purpose in the message, as in "a bench.json". Raises IrstdError.
    """
    data = read_bytes(path, max_bytes)
    try:
        return parse_json(data)
    except (ValueError, RecursionError) as error:
        raise IrstdError(
            f"{path}: not the JSON of {what} ({error}): write it again or give another file"
        ) from error


def write_json(path: Path, value: Any, *, rows: bool = False) -> None:
    """Write a value as strict JSON, atomically. NaN and infinity are a ValueError: say null.

    rows: a list or an object that holds no other is one line, as a row of a table.
    """
    text = _in_rows(value) if rows else _dumped(value, indent=2)
    write_atomic(path, text + "\n")


def _dumped(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, indent=indent, allow_nan=False, ensure_ascii=False)


def _in_rows(value: Any, margin: str = "") -> str:
    """As `json.dumps` with an indent of 2, but for what holds no list and no object."""
    is_object = isinstance(value, dict)
    inside = tuple(value.values()) if is_object else value
    if not isinstance(inside, list | tuple) or not any(isinstance(v, NESTED) for v in inside):
        return _dumped(value)
    deeper = margin + "  "
    names = [f"{_dumped(str(name))}: " for name in value] if is_object else [""] * len(inside)
    parts = [n + _in_rows(each, deeper) for n, each in zip(names, inside, strict=True)]
    opening, closing = "{}" if is_object else "[]"
    lines = f",\n{deeper}".join(parts)
    return f"{opening}\n{deeper}{lines}\n{margin}{closing}"


def parse_json(data: bytes) -> Any:
    """The value of strict JSON. Raises ValueError, or RecursionError where it is too deep."""
    return json.loads(
        data.decode("utf-8-sig"),
        parse_constant=_refuse_constant,
        parse_float=_finite,
        parse_int=_countable,
        object_pairs_hook=_object,
    )


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text:.40} is more than a float holds")
    return number


def _countable(text: str) -> int:
    """Larger ones can't be compared with floats without an OverflowError."""
    if len(text) > MAX_DIGITS:
        raise ValueError(f"{text:.40} is a number of {len(text)} digits")
    return int(text)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Readers differ in which of two they take: a check could see one and its user the other."""
    value = dict(pairs)
    if len(value) < len(pairs):
        ((twice, _),) = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"duplicate key {twice!r:.80}")
    return value
