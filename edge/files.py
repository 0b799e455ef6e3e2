"""Files that are whole or absent: a kill at any moment leaves the old or the new, never a half."""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from irstd_edge.edge.errors import UNWRITABLE
from irstd_edge.edge.policy import MAX_GRAPH_BYTES, refuse_special
from irstd_edge.edge.types import IrstdError

CHUNK_BYTES = 1 << 20
AT_FDCWD, RENAME_EXCHANGE = -100, 2  # <fcntl.h>, <stdio.h> of Linux


def write_atomic(path: Path, data: bytes | str) -> None:
    """Write a file under a temporary name in its folder, sync it and rename it to `path`.

    Missing parent folders are made; text is UTF-8. A pipe or a device is written to directly.
    Raises IrstdError where the place cannot be written.
    """
    with open_atomic(path) as file:
        file.write(data.encode() if isinstance(data, str) else data)


@contextmanager
def open_atomic(path: Path) -> Iterator[IO[bytes]]:
    """`write_atomic` piece by piece: the file is at `path` when the block ends without error."""
    try:
        path = path.resolve()
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if path.exists() and not path.is_file():
            with open(path, "wb") as file:
                yield file
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        with _renamed(path) as file:
            yield file
        _sync(path.parent)
    except OSError as error:
        raise _cannot(path, "be written", error) from error


@contextmanager
def path_to_write(path: Path) -> Iterator[Path]:
    """`open_atomic` for a library that opens files itself: yield a free path of the same ending.

    Where the block makes no file there, what stood at `path` stays.
    """
    refuse_unwritable(path)
    path = path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = _sibling(path).with_suffix(f".partial{path.suffix}")
    try:
        yield partial
        if partial.exists():
            _put_in_place(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _put_in_place(partial: Path, path: Path) -> None:
    try:
        _sync(partial)
        os.replace(partial, path)
        _sync(path.parent)
    except OSError as error:
        raise _cannot(path, "be written", error) from error


@contextmanager
def _renamed(path: Path) -> Iterator[IO[bytes]]:
    partial = _sibling(path)
    try:
        with open(partial, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


@contextmanager
def new_folder(path: Path, *, replaces: str | None = "manifest.json") -> Iterator[Path]:
    """Yield an empty folder beside `path`; it becomes `path` when the block ends without error.

    An existing folder is replaced only where it is empty or holds a file named `replaces`.
    Raises IrstdError elsewhere.
    """
    try:
        path = path.resolve()
        _refuse_foreign(path, replaces)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = _sibling(path)
        partial.mkdir()
    except OSError as error:
        raise _cannot(path, "be written", error) from error
    try:
        yield partial
        _sync_tree(partial)
        _move_into_place(partial, path)
    except OSError as error:
        if error.errno not in UNWRITABLE:
            raise
        raise _cannot(path, "be written", error) from error
    finally:
        # After success this is the folder that was replaced, else the unfinished one.
        shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """Make a folder and let no other process write there until the block ends.

    The system keeps the lock and frees it with the process, however that ends. A folder that was
    made for nothing is gone again. Raises IrstdError where another process has it, or nothing can
    be written there.
    """
    made = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _probe(folder)
        handle = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise _cannot(folder, "be written", error) from error
    try:
        _lock(folder, handle)
        yield
    finally:
        os.close(handle)
        if made:
            with suppress(OSError):  # it holds something, as it should
                folder.rmdir()


def _lock(folder: Path, handle: int) -> None:
    import fcntl

    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise IrstdError(
            f"{folder}: another process is writing there: wait for its end or choose another"
        ) from error
    except OSError:
        return  # some network file systems lock no folders


def refuse_unwritable(path: Path) -> None:
    """Raise IrstdError where `write_atomic` could not write now: ask before hours of work.

    Nothing is left there, missing parent folders stay missing.
    """
    try:
        path = path.resolve()
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not path.exists() or path.is_file():
            _probe(next(folder for folder in path.parents if folder.exists()))
    except OSError as error:
        raise _cannot(path, "be written", error) from error


def refuse_clash(
    outputs: Iterable[tuple[str, Path]], inputs: Iterable[Path], made: Iterable[Path] = ()
) -> None:
    """Raise IrstdError where an output would replace an input, or what else is written.

    outputs: (flag, file). inputs: files, and folders in which nothing may be written. made: other
    files and folders that will be written. Links are followed; pipes and devices replace nothing.
    """
    kept = {path.resolve(): (path, "is an input") for path in inputs}
    others = {path.resolve(): path for path in made}
    kept |= {place: (path, "is made by this command") for place, path in others.items()}
    written: dict[Path, str] = {}
    for flag, path in outputs:
        place = path.resolve()
        if place.exists() and not place.is_file():
            continue
        taken = next((kept[p] for p in (place, *place.parents) if p in kept), None)
        if taken is not None:
            source, what = taken
            where = "" if place == source.resolve() else f"lies in {source}, which "
            raise IrstdError(f"{flag}: {path} {where}{what}: choose another place")
        inside = next((other for p, other in others.items() if place in p.parents), None)
        if inside is not None:
            raise IrstdError(f"{flag}: {path} is the folder of {inside}: choose another place")
        if (other := written.setdefault(place, flag)) != flag:
            raise IrstdError(f"{flag}: {path} is that of {other}: choose another place")


def _probe(folder: Path) -> None:
    """Write a byte there and take it away."""
    trial = _sibling(folder / "trial")
    try:
        trial.write_bytes(b"x")
    finally:
        trial.unlink(missing_ok=True)


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file. Raises IrstdError where it cannot be read."""
    digest = hashlib.sha256()
    with open_to_read(path) as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


@contextmanager
def open_to_read(path: Path, max_bytes: int | None = None) -> Iterator[IO[bytes]]:
    """Yield a plain file to read. Raises IrstdError where it, or a part of it, cannot be read.

    Pipes and devices, which may never end, are refused, and what holds more than `max_bytes`.
    """
    try:
        # Opening a pipe would wait for its other end.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            refuse_special(path, os.fstat(file.fileno()), max_bytes)
            yield file
    except OSError as error:
        raise _cannot(path, "be read", error) from error


def read_bytes(path: Path, max_bytes: int = MAX_GRAPH_BYTES) -> bytes:
    """The contents of a plain file. Raises IrstdError where it cannot be read or is too large."""
    with open_to_read(path, max_bytes) as file:
        # No more than there is: Python gives memory to what is asked for.
        return file.read(min(max_bytes, os.fstat(file.fileno()).st_size))


def refuse_own_folder(path: Path) -> None:
    """Raise IrstdError for the folder this process works in, or one around it.

    A folder that is put in its place would leave process and shell in one that is gone.
    """
    if Path.cwd().is_relative_to(path):
        raise IrstdError(f"{path}: is the folder you are in: choose another, or call from outside")


def _refuse_foreign(path: Path, replaces: str | None) -> None:
    if path.exists() and not path.is_dir():
        raise IrstdError(f"{path}: is a file where a folder is to be made: choose another name")
    refuse_own_folder(path)
    if not path.is_dir() or not any(path.iterdir()):
        return
    if replaces is None or not (path / replaces).is_file():
        raise IrstdError(f"{path}: the folder is not empty: remove it or choose another name")


def _move_into_place(partial: Path, path: Path) -> None:
    """Rename; where a folder stands there, swap the two in one step, so that one always stands."""
    try:
        os.rename(partial, path)  # onto nothing, or an empty folder
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        if not _exchange(partial, path):
            old = _sibling(path)  # no atomic swap on this system: the gap is two renames long
            os.rename(path, old)
            os.rename(partial, path)
            os.rename(old, partial)
    _sync(path.parent)


def _exchange(first: Path, second: Path) -> bool:
    """Swap two folders by renameat2(2); False where the system or the file system cannot."""
    try:
        renameat2 = ctypes.CDLL(None).renameat2
    except (AttributeError, OSError, TypeError):
        return False
    names = os.fsencode(first), os.fsencode(second)
    return bool(renameat2(AT_FDCWD, names[0], AT_FDCWD, names[1], RENAME_EXCHANGE) == 0)


def _sibling(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(6)}.partial")


def _sync_tree(folder: Path) -> None:
    for root, _, files in os.walk(folder, topdown=False):
        for name in files:
            _sync(Path(root, name))
        _sync(Path(root))


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _cannot(path: Path, verb: str, error: OSError) -> IrstdError:
    reason = error.strerror or str(error)
    return IrstdError(f"{path}: cannot {verb} ({reason}): check path, rights and space")
