import io
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from irstd_edge.edge.normalisation import with_normalisation
from irstd_edge.edge.types import IrstdError
from irstd_edge.models import spec_of
from irstd_edge.models.recipes import Recipe
from irstd_edge.models.run_files import State, identity_of, read_state, write_state

RECIPE = Recipe("points", epochs=3, batch_size=4, lr=1e-3)
CPU = torch.device("cpu")
P2P = spec_of("p2p")


def state(**changes) -> State:
    weights = {"w": torch.arange(6.0).view(2, 3), "n": torch.tensor(3)}
    settled = State(
        epoch=2,
        best=-math.inf,
        lines=['{"epoch": 0}', '{"epoch": 1}'],
        net=weights,
        average={"w": torch.ones(2, 3), "n": torch.tensor(3)},
        optimizer={"state": {0: {"step": torch.tensor(4.0)}}, "param_groups": [{"lr": 0.1}]},
    )
    return replace(settled, **changes)


def refusal(*arguments) -> str:
    with pytest.raises(IrstdError) as error:
        read_state(*arguments)
    message = str(error.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("parent", [None, "ab" * 32])
def test_a_state_comes_back(tmp_path: Path, parent: str | None) -> None:
    path, kept = tmp_path / "new" / "last.ckpt", state(parent=parent)
    write_state(path, "id", kept)
    found = read_state(path, "id", CPU)
    assert torch.equal(found.net["w"], kept.net["w"])
    assert torch.equal(found.average["w"], kept.average["w"])
    assert (found.epoch, found.best, found.lines) == (2, -math.inf, kept.lines)
    assert (found.optimizer, found.parent) == (kept.optimizer, parent)
    assert [p.name for p in path.parent.iterdir()] == ["last.ckpt"]


def test_a_state_that_does_not_say_how_it_started_was_started_afresh(tmp_path: Path) -> None:
    saved = {"identity": "id"} | vars(state())
    del saved["parent"]
    torch.save(saved, tmp_path / "last.ckpt")
    assert read_state(tmp_path / "last.ckpt", "id", CPU).parent is None


def test_nothing_to_resume(tmp_path: Path) -> None:
    message = refusal(tmp_path / "last.ckpt", "id", CPU)
    assert message.startswith(f"{tmp_path / 'last.ckpt'}: no such file")
    assert "--resume" in message


def test_another_run(tmp_path: Path) -> None:
    write_state(tmp_path / "last.ckpt", "id", state())
    message = refusal(tmp_path / "last.ckpt", "other", CPU)
    assert "recipe (--epochs, --batch-size, --lr, --loss), normalisation, seed or list" in message


@pytest.mark.parametrize("fault", ["empty", "cut off", "no state", "a field is missing"])
def test_a_damaged_checkpoint(tmp_path: Path, fault: str) -> None:
    path, buffer = tmp_path / "last.ckpt", io.BytesIO()
    saved = {"identity": "id"} | vars(state())
    if fault == "a field is missing":
        del saved["average"]
    torch.save([1] if fault == "no state" else saved, buffer)
    raw = buffer.getvalue()
    path.write_bytes({"empty": b"", "cut off": raw[: len(raw) // 2]}.get(fault, raw))
    assert refusal(path, "id", CPU).startswith(f"{path}: is no checkpoint of ours")


@pytest.mark.parametrize(
    "changes",
    [
        {"average": {"w": torch.ones(2, 3)}},
        {"average": {"w": torch.ones(3, 2), "n": torch.tensor(3)}},
        {"average": {"w": 1.0, "n": torch.tensor(3)}},
        {"start": {"w": torch.ones(2, 3)}},
        {"lines": ["{"]},
        {"lines": [3]},
        {"epoch": -1},
        {"precision": 16},
    ],
)
def test_a_checkpoint_whose_parts_do_not_fit(tmp_path: Path, changes: dict[str, Any]) -> None:
    path = tmp_path / "last.ckpt"
    write_state(path, "id", state(**changes))
    assert refusal(path, "id", CPU).startswith(f"{path}: is no checkpoint of ours")


def test_identity_changes_with_all_that_decides_a_run(samples) -> None:
    frames = samples[:3]
    moved = replace(frames[0], points=frames[0].points + 1)
    ways = [
        identity_of(P2P, frames, RECIPE, 0),
        identity_of(spec_of("mshnet"), frames, RECIPE, 0),
        identity_of(P2P, frames[:2], RECIPE, 0),
        identity_of(P2P, frames[::-1], RECIPE, 0),
        identity_of(P2P, [moved, *frames[1:]], RECIPE, 0),
        identity_of(P2P, frames, replace(RECIPE, lr=2e-3), 0),
        identity_of(P2P, frames, RECIPE, 1),
        identity_of(with_normalisation(P2P, "percentile"), frames, RECIPE, 0),
    ]
    assert len(set(ways)) == len(ways)
    assert identity_of(P2P, list(frames), replace(RECIPE), 0) == ways[0]
