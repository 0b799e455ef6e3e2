"""The batches of a run, one after the other; for a GPU other processes make them ahead."""

from __future__ import annotations

import math
import shutil
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from multiprocessing import current_process
from pathlib import Path
from typing import overload

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from irstd_edge.edge.devices import usable_threads
from irstd_edge.edge.types import MachineError
from irstd_edge.models.batches import (
    Labelled,
    epoch_crops,
    mask_batch,
    point_batch,
    steps_per_epoch,
)
from irstd_edge.models.recipes import Recipe

Batch = tuple[Tensor, Tensor]
"""Frames (N, 1, H, W) in 0..1, and their masks (N, 1, H, W) or point targets (N, 5, H/2, W/2)."""

MOST_WORKERS = 16
"""Processes that make batches for one GPU."""

SHARED_MEMORY = Path("/dev/shm")
"""Of Linux; elsewhere it has no size of its own."""

LONGEST_WAIT_S = 180
"""For a batch; workers that take longer are stuck."""


def workers_for(device: torch.device, processes: int) -> int:
    """Return how many processes make batches for each of those that train on this machine.

    None on the CPU: its cores are busy with training. For a GPU all of the cores that this process
    may use, shared by those that train, less the one that each of them trains from; none in a
    daemon, which may not start others.
    """
    if device.type != "cuda" or current_process().daemon:
        return 0
    return max(1, min(MOST_WORKERS, usable_threads() // processes - 1))


@contextmanager
def lost_workers_told() -> Iterator[None]:
    """Raise MachineError where a process that makes batches is killed, or hangs, in this block.

    torch tells of a killed one by a signal, at whatever line the run has come to.
    """
    try:
        yield
    except (ConnectionError, EOFError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not str(error).startswith("DataLoader "):
            raise
        raise MachineError(
            f"--device: a loader worker ended or hangs ({error}); there may be "
            "too little memory: go on with --resume, or with a smaller --batch-size"
        ) from error


class BatchLoader:
    """The batches of a run, an epoch at a time; the same ones whoever makes them."""

    def __init__(
        self,
        frames: Sequence[Labelled],
        recipe: Recipe,
        seed: int,
        *,
        workers: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.frames = frames
        self._workers = workers
        if workers:
            _refuse_small_memory(frames, recipe, workers)
        reachable = _Shared(frames) if workers else frames
        self._steps = _Steps(reachable, recipe, seed, rank, world_size)
        self._next_epoch = -1
        self._ahead: Iterator[Batch] = iter(())

    @property
    def per_epoch(self) -> int:
        """Batches in an epoch."""
        return self._steps.per_epoch

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """Yield the batches of an epoch, counted from 0; all are to be taken."""
        if epoch != self._next_epoch:
            self._ahead = self._from(epoch * self.per_epoch)
        self._next_epoch = epoch + 1
        yield from islice(self._ahead, self.per_epoch)

    def close(self) -> None:
        """End the processes that make batches; a later epoch starts others."""
        self._ahead, self._next_epoch = iter(()), -1

    def _from(self, step: int) -> Iterator[Batch]:
        loader = DataLoader(
            self._steps,
            batch_size=None,
            sampler=range(step, len(self._steps)),
            num_workers=self._workers,
            # A fork would inherit the locks of OpenCV's threads, and wait for them for ever.
            multiprocessing_context="spawn" if self._workers else None,
            pin_memory=self._workers > 0 and torch.cuda.is_available(),
            worker_init_fn=_alone,
            timeout=LONGEST_WAIT_S if self._workers else 0,
        )
        with _deaf_to_interrupts():
            return iter(loader)


class _Steps(Dataset[Batch]):
    """Every batch of a run, by its step; none depends on another."""

    def __init__(
        self, frames: Sequence[Labelled], recipe: Recipe, seed: int, rank: int, world_size: int
    ) -> None:
        self.frames, self.recipe, self.seed = frames, recipe, seed
        self.rank, self.world_size = rank, world_size
        self.per_epoch = steps_per_epoch(len(frames), recipe.batch_size)

    def __len__(self) -> int:
        return self.recipe.epochs * self.per_epoch

    def __getitem__(self, step: int) -> Batch:
        epoch, at = divmod(step, self.per_epoch)
        crops = next(
            epoch_crops(
                self.frames,
                self.recipe.crops_in(epoch),
                batch_size=self.recipe.batch_size,
                seed=self.seed,
                epoch=epoch,
                first_step=at,
                rank=self.rank,
                world_size=self.world_size,
            )
        )
        return point_batch(crops) if self.recipe.loss == "points" else mask_batch(crops)


class _Shared(Sequence[Labelled]):
    """Frames packed in memory that other processes reach: it is pickled by name."""

    def __init__(self, frames: Sequence[Labelled]) -> None:
        self._shapes = [frame.image.shape for frame in frames]
        self._points = [(frame.points, frame.radii) for frame in frames]
        self._ends = np.cumsum([2 * frame.image.size for frame in frames])
        pixels = [part.ravel() for frame in frames for part in (frame.image, frame.mask)]
        self._pixels = torch.from_numpy(np.concatenate(pixels))
        self._pixels.share_memory_()  # type: ignore[no-untyped-call]

    def __len__(self) -> int:
        return len(self._shapes)

    @overload
    def __getitem__(self, at: int) -> Labelled: ...
    @overload
    def __getitem__(self, at: slice) -> list[Labelled]: ...
    def __getitem__(self, at: int | slice) -> Labelled | list[Labelled]:
        if isinstance(at, slice):
            return [self[k] for k in range(len(self))[at]]
        height, width = self._shapes[at]
        end = int(self._ends[at])
        own = self._pixels[end - 2 * height * width : end].numpy()
        image, mask = own.reshape(2, height, width)
        return Labelled(image, mask, *self._points[at])


def _refuse_small_memory(frames: Sequence[Labelled], recipe: Recipe, workers: int) -> None:
    """Raise MachineError where frames and batches do not fit in the memory that processes share."""
    if not SHARED_MEMORY.is_dir():
        return
    side = max(how.size_px for how in recipe.crops)
    batches = 2 * workers * recipe.batch_size * side**2 * 9  # bytes: a frame, five quarters of one
    needed = batches + sum(8 * frame.image.size for frame in frames)
    free = shutil.disk_usage(SHARED_MEMORY).free
    if needed > free:
        raise MachineError(
            f"{SHARED_MEMORY}: {free / 1e6:.0f} MB are free, and training on a GPU needs "
            f"{needed / 1e6:.0f} MB there for its frames and batches; in a container give "
            f"--shm-size={math.ceil(needed / 1e9) + 1}g"
        )


@contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """What is started in this block leaves Ctrl-C to the process that trains."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _alone(worker: int) -> None:
    """Every worker has one core to itself."""
    cv2.setNumThreads(1)
