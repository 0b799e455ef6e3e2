"""Damage to files, decided by a seed: bytes of any file, and values of JSON."""

import json
import random
from typing import Any

NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 2**63 - 1)
TEXTS = (b"../../etc/passwd", b"\x1b[2J\x1b]0;x\x07", b"\n\n", b"\0", b"\xff\xfe", b"1e999", b"NaN")
VALUES: tuple[Any, ...] = (
    *(None, True, -1, 0, 1, 1.5, -1e300, 10**17, 10**40, "", [], {}, [[]], [None], {"a": None}),
    *("\x1b[31mred", "a\nb", "../../x", "/etc/passwd", "x" * 5000, "\ud800", "<script>", "[/x]"),
)
LITERALS = ("NaN", "Infinity", "-Infinity", "1e999", "9" * 5000, "[" * 3000, '{"a":1,"a":2}')


def mutated(data: bytes, rng: random.Random) -> bytes:
    """The bytes with one to six changes."""
    out = bytearray(data)
    for _ in range(rng.randint(1, 6)):
        rng.choice((_flip, _number, _cut, _repeat, _remove, _text, _swap))(out, rng)
    return bytes(out)


def _flip(out: bytearray, rng: random.Random) -> None:
    if out:
        out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)


def _number(out: bytearray, rng: random.Random) -> None:
    size = rng.choice((1, 2, 4, 8))
    value = rng.choice(NUMBERS) & (2 ** (8 * size) - 1)
    at = rng.randrange(len(out) + 1)
    out[at : at + size] = value.to_bytes(size, rng.choice(("little", "big")))


def _cut(out: bytearray, rng: random.Random) -> None:
    if rng.random() < 0.3:
        del out[rng.randrange(len(out) + 1) :]


def _repeat(out: bytearray, rng: random.Random) -> None:
    start = rng.randrange(len(out) + 1)
    part = bytes(out[start : start + rng.randrange(1, 65)])
    out[start:start] = part * rng.choice((1, 2, 50))


def _remove(out: bytearray, rng: random.Random) -> None:
    start = rng.randrange(len(out) + 1)
    del out[start : start + rng.randrange(1, 33)]


def _text(out: bytearray, rng: random.Random) -> None:
    at = rng.randrange(len(out) + 1)
    text = rng.choice(TEXTS)
    out[at : at + (len(text) if rng.random() < 0.5 else 0)] = text


def _swap(out: bytearray, rng: random.Random) -> None:
    size = rng.randrange(1, 17)
    one, other = (rng.randrange(len(out) + 1) for _ in range(2))
    first, second = bytes(out[one : one + size]), bytes(out[other : other + size])
    if len(first) == len(second):
        out[one : one + size], out[other : other + size] = second, first


def mutated_json(value: Any, rng: random.Random) -> bytes:
    """JSON of the value with one to three values, names or literals changed; or its bytes."""
    if rng.random() < 0.25:
        return mutated(json.dumps(value).encode(), rng)
    value = json.loads(json.dumps(value))
    literals: dict[str, str] = {}
    for _ in range(rng.randint(1, 3)):
        _change(value, rng, literals)
    text = json.dumps(value)
    for mark, literal in literals.items():
        text = text.replace(f'"{mark}"', literal)
    return text.encode()


def _change(value: Any, rng: random.Random, literals: dict[str, str]) -> None:
    """Walk down to a random place and put something else there."""
    places: list[tuple[Any, Any]] = []
    waiting = [value]
    while waiting:
        item = waiting.pop()
        keys = list(item) if isinstance(item, dict) else range(len(item))
        places += [(item, key) for key in keys]
        waiting += [item[key] for key in keys if isinstance(item[key], dict | list)]
    if not places:
        return
    item, key = rng.choice(places)
    chance = rng.random()
    if chance < 0.15:
        del item[key]
    elif chance < 0.25 and isinstance(item, dict):
        item[rng.choice(("x", "", "\x1b[1m", "a\nb", "schema"))] = item.pop(key)
    elif chance < 0.35:
        mark = f"@{len(literals)}@"
        literals[mark] = rng.choice(LITERALS)
        item[key] = mark
    elif chance < 0.45 and isinstance(item, list):
        item += item[:]
    elif chance < 0.55:
        item[key] = json.loads(json.dumps(rng.choice(places)[0]))
    else:
        item[key] = rng.choice(VALUES)
