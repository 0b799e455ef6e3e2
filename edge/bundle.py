"""The deployable folder: graphs, golden frames, and a manifest that vouches for each of them.

manifest.json   fp32.onnx  fp16.onnx  int8.onnx  int8-fp16.onnx  int8.cpu.onnx   golden/
signature.json  where someone signed the manifest, see `signing`
"""

from __future__ import annotations

import stat
from collections.abc import Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from itertools import chain
from pathlib import Path

from irstd_edge.edge.files import new_folder, refuse_own_folder, sha256_of
from irstd_edge.edge.json_files import read_json, write_json
from irstd_edge.edge.manifest import (
    GOLDEN,
    is_plain_name,
    manifest_from_json,
    manifest_to_json,
)
from irstd_edge.edge.policy import MAX_GRAPH_BYTES, MAX_TEXT_BYTES
from irstd_edge.edge.signing import SIGNATURE, check_signature
from irstd_edge.edge.types import IrstdError, Manifest

MANIFEST = "manifest.json"
VARIANTS = {
    "fp32": "fp32.onnx",
    "fp16": "fp16.onnx",
    "int8": "int8.onnx",
    "int8-fp16": "int8-fp16.onnx",
}
"""Variant -> its graph; ONNX Runtime has an int8 form of its own, see `graph_name`."""


@dataclass(frozen=True)
class Bundle:
    """A bundle whose files were all verified when it was opened."""

    path: Path
    manifest: Manifest
    sha256: str
    """Of manifest.json as it was read, and so of everything in it."""

    def variants(self, runtime: str) -> tuple[str, ...]:
        """Those that have a graph for this runtime, in the order of `VARIANTS`."""
        return tuple(v for v in VARIANTS if graph_name(v, runtime) in self.manifest.files)

    def graph(self, variant: str, runtime: str) -> Path:
        """The ONNX file to run. Raises IrstdError listing the variants that the bundle has."""
        name = graph_name(variant, runtime)
        if name not in self.manifest.files:
            there = ", ".join(self.variants(runtime)) or "none"
            raise IrstdError(
                f"{self.path}: has no {name}; variants for {runtime} are: {there}: choose one of "
                "them or quantize again"
            )
        return self.path / name


def graph_name(variant: str, runtime: str) -> str:
    """File name of a variant's graph for a runtime. Raises IrstdError on an unknown variant."""
    if variant not in VARIANTS:
        raise IrstdError(f"--variant: {variant!r} is not one of {', '.join(VARIANTS)}")
    if (variant, runtime) == ("int8", "onnxruntime"):
        return "int8.cpu.onnx"
    return VARIANTS[variant]


def refuse_foreign(path: Path) -> None:
    """Raise IrstdError where a bundle at `path` would cost the user anything but an older bundle.

    A mistyped path is to replace no folder that is not ours: what stands there is empty, or a
    bundle that holds nothing else.
    """
    try:
        path = path.resolve()
        if path.exists() and not path.is_dir():
            raise IrstdError(f"{path}: is a file: remove it or choose another name")
        empty = not path.is_dir() or not any(path.iterdir())
        other = None if empty else _first_foreign(path)
        if other is None:
            refuse_own_folder(path)
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle
        raise IrstdError(
            f"{path}: cannot be written ({error}): check path, rights and space"
        ) from error
    if other is not None:
        raise IrstdError(
            f"{path}: the folder is not empty ({other}): remove it or choose another name"
        )


def _first_foreign(path: Path) -> str | None:
    """The name of something in a folder that is not a bundle's; None where there is none."""
    if not (path / MANIFEST).exists():
        return min(each.name for each in path.iterdir())
    try:
        ours = {MANIFEST, SIGNATURE, GOLDEN, *read_manifest(path).files}
    except IrstdError as error:
        raise IrstdError(
            f"{path}: may be no bundle of ours ({error}): remove it or choose another name"
        ) from error
    # From the top, so that a large folder of others is not searched.
    found = (str(each.relative_to(path)) for each in chain(path.iterdir(), path.rglob("*")))
    return next((name for name in found if name not in ours), None)


def write_bundle(path: Path, manifest: Manifest, files: Mapping[str, bytes]) -> Bundle:
    """Write the folder whole or not at all, replacing an older bundle at `path`.

    files: name (NAME or golden/NAME) -> content; `manifest.files` is filled in from them.
    Raises IrstdError where the place cannot be written, ValueError on a name with a path in it.
    """
    for name in files:
        if not is_plain_name(name) or name == MANIFEST:
            raise ValueError(f"{name!r} cannot be the name of a file in a bundle")
    refuse_foreign(path)
    digests = {name: sha256(data).hexdigest() for name, data in files.items()}
    manifest = replace(manifest, files=digests)
    with new_folder(path, replaces=MANIFEST) as folder:
        (folder / GOLDEN).mkdir()
        for name, data in files.items():
            (folder / name).write_bytes(data)
        write_json(folder / MANIFEST, manifest_to_json(manifest))
        digest = sha256_of(folder / MANIFEST)
    return Bundle(path, manifest, digest)


def read_manifest(path: Path) -> Manifest:
    """The manifest of the bundle at `path`, its fields checked, its files not looked at.

    Raises IrstdError naming the file and the field.
    """
    file = path / MANIFEST
    if not file.exists():
        raise IrstdError(
            f"{path}: not a bundle, it has no {MANIFEST}: irstd-edge quantize makes one"
        )
    _refuse_special(file, MAX_TEXT_BYTES)
    return manifest_from_json(read_json(file, "a bundle's manifest"), str(file))


def open_bundle(path: Path, public_key: Path | None = None) -> Bundle:
    """Read the manifest and verify every file it names, and who signed it if a key is given.

    Raises IrstdError naming the first file that is missing, altered, too large or a link, or what
    is wrong with the signature.
    """
    manifest, own = read_manifest(path), sha256_of(path / MANIFEST)
    if public_key is not None:
        check_signature(path, public_key)
    if (path / GOLDEN).is_symlink():
        raise IrstdError(f"{path / GOLDEN}: is a link, not a folder: copy the bundle again")
    for name, digest in manifest.files.items():
        file = path / name
        _refuse_special(file, MAX_GRAPH_BYTES)
        if sha256_of(file) != digest:
            raise IrstdError(
                f"{file}: was altered since {MANIFEST} was written (sha256 differs): "
                "copy the bundle again"
            )
    return Bundle(path, manifest, own)


def _refuse_special(file: Path, max_bytes: int) -> None:
    """A link could lead out of the bundle, a pipe would block for ever."""
    try:
        status = file.lstat()
    except OSError as error:
        raise IrstdError(f"{file}: missing from the bundle: copy the bundle again") from error
    if not stat.S_ISREG(status.st_mode):
        raise IrstdError(f"{file}: is not a plain file: copy the bundle again")
    if status.st_size > max_bytes:
        raise IrstdError(
            f"{file}: holds {status.st_size} bytes, more than the {max_bytes} a bundle may have "
            "there: copy the bundle again"
        )
