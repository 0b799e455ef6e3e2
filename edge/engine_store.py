"""Where engines live: in a store of this user on this machine, outside every bundle.

An engine is native code, so a file that travelled, or that someone else wrote, must not be loaded.
Each entry carries an HMAC under a key that was made here and never leaves; it covers the bytes and
everything that the engine depends on.

ROOT/key              32 random bytes, readable by the user alone
ROOT/DIGEST/engine    the serialized engine
ROOT/DIGEST/entry.json
ROOT/timings/DIGEST   what TensorRT measured of its kernels, sealed the same way
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
import stat
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from irstd_edge.edge.files import new_folder, read_bytes, write_atomic
from irstd_edge.edge.json_files import read_json, write_json
from irstd_edge.edge.types import IrstdError

ENGINE, ENTRY, KEY, TIMINGS = "engine", "entry.json", "key", "timings"
SEAL_BYTES = 32
KEY_BYTES = 32
OTHERS = 0o077
"""Permissions of anyone but the user."""
DLA = "dla"
"""The flag of an engine that runs on one."""
AGAIN = "build it again with `irstd-edge compile`"


Shape = tuple[int, ...]
"""(N, 1, H, W)."""


def shape_flags(low: Shape, best: Shape, high: Shape) -> tuple[str, ...]:
    """The flags of an engine that takes shapes from `low` to `high` and was tuned for `best`."""
    ends = {"min": low, "opt": best, "max": high}
    return tuple(f"{name}={'x'.join(map(str, shape))}" for name, shape in ends.items())


@dataclass(frozen=True)
class EngineKey:
    """Everything that an engine depends on: another value of any field is another engine."""

    graph_sha256: str
    backend: str
    version: str
    """Of the backend."""
    gpu: str | None
    """Name and multiprocessors of the GPU here; None for an engine built for elsewhere."""
    target: str
    """Compute capability, as in sm_87."""
    flags: tuple[str, ...]
    """Shapes, DLA, TF32, and of a Jetson the module and the power mode it was built in."""

    @property
    def tuned_for(self) -> Shape:
        """The shape of a batch at which its kernels were chosen."""
        return self._shape("opt")

    def takes(self, shape: Shape) -> bool:
        """Whether it runs a batch of this shape."""
        limits = zip(self._shape("min"), shape, self._shape("max"), strict=True)
        return all(low <= extent <= high for low, extent, high in limits)

    def _shape(self, end: str) -> Shape:
        (flag,) = (flag for flag in self.flags if flag.startswith(f"{end}="))
        return tuple(int(extent) for extent in flag.partition("=")[2].split("x"))

    @property
    def digest(self) -> str:
        """SHA-256 over all fields."""
        return hashlib.sha256(self.record).hexdigest()

    @property
    def record(self) -> bytes:
        """The fields in one spelling."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":")).encode()


@dataclass(frozen=True)
class EngineStore:
    """A folder of engines, opened by `open_store`."""

    root: Path
    secret: bytes
    """Never printed, logged or written but to ROOT/key."""

    def __repr__(self) -> str:
        """Without the key."""
        return f"EngineStore({str(self.root)!r})"

    def path(self, key: EngineKey) -> Path:
        """Where the engine of a key is, or would be."""
        return self.root / key.digest / ENGINE

    def built(self, key: EngineKey) -> float:
        """When the engine of a key was kept, in seconds since the epoch."""
        return self.path(key).stat().st_mtime

    def save(self, key: EngineKey, data: bytes) -> Path:
        """Keep an engine that was built here; an older one of the same key is replaced."""
        entry = {"key": asdict(key), "store": self._name(), "hmac": self._seal(key, data)}
        with new_folder(self.root / key.digest, replaces=ENTRY) as folder:
            folder.chmod(0o700)
            (folder / ENGINE).touch(mode=0o600)
            (folder / ENGINE).write_bytes(data)
            write_json(folder / ENTRY, entry)
        return self.path(key)

    def load(self, key: EngineKey) -> bytes:
        """The bytes of an engine, verified; give these to the runtime, not the file.

        Raises IrstdError where there is none, or it is from elsewhere or altered.
        """
        try:
            return self._load(key)
        except IrstdError:  # another process may have put a new one there between two reads
            return self._load(key)

    def _load(self, key: EngineKey) -> bytes:
        folder = self.root / key.digest
        if not (folder / ENTRY).is_file():
            raise IrstdError(f"{folder}: no engine is there: {AGAIN}")
        entry = read_json(folder / ENTRY, "an engine's entry")
        if not isinstance(entry, dict) or entry.get("store") != self._name():
            raise IrstdError(f"{folder}: this engine was not built here: {AGAIN}")
        data = read_bytes(folder / ENGINE)
        seal = str(entry.get("hmac")).encode()
        if not hmac.compare_digest(self._seal(key, data).encode(), seal):
            raise IrstdError(f"{folder}: this engine was altered since it was built: {AGAIN}")
        return data

    def keys(self) -> tuple[EngineKey, ...]:
        """Of all engines that are kept, unverified: `load` verifies."""
        names = {field.name for field in fields(EngineKey)}
        return tuple(
            EngineKey(**{**old, "flags": tuple(old["flags"])})
            for old in self._entries()
            if set(old) == names and _are_texts(old["flags"])
        )

    def timings(self, key: EngineKey) -> bytes:
        """Of earlier builds where the key's backend would measure the same; b"" without any.

        Those that were altered count as none: they only save time.
        """
        file = self._timings_file(key)
        if not file.is_file():
            return b""
        kept = read_bytes(file)
        seal, data = kept[:SEAL_BYTES], kept[SEAL_BYTES:]
        return data if hmac.compare_digest(self._timings_seal(file.name, data), seal) else b""

    def save_timings(self, key: EngineKey, data: bytes) -> None:
        """Keep them for the next build."""
        file = self._timings_file(key)
        file.parent.mkdir(mode=0o700, exist_ok=True)
        write_atomic(file, self._timings_seal(file.name, data) + data)

    def _timings_file(self, key: EngineKey) -> Path:
        """One for each version, GPU, module and power mode, whatever the graph."""
        place = [flag for flag in key.flags if flag.startswith(("module=", "power="))]
        what = json.dumps([key.backend, key.version, key.gpu, key.target, *place])
        return self.root / TIMINGS / hashlib.sha256(what.encode()).hexdigest()

    def _timings_seal(self, name: str, data: bytes) -> bytes:
        content = hashlib.sha256(data).digest()
        return hmac.new(self.secret, b"timings" + name.encode() + content, hashlib.sha256).digest()

    def _seal(self, key: EngineKey, data: bytes) -> str:
        content = hashlib.sha256(data).digest()
        return hmac.new(self.secret, key.record + content, hashlib.sha256).hexdigest()

    def _name(self) -> str:
        """Tells the stores of two machines apart without giving anything away."""
        return hmac.new(self.secret, b"store", hashlib.sha256).hexdigest()[:16]

    def _entries(self) -> Iterator[dict[str, Any]]:
        # Without what a kill left of an engine that was being kept, and those removed since.
        for file in sorted(self.root.glob(f"[!.]*/{ENTRY}")):
            entry = _read_entry(file) if file.with_name(ENGINE).is_file() else None
            if isinstance(entry, dict) and isinstance(entry.get("key"), dict):
                yield entry["key"]


def _read_entry(file: Path) -> Any:
    """None of one that is damaged: it costs its own engine, and no other."""
    try:
        return read_json(file, "an engine's entry")
    except IrstdError:
        return None


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def open_store(root: Path | None = None) -> EngineStore:
    """Open the user's store; its folder and key are made at the first time.

    root: None for $XDG_DATA_HOME/irstd-edge/engines. Raises IrstdError where others could write
    to it or read its key.
    """
    folder = default_root() if root is None else root
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _refuse_shared(folder, "a folder")
        return EngineStore(folder, _secret(folder / KEY))
    except OSError as error:
        reason = error.strerror or str(error)
        raise IrstdError(f"{folder}: cannot be used ({reason}): check path and rights") from error


def default_root() -> Path:
    """Of the user's store."""
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(data) / "irstd-edge" / "engines"


def _secret(file: Path) -> bytes:
    """The key; made whole under another name first, so that two processes agree on one."""
    if not file.exists() and not file.is_symlink():
        draft = file.with_name(f".{KEY}.{secrets.token_hex(6)}")
        handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with open(handle, "wb") as out:
                out.write(secrets.token_bytes(KEY_BYTES))
                out.flush()
                os.fsync(handle)
            try:
                os.link(draft, file)
            except FileExistsError:
                pass  # another process was first: its key counts
        finally:
            draft.unlink()
    _refuse_shared(file, "a file")
    secret = file.read_bytes()
    if len(secret) != KEY_BYTES:
        raise IrstdError(f"{file}: not a key of {KEY_BYTES} bytes: remove it, then {AGAIN}")
    return secret


def _refuse_shared(path: Path, kind: str) -> None:
    status = path.lstat()
    expected = stat.S_ISDIR if kind == "a folder" else stat.S_ISREG
    if not expected(status.st_mode):
        raise IrstdError(f"{path}: is not {kind} but a link or something else: remove it")
    if status.st_uid != os.getuid():
        raise IrstdError(f"{path}: belongs to another user: remove it, then {AGAIN}")
    if status.st_mode & OTHERS:
        raise IrstdError(f"{path}: others have rights to it: chmod go-rwx {path}")
