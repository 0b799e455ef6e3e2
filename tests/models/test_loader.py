import gc
import os
import shutil
from contextlib import nullcontext
from dataclasses import replace
from multiprocessing import active_children, get_context
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from irstd_edge.edge.types import MachineError, Sample
from irstd_edge.models import learner, spec_of
from irstd_edge.models.batches import Augmentation, Labelled, labelled
from irstd_edge.models.loader import (
    MOST_WORKERS,
    Batch,
    BatchLoader,
    lost_workers_told,
    workers_for,
)
from irstd_edge.models.recipes import Recipe, recipe_of
from irstd_edge.models.train import Epoch, train
from irstd_edge.models.weights import load_state

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more than cores

RECIPE = Recipe("points", 3, 3, 1e-3, crops=(Augmentation(64, paste=1, mosaic=0.5),), until=())


@pytest.fixture
def frames(samples: list[Sample]) -> list[Labelled]:
    return [labelled(sample, spec_of("p2p").input) for sample in samples]


def parts(batches: list[Batch]) -> list[torch.Tensor]:
    return [part for batch in batches for part in batch]


@pytest.mark.parametrize("loss", ["points", "dice"])
def test_others_make_the_same_batches(loss: str, frames: list[Labelled]) -> None:
    recipe = replace(RECIPE, loss=loss)
    here, there = BatchLoader(frames, recipe, 5), BatchLoader(frames, recipe, 5, workers=2)
    for epoch in (0, 1):
        mine, theirs = parts(list(here.epoch(epoch))), parts(list(there.epoch(epoch)))
        assert len(mine) == 2 * here.per_epoch == 4
        assert all(torch.equal(a, b) for a, b in zip(mine, theirs, strict=True))
    channels = 5 if loss == "points" else 1
    assert mine[1].shape[:2] == (3, channels)


def test_a_run_goes_on_with_the_batches_of_its_epoch(frames: list[Labelled]) -> None:
    undisturbed = BatchLoader(frames, RECIPE, 5)
    first, second = (parts(list(undisturbed.epoch(epoch))) for epoch in (0, 1))
    resumed = parts(list(BatchLoader(frames, RECIPE, 5).epoch(1)))
    assert all(torch.equal(a, b) for a, b in zip(second, resumed, strict=True))
    again = parts(list(undisturbed.epoch(0)))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_each_of_two_processes_gets_its_part(frames: list[Labelled]) -> None:
    recipe = replace(RECIPE, batch_size=4)
    whole = next(BatchLoader(frames, recipe, 5).epoch(0))[0]
    halves = [
        next(BatchLoader(frames, recipe, 5, rank=k, world_size=2).epoch(0))[0] for k in (0, 1)
    ]
    assert torch.equal(whole, torch.stack(halves, 1).flatten(0, 1))


@pytest.mark.timeout(120)
def test_makers_start_after_opencv_had_threads(frames: list[Labelled]) -> None:
    before = cv2.getNumThreads()
    cv2.setNumThreads(4)
    try:
        large = np.zeros((2048, 2048), np.float32)
        cv2.warpAffine(large, np.array([[1.1, 0, 0], [0, 1.1, 0]]), (2048, 2048))
        wide = replace(RECIPE, crops=(Augmentation(256),))
        assert len(list(BatchLoader(frames, wide, 5, workers=1).epoch(0))) == 2
    finally:
        cv2.setNumThreads(before)


def test_makers_share_the_cores_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = torch.device("cuda")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(12)), raising=False)
    assert workers_for(torch.device("cpu"), 1) == 0
    assert workers_for(gpu, 1) == 11
    assert workers_for(gpu, 4) == 2
    assert workers_for(gpu, 12) == 1
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(128)))
    assert workers_for(gpu, 1) == MOST_WORKERS
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert workers_for(gpu, 1) == 1


# Where the worker dies in the middle of a batch, torch looks whether it can still open files, and
# leaves those to be collected.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_worker_that_was_killed_is_told_in_one_line(frames: list[Labelled]) -> None:
    loader = BatchLoader(frames, replace(RECIPE, batch_size=1, epochs=9), 5, workers=1)
    batches = loader.epoch(0)
    next(batches)
    message = "^--device: a loader worker ended"
    with pytest.raises(MachineError, match=message), lost_workers_told():
        for worker in active_children():
            worker.kill()
        list(batches)
    loader.close()
    gc.collect()  # here, and not in the next test


def test_a_fault_in_a_batch_is_not_told_as_a_lost_process() -> None:
    fault = "Caught RuntimeError in DataLoader worker process 0."
    with pytest.raises(RuntimeError, match=fault), lost_workers_told():
        raise RuntimeError(fault)


def test_memory_that_is_too_small_is_named_before_training(
    frames: list[Labelled], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=10_000))
    monkeypatch.setattr("irstd_edge.models.loader.SHARED_MEMORY", Path("/"))
    with pytest.raises(MachineError, match=r"^/: 0 MB are free, .* needs 1 MB .*--shm-size=2g$"):
        BatchLoader(frames, RECIPE, 5, workers=2)
    BatchLoader(frames, RECIPE, 5)


def test_a_daemon_makes_its_own_batches() -> None:
    with get_context("fork").Pool(1) as pool:
        assert pool.apply(workers_for, (torch.device("cuda"), 1)) == 0


@pytest.mark.parametrize("fails", [False, True])
def test_no_worker_outlives_a_training(
    fails: bool, samples: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[BatchLoader] = []

    class Watched(BatchLoader):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            made.append(self)  # and so the garbage collector does not help

    def progress(epoch: Epoch) -> None:
        assert len(active_children()) == 2
        if fails:
            raise KeyboardInterrupt

    monkeypatch.setattr(learner, "BatchLoader", Watched)
    monkeypatch.setattr(learner, "workers_for", lambda device, processes: 2)
    recipe = replace(RECIPE, epochs=2, crops=(Augmentation(64),))
    with pytest.raises(KeyboardInterrupt) if fails else nullcontext():
        train("p2p", samples, tmp_path, recipe, device="cpu", progress=progress)
    assert made and not active_children()


def test_who_makes_the_batches_does_not_change_the_weights(
    samples: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = replace(recipe_of("p2p"), epochs=2, batch_size=4, crops=(Augmentation(64),), until=())
    states = []
    for workers in (0, 2):
        monkeypatch.setattr(learner, "workers_for", lambda device, world, n=workers: n)
        path = train("p2p", samples, tmp_path / str(workers), recipe, device="cpu")
        states.append(load_state(path, "p2p"))
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())
