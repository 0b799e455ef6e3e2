import json
import math
import os
import random
import runpy
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from irstd_edge.benchmarks.scenes import write_dataset
from irstd_edge.edge.types import IrstdError
from irstd_edge.models import spec_of
from irstd_edge.models.launch import multiplies_bfloat16
from irstd_edge.models.train import Epoch
from irstd_edge.models.weights import load_model

PROCESS = Path(__file__).with_name("training_process.py")


def refusal(call: Callable[..., Any], *arguments: Any, **options: Any) -> str:
    with pytest.raises(IrstdError) as error:
        call(*arguments, **options)
    message = str(error.value)
    assert "\n" not in message
    return message


def interrupted(done: Epoch) -> None:
    raise KeyboardInterrupt


def checkpoint(out: Path) -> dict[str, Any]:
    return torch.load(out / "last.ckpt", weights_only=True)


def of_optimizer(saved: dict[str, Any]) -> Iterator[dict[str, torch.Tensor]]:
    """What it keeps of every parameter; Muon's is of two parts."""
    for part in [saved] if "state" in saved else saved.values():
        yield from part["state"].values()


def assert_same_run(one: Path, other: Path) -> None:
    """Bit for bit, but for how long it took."""
    assert (one / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()
    ours, theirs = checkpoint(one), checkpoint(other)
    for part in ("net", "average"):
        assert all(torch.equal(ours[part][key], theirs[part][key]) for key in theirs[part])
    moments = [list(of_optimizer(state["optimizer"])) for state in (ours, theirs)]
    assert moments[0]
    for mine, its in zip(*moments, strict=True):
        assert all(torch.equal(mine[key], its[key]) for key in its)
    assert (ours["epoch"], ours["best"]) == (theirs["epoch"], theirs["best"])
    lines = [(out / "metrics.jsonl").read_text().splitlines() for out in (one, other)]
    for mine, its in zip(*lines, strict=True):
        untimed = {"frames_per_s": None}
        assert json.loads(mine) | untimed == json.loads(its) | untimed


def test_equal_seeds_give_equal_runs_and_others_do_not(
    run, metrics, samples, tmp_path: Path
) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        run("p2p", samples, tmp_path / name, seed=seed)
    assert_same_run(tmp_path / "a", tmp_path / "b")
    assert metrics(tmp_path / "a")[0]["loss"] != metrics(tmp_path / "c")[0]["loss"]


def test_points_without_masks_are_enough_for_p2p(run, samples, tmp_path: Path) -> None:
    unmasked = [replace(sample, mask=None) for sample in samples]
    run("p2p", unmasked, tmp_path / "points")
    run("p2p", samples, tmp_path / "masks")
    assert_same_run(tmp_path / "points", tmp_path / "masks")


class Interruption:
    """A stand-in for os.replace that is interrupted at its n-th call."""

    def __init__(self, at: int) -> None:
        self.left, self.replace = at, os.replace

    def __call__(self, source: Any, target: Any) -> None:
        if self.left == 0:
            raise KeyboardInterrupt
        self.left -= 1
        self.replace(source, target)


def by_steps(net: torch.nn.Module) -> dict[str, float | None]:
    """Every epoch is the best so far: all three files are written every time."""
    return {"score": net.state_dict()["stem.1.num_batches_tracked"].item()}


@pytest.fixture(scope="module")
def undisturbed(tiny, run, samples, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed")
    run("p2p", samples, out, tiny("p2p", epochs=3), validate=by_steps, validate_every=1)
    return out


@pytest.mark.parametrize("writes", range(9))
def test_an_interrupt_before_any_write_changes_nothing(
    tiny,
    run,
    samples,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    undisturbed: Path,
    writes: int,
) -> None:
    """Of a run's files some are of the new epoch, some of the old: it goes on all the same."""
    options = {"validate": by_steps, "validate_every": 1}
    recipe = tiny("p2p", epochs=3)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, "replace", Interruption(writes))
        run("p2p", samples, tmp_path, recipe, **options)
    assert not list(tmp_path.glob(".*")), "no half-written file is left"
    go_on = (tmp_path / "last.ckpt").exists()
    for path in () if go_on else tmp_path.iterdir():
        path.unlink()  # of an epoch that no checkpoint holds
    run("p2p", samples, tmp_path, recipe, resume=go_on, **options)
    assert_same_run(tmp_path, undisturbed)


@pytest.mark.parametrize("optimizer", ["adagrad", "muon"])
def test_mshnet_goes_on_exactly_through_the_end_of_its_warm_up(
    tiny, run, samples, tmp_path: Path, optimizer: str
) -> None:
    recipe = tiny("mshnet", epochs=5, loss="sls", warm_epochs=1, optimizer=optimizer, batch_size=8)
    run("mshnet", samples, tmp_path / "a", recipe)
    for resume in (False, True):
        with pytest.raises(KeyboardInterrupt):
            run("mshnet", samples, tmp_path / "b", recipe, progress=interrupted, resume=resume)
    run("mshnet", samples, tmp_path / "b", recipe, resume=True)
    assert_same_run(tmp_path / "b", tmp_path / "a")


def test_a_finished_run_is_left_as_it_is(run, samples, tmp_path: Path) -> None:
    path = run("p2p", samples, tmp_path)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    assert run("p2p", samples, tmp_path, resume=True) == path
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_a_run_is_not_written_over(run, samples, tmp_path: Path) -> None:
    run("p2p", samples, tmp_path)
    before = (tmp_path / "last.ckpt").read_bytes()
    message = refusal(run, "p2p", samples, tmp_path)
    assert message.startswith(f"{tmp_path}: holds a run")
    assert "--resume" in message
    assert (tmp_path / "last.ckpt").read_bytes() == before


def test_weights_without_their_checkpoint_are_not_written_over(
    run, samples, tmp_path: Path
) -> None:
    """They may be the very ones that the run would start from."""
    run("p2p", samples, tmp_path)
    (tmp_path / "last.ckpt").unlink()
    for name in ("model.safetensors", "metrics.jsonl"):
        assert refusal(run, "p2p", samples, tmp_path).startswith(f"{tmp_path}: holds {name} alread")
        (tmp_path / name).unlink()


@pytest.mark.parametrize("change", ["seed", "recipe", "frames", "counts", "bits", "mask", "model"])
def test_another_run_is_not_resumed(tiny, run, samples, tmp_path: Path, change: str) -> None:
    run("p2p", samples, tmp_path)
    model = "mshnet" if change == "model" else "p2p"
    first, *others = samples
    frame = first.frame
    changed = {
        "frames": others,
        "counts": [replace(first, frame=replace(frame, counts=255 - frame.counts)), *others],
        "bits": [replace(first, frame=replace(frame, bit_depth=frame.bit_depth + 2)), *others],
        "mask": [replace(first, mask=~first.mask), *others],
    }
    message = refusal(
        run,
        model,
        changed.get(change, samples),
        tmp_path,
        tiny(model, epochs=3 if change == "recipe" else 2),
        seed=int(change == "seed"),
        resume=True,
    )
    assert message.startswith(f"{tmp_path / 'last.ckpt'}: ")
    assert "--resume" in message


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "scenes"
    write_dataset(root, frames=32, size=(72, 96))
    return root


@pytest.fixture
def command(data: Path) -> Callable[..., list[str]]:
    """Command line of a process that trains once for every set of options."""

    def build(*runs: dict[str, Any], launcher: tuple[str, ...] = ()) -> list[str]:
        options = json.dumps([{"data": str(data), **options} for options in runs])
        return [sys.executable, *launcher, str(PROCESS), options]

    return build


@pytest.fixture
def quiet_environment() -> dict[str, str]:
    """Warnings are errors in the processes, too, and they talk over the loopback alone."""
    ours = {"PYTHONWARNINGS": "error", "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    return {**os.environ, **ours}


@pytest.mark.slow
def test_a_killed_run_goes_on_exactly(
    tmp_path: Path, data: Path, command, quiet_environment: dict[str, str]
) -> None:
    four = {"model": "p2p", "recipe": {"epochs": 4, "batch_size": 4}}
    main = runpy.run_path(str(PROCESS))["main"]
    main(data=str(data), out=str(tmp_path / "a"), **four)
    out, longest_s = tmp_path / "b", 0.6
    kill(command({**four, "out": str(out)}), out, longest_s, quiet_environment)
    while checkpoint(out)["epoch"] == 4:  # it was done before the signal came
        longest_s /= 2
        shutil.rmtree(out)
        kill(command({**four, "out": str(out)}), out, longest_s, quiet_environment)
    resumed = subprocess.run(
        command({**four, "out": str(out), "resume": True}),
        capture_output=True,
        text=True,
        check=True,
        env=quiet_environment,
    )
    assert resumed.stderr == ""
    assert resumed.stdout.splitlines()[-2:] == ["epoch 3", str(out / "model.safetensors")]
    assert_same_run(out, tmp_path / "a")


def kill(command: list[str], out: Path, longest_s: float, environment: dict[str, str]) -> None:
    """Start a training and kill it at a random moment after its first checkpoint."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment) as process:
        while not (out / "last.ckpt").exists() and process.poll() is None:
            time.sleep(0.005)
        time.sleep(random.uniform(0, longest_s))
        process.kill()


ROUNDING = 1e-2 if multiplies_bfloat16("cpu") else 1e-3
"""Of a loss: bfloat16 has 8 bits, and other batches add up in another order."""


@pytest.mark.slow
def test_two_processes_write_one_run(
    metrics, tmp_path: Path, data: Path, command, quiet_environment: dict[str, str]
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torchrun = (
        *("-m", "torch.distributed.run", "--nproc-per-node", "2"),
        *("--master-addr", "127.0.0.1", "--master-port", str(port)),
    )
    p2p, mshnet, uneven = (tmp_path / name for name in ("p2p", "mshnet", "uneven"))
    # AdamW steps as far along a gradient that is all rounding as along any: small steps.
    few = {"epochs": 2, "batch_size": 4, "lr": 1e-5}
    warm = {"epochs": 5, "batch_size": 16, "loss": "sls", "warm_epochs": 1, "lr": 1e-5}
    done = subprocess.run(
        command(
            {"model": "p2p", "out": str(p2p), "recipe": few},
            {"model": "mshnet", "out": str(mshnet), "recipe": warm},
            {"model": "p2p", "out": str(uneven), "recipe": {"epochs": 2, "batch_size": 5}},
            launcher=torchrun,
        ),
        capture_output=True,
        text=True,
        env=quiet_environment,
    )
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stdout.splitlines() if line.startswith("epoch")] == [
        *("epoch 0", "epoch 1"),
        *("epoch 0", "epoch 1", "epoch 2", "epoch 3", "epoch 4"),
    ], "the first process alone reports progress"
    assert "--batch-size: 5 crops cannot be shared evenly by 2 processes" in done.stdout
    for out, epochs in ((p2p, 2), (mshnet, 5)):
        names = ["last.ckpt", "metrics.jsonl", "model.safetensors"]
        assert sorted(path.name for path in out.iterdir()) == names
        lines = metrics(out)
        assert [line["epoch"] for line in lines] == list(range(epochs))
        assert all(math.isfinite(line["loss"]) for line in lines)
        net, model, _ = load_model(out / "model.safetensors")
        assert spec_of(model).name == out.name
        assert all(value.isfinite().all() for value in net.state_dict().values())
    assert not uneven.exists()
    main = runpy.run_path(str(PROCESS))["main"]
    for model, recipe in (("p2p", few), ("mshnet", warm)):
        alone = tmp_path / f"{model} alone"
        main(model=model, data=str(data), out=str(alone), recipe=recipe)
        ours, its = ([line["loss"] for line in metrics(out)] for out in (alone, tmp_path / model))
        assert its == pytest.approx(ours, rel=ROUNDING), "the curve of one process, within rounding"
