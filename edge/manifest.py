"""Manifest <-> manifest.json. What is read comes from strangers: every field is checked."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, fields
from typing import Any, TypeVar

from irstd_edge.edge.normalisation import NORMALISATIONS
from irstd_edge.edge.policy import MAX_NAME_LENGTH, is_printable, printable
from irstd_edge.edge.types import (
    BIT_DEPTHS,
    DecodeSpec,
    InputSpec,
    IrstdError,
    Manifest,
    ModelSpec,
    OperatingPoint,
    Quantization,
)

SCHEMA = "irstd-edge/bundle/1"
GOLDEN = "golden"
METHODS = ("ptq", "qat")
MAX_STRIDE = 256

_SHA256 = re.compile(r"[0-9a-f]{64}")
_CHANNELS = 1
_SIZES = ["N", _CHANNELS, "H", "W"]
"""Of the tensor; H and W are free, as far as they are multiples of the stride."""

T = TypeVar("T")


@dataclass(frozen=True)
class JsonObject:
    """An object of a JSON file that remembers where it stands, for one-line errors."""

    value: dict[str, Any]
    where: str
    """`FILE: ` and the keys that lead here, as in `b/manifest.json: input.`."""

    def get(self, key: str, kind: type[T]) -> T:
        """The value at key, of exactly this type. Raises IrstdError naming the field."""
        item = self.value.get(key)
        if type(item) is not kind:  # isinstance would take true for an int
            found = "missing" if item is None else f"{item!r:.60}"
            raise self.wrong(key, f"is {found}, not of type {kind.__name__}")
        if isinstance(item, str) and not is_printable(item):  # it will stand on a terminal
            raise self.wrong(key, f"is {item!r:.60}, which cannot be printed")
        return item

    def child(self, key: str) -> JsonObject:
        """The object at key."""
        return JsonObject(self.get(key, dict), f"{self.where}{key}.")

    def children(self, key: str) -> list[JsonObject]:
        """The list of objects at key."""
        return [
            object_of(item, f"{self.where}{key}[{i}].")
            for i, item in enumerate(self.get(key, list))
        ]

    def texts(self, key: str) -> dict[str, str]:
        """The object of strings at key."""
        child = self.child(key)
        return {name: child.get(name, str) for name in child.value}

    def sha256(self, key: str) -> str:
        """The hexadecimal SHA-256 at key."""
        digest = self.get(key, str)
        if not _SHA256.fullmatch(digest):
            raise self.wrong(key, f"is {digest!r:.80}, not 64 hexadecimal digits")
        return digest

    def choice(self, key: str, allowed: tuple[T, ...]) -> T:
        """The value at key, one of those allowed."""
        item = self.get(key, type(allowed[0]))
        if item not in allowed:
            raise self.wrong(key, f"is {item!r:.60}, not one of {', '.join(map(str, allowed))}")
        return item

    def wrong(self, key: str, what: str) -> IrstdError:
        """The error for the field at `key`; the key itself is untrusted text."""
        field = printable(f"{self.where}{key:.80}")
        return IrstdError(f"{field} {what}: copy the bundle again or quantize again")


def object_of(value: Any, where: str) -> JsonObject:
    """The root of a file, or an item of a list. Raises IrstdError unless it is an object."""
    if not isinstance(value, dict):
        place = where.rstrip(" .:")
        raise IrstdError(f"{place}: not a JSON object: copy the bundle again or quantize again")
    return JsonObject(value, where)


def is_plain_name(name: str) -> bool:
    """Whether a bundle may hold this: NAME or golden/NAME, never a way out of its folder."""
    parts = name.split("/")
    folder_fits = len(parts) == 1 or (len(parts) == 2 and parts[0] == GOLDEN)
    last = parts[-1]
    return (
        folder_fits
        and 0 < len(last) <= MAX_NAME_LENGTH + len(".png")
        and not last.startswith(".")
        and "\\" not in last
        and is_printable(last)
    )


def manifest_to_json(manifest: Manifest) -> dict[str, Any]:
    """The value of manifest.json."""
    quantization = manifest.quantization
    return {
        "schema": manifest.schema,
        "model": manifest.model.name,
        "parent_sha256": manifest.parent_sha256,
        "files": manifest.files,
        "input": {"sizes": _SIZES, "channels": _CHANNELS, **asdict(manifest.model.input)},
        "decode": asdict(manifest.model.decode),
        "quantization": {
            "method": quantization.method,
            "recipe": quantization.recipe,
            "calibration": [{"name": n, "sha256": s} for n, s in quantization.calibration],
            "float_layers": [{"layer": n, "reason": r} for n, r in quantization.float_layers],
        },
        "versions": manifest.versions,
        "accuracy": manifest.accuracy,
    }


def manifest_from_json(value: Any, where: str) -> Manifest:
    """The inverse. `where` names the file. Raises IrstdError naming the first field that is off."""
    root = object_of(value, f"{where}: ")
    schema = root.get("schema", str)
    if schema != SCHEMA:
        raise IrstdError(
            f"{where}: schema {schema!r:.60} is not {SCHEMA}: quantize again, or install the "
            "irstd-edge that wrote it"
        )
    accuracy = root.child("accuracy")
    return Manifest(
        model=_model(root, where),
        parent_sha256=root.sha256("parent_sha256"),
        files=_files(root),
        quantization=_quantization(root.child("quantization")),
        versions=root.texts("versions"),
        accuracy={variant: accuracy.get(variant, dict) for variant in accuracy.value},
        schema=schema,
    )


def _model(root: JsonObject, where: str) -> ModelSpec:
    entry, decode = root.child("input"), root.child("decode")
    entry.choice("channels", (_CHANNELS,))
    stride = entry.get("stride", int)
    if not 1 <= stride <= MAX_STRIDE:
        raise entry.wrong("stride", f"is {stride}, not in 1..{MAX_STRIDE}")
    spec = InputSpec(
        stride, entry.choice("bit_depth", BIT_DEPTHS), entry.choice("normalisation", NORMALISATIONS)
    )
    try:
        rule = DecodeSpec(
            decode.get("kind", str),
            decode.get("threshold", float),
            tuple(
                OperatingPoint(*(point.get(field.name, float) for field in fields(OperatingPoint)))
                for point in decode.children("operating_points")
            ),
        )
    except IrstdError as error:
        raise error if str(error).startswith(where) else IrstdError(f"{where}: {error}") from error
    return ModelSpec(root.get("model", str), spec, rule)


def _files(root: JsonObject) -> dict[str, str]:
    files = root.child("files")
    for name in files.value:
        if not is_plain_name(name):
            raise root.wrong("files", f"names {name!r:.80}, which is not a plain file name")
    return {name: files.sha256(name) for name in files.value}


def _quantization(entry: JsonObject) -> Quantization:
    return Quantization(
        method=entry.choice("method", METHODS),
        recipe=entry.get("recipe", dict),
        calibration=tuple(
            (frame.get("name", str), frame.sha256("sha256"))
            for frame in entry.children("calibration")
        ),
        float_layers=tuple(
            (layer.get("layer", str), layer.get("reason", str))
            for layer in entry.children("float_layers")
        ),
    )
