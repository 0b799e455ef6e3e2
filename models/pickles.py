"""What torch saved, read without running it, in bounded time."""

from __future__ import annotations

import io
import os
import signal
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from irstd_edge.edge.files import read_bytes
from irstd_edge.edge.policy import MAX_UNPICKLING_S, MAX_WEIGHTS_BYTES

WAIT_S = 0.01
MEMORY_FACTOR, SPARE_BYTES = 3, 2**28
"""What reading may take: so many times the file, and 256 MiB."""


def unpickled(path: Path, device: str | torch.device = "cpu", allowed: Sequence[Any] = ()) -> Any:
    """Tensors and plain containers of a file of torch.save. Raises ValueError for anything else.

    allowed: for `torch.serialization.safe_globals`. Raises IrstdError where it cannot be read.
    """
    raw = read_bytes(path, MAX_WEIGHTS_BYTES)
    if not _ends(raw, allowed):
        raise ValueError(
            f"it is damaged, holds more than tensors, or takes over {MAX_UNPICKLING_S:g} s to read"
        )
    return _loaded(raw, device, allowed)


def _limit_memory(more_bytes: int) -> None:
    """Of this process: what it has and so much more."""
    import resource

    statm = Path("/proc/self/statm")
    if statm.exists():
        held = int(statm.read_text().split()[5]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_DATA, (held + more_bytes, held + more_bytes))


def _loaded(raw: bytes, device: str | torch.device, allowed: Sequence[Any]) -> Any:
    with torch.serialization.safe_globals(list(allowed)):
        return torch.load(io.BytesIO(raw), map_location=device, weights_only=True)


def _ends(raw: bytes, allowed: Sequence[Any]) -> bool:
    """Whether a child can read it in time.

    A few bytes make a tuple of tuples that takes years to be hashed, and nothing but the end of
    its process stops that.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads, which the child leaves be
        pid = os.fork()
    if not pid:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the parent gives them
                _limit_memory(MEMORY_FACTOR * len(raw) + SPARE_BYTES)
                _loaded(raw, "cpu", allowed)
        except BaseException:
            os._exit(1)
        os._exit(0)
    end = time.monotonic() + MAX_UNPICKLING_S
    while not (done := os.waitpid(pid, os.WNOHANG))[0]:
        if time.monotonic() > end:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return False
        time.sleep(WAIT_S)
    return done[1] == 0
