import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric

from irstd_edge.edge.normalisation import BY_DEPTH
from irstd_edge.edge.types import InputSpec, IrstdError
from irstd_edge.models import create_model, learner
from irstd_edge.models import train as train_module
from irstd_edge.models.batches import PaperAugmentation, labelled
from irstd_edge.models.losses import multi_scale_loss
from irstd_edge.models.mshnet import MSHNet
from irstd_edge.models.p2p import P2P
from irstd_edge.models.recipes import recipe_of
from irstd_edge.models.train import Epoch, train
from irstd_edge.models.weights import (
    find_weights,
    load_model,
    load_state,
    read_card,
    save_weights,
    spec_of_card,
)

MODELS = ("mshnet", "p2p")


def refusal(call: Callable[..., Any], *arguments: Any, **options: Any) -> str:
    with pytest.raises(IrstdError) as error:
        call(*arguments, **options)
    message = str(error.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("model", MODELS)
def test_a_handful_of_frames_is_learnt(tiny, run, samples, tmp_path: Path, model: str) -> None:
    losses: list[float] = []
    recipe = tiny(model, epochs=5, lr=3e-3)
    run(model, 3 * samples, tmp_path, recipe, progress=lambda done: losses.append(done.loss))
    assert len(losses) == 5
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize("model", MODELS)
def test_a_run_leaves_weights_metrics_and_a_checkpoint(
    tiny, run, metrics, samples, tmp_path: Path, model: str
) -> None:
    seen: list[Epoch] = []
    recipe = tiny(model, epochs=3)
    path = run(
        model,
        samples,
        tmp_path / "new" / "run",
        recipe,
        seed=5,
        validate=lambda net: {"score": 0.5, "threshold": 0.25, "odd": None},
        validate_every=2,
        progress=seen.append,
    )
    out = tmp_path / "new" / "run"
    assert path == out / "model.safetensors"
    assert sorted(p.name for p in out.iterdir()) == [
        "last.ckpt",
        "metrics.jsonl",
        "model.safetensors",
    ]
    lines = metrics(out)
    assert [line["epoch"] for line in lines] == [0, 1, 2]
    assert [bool(line["scores"]) for line in lines] == [False, True, True], "every other, the last"
    assert [line["loss"] for line in lines] == [done.loss for done in seen]
    assert lines[-1]["lr"] == pytest.approx(0.01 * recipe.lr)
    assert all(line["frames_per_s"] > 0 for line in lines)
    name, card = read_card(path)
    assert name == model
    assert (card["epoch"], card["seed"], card["threshold"]) == (2, 5, 0.25)
    assert card["scores"]["score"] == 0.5
    assert card["recipe"]["loss"] == recipe.loss


def test_the_averaged_weights_are_kept(tiny, run, samples, tmp_path: Path) -> None:
    run("p2p", samples, tmp_path, tiny("p2p", average_share=0.9))
    kept, state = (
        load_state(tmp_path / "model.safetensors", "p2p"),
        torch.load(tmp_path / "last.ckpt"),
    )
    assert all(torch.equal(kept[key], state["average"][key]) for key in kept)
    assert not all(torch.equal(kept[key], state["net"][key]) for key in kept)


def test_a_share_of_the_start_is_kept(tiny, run, samples, tmp_path: Path) -> None:
    run("p2p", samples, tmp_path / "before")
    start = tmp_path / "before" / "model.safetensors"
    recipe = tiny("p2p", average_share=0.0, start_share=0.25, epochs=2)

    def interrupt(done: Epoch) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run("p2p", samples, tmp_path / "run", recipe, weights=start, progress=interrupt)
    path = run("p2p", samples, tmp_path / "run", recipe, weights=start, resume=True)
    last, kept = torch.load(tmp_path / "run" / "last.ckpt")["net"], load_state(path, "p2p")
    for key, old in load_state(start, "p2p").items():
        mixed = 0.25 * old + 0.75 * last[key] if old.is_floating_point() else last[key]
        torch.testing.assert_close(kept[key], mixed)
    plain = replace(recipe, start_share=0.0)
    run("p2p", samples, tmp_path / "plain", plain, weights=start)
    other = torch.load(tmp_path / "plain" / "last.ckpt")["net"]
    assert all(torch.equal(last[key], other[key]) for key in other), "the run goes its own way"


def test_masks_are_needed_where_a_network_learns_from_them(run, samples, tmp_path: Path) -> None:
    bare = [*samples[:-1], replace(samples[-1], mask=None)]
    message = refusal(run, "mshnet", bare, tmp_path / "run")
    assert message.startswith(f"--data: {samples[-1].frame.name} has no mask")
    assert not (tmp_path / "run").exists()


def test_other_weights_cannot_come_into_a_run(tiny, run, samples, tmp_path: Path) -> None:
    out, recipe = tmp_path / "run", tiny("p2p", epochs=2)

    def interrupt(done: Epoch) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run("p2p", samples, out, recipe, progress=interrupt)
    kept = (out / "last.ckpt").read_bytes()
    message = refusal(run, "p2p", samples, out, recipe, weights=find_weights("p2p"), resume=True)
    assert message.startswith("--weights: this run did not start from them")
    assert (out / "last.ckpt").read_bytes() == kept
    run("p2p", samples, out, recipe, resume=True)


def test_a_share_of_the_start_needs_a_start(tiny, run, samples, tmp_path: Path) -> None:
    with pytest.raises(IrstdError, match="^--weights: .* add --weights p2p$"):
        run("p2p", samples, tmp_path / "run", tiny("p2p", start_share=0.25))
    assert not (tmp_path / "run").exists()


def test_without_averaging_the_last_weights_are_kept(tiny, run, samples, tmp_path: Path) -> None:
    run("p2p", samples, tmp_path, tiny("p2p", average_share=0.0))
    state = torch.load(tmp_path / "last.ckpt")
    assert all(torch.equal(state["average"][key], value) for key, value in state["net"].items())


def test_the_papers_recipe_runs_through_its_warm_up(
    run, metrics, samples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    warm_steps: list[bool] = []

    def spy(*arguments: Any, name: str, warm: bool, final_share: float) -> torch.Tensor:
        assert (name, final_share) == ("sls", 1 / 5)
        warm_steps.append(warm)
        return multi_scale_loss(*arguments, name=name, warm=warm, final_share=final_share)

    monkeypatch.setattr(learner, "multi_scale_loss", spy)
    crops = PaperAugmentation(32, (24, 64))
    recipe = recipe_of("mshnet", "paper", epochs=5)
    run("mshnet", samples, tmp_path, replace(recipe, crops=(crops,), until=()))
    assert warm_steps == [True] * 2 + [False] * 8
    assert {line["lr"] for line in metrics(tmp_path)} == {0.05}


def test_large_frames_are_learnt_as_one(
    run, samples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes: list[torch.Size] = []

    def spy(outputs: Any, masks: torch.Tensor, **options: Any) -> torch.Tensor:
        shapes.append(masks.shape)
        return multi_scale_loss(outputs, masks, **options)

    monkeypatch.setattr(learner, "multi_scale_loss", spy)
    recipe = recipe_of("mshnet", "large-frames", epochs=1)
    crops = tuple(replace(how, size_px=32) for how in recipe.crops)
    recipe = replace(recipe, crops=crops)
    run("mshnet", 5 * samples, tmp_path / "run", recipe, weights=find_weights("mshnet"))
    assert set(shapes) == {(8, 1, 32, 32), (1, 1, 64, 128)}
    alone = replace(recipe, batch_size=1)
    with pytest.raises(IrstdError, match="^--batch-size: .* side by side, .* at least 2$"):
        run("mshnet", samples, tmp_path / "alone", alone, weights=find_weights("mshnet"))
    monkeypatch.setattr(Fabric, "world_size", 2)
    with pytest.raises(IrstdError, match="^--recipe: .* as one frame, .* train without torchrun$"):
        run("mshnet", samples, tmp_path / "two", recipe, weights=find_weights("mshnet"))


# ------------------------------------------------------------------- which epoch is kept


def scripted(scores: list[float | None]) -> Callable[[Any], dict[str, float | None]]:
    left = iter(scores)
    return lambda net: {"score": next(left)}


@pytest.mark.parametrize(
    ("scores", "keep", "kept"),
    [
        ([0.1, 0.9, 0.3], "best", 1),
        ([0.5, 0.5, 0.4], "best", 1),
        ([None, 0.2, None], "best", 1),
        ([None, None, None], "best", 2),
        ([math.nan, 0.0, math.nan], "best", 1),
        ([0.3, math.nan, -math.inf], "best", 0),
        ([0.1, 0.9, 0.3], "last", 2),
        ([0.3, 0.2, math.nan], "last", 2),
    ],
)
def test_the_best_epoch_is_kept_or_the_last(
    tiny, run, metrics, samples, tmp_path: Path, scores, keep: str, kept: int
) -> None:
    recipe = replace(tiny("p2p", epochs=3), keep=keep)
    options = {"validate": scripted(scores), "validate_every": 1}
    path = run("p2p", samples, tmp_path, recipe, **options)
    assert read_card(path)[1]["epoch"] == kept
    finite = [s if s is not None and math.isfinite(s) else None for s in scores]
    assert [line["scores"]["score"] for line in metrics(tmp_path)] == finite


def test_the_best_epoch_is_remembered_over_a_resume(
    tiny, run, metrics, samples, tmp_path: Path
) -> None:
    recipe = tiny("p2p", epochs=4)

    def interrupt(done: Epoch) -> None:
        if done.epoch == 1:
            raise KeyboardInterrupt

    options = {"validate": scripted([0.9, 0.1, 0.8, 0.7]), "validate_every": 1}
    with pytest.raises(KeyboardInterrupt):
        run("p2p", samples, tmp_path, recipe, progress=interrupt, **options)
    path = run("p2p", samples, tmp_path, recipe, resume=True, **options)
    assert read_card(path)[1]["epoch"] == 0
    assert [line["scores"]["score"] for line in metrics(tmp_path)] == [0.9, 0.1, 0.8, 0.7]


@pytest.mark.parametrize(("model", "epochs"), [("mshnet", 1), ("p2p", 5)])
def test_what_is_validated_is_what_is_deployed(
    tiny, run, samples, tmp_path: Path, model: str, epochs: int
) -> None:
    """In evaluation mode, the averaged weights, at temperature 1 also while it is warm."""
    frame = torch.rand(1, 1, 32, 32)
    answers = []

    def validate(net: torch.nn.Module) -> dict[str, float | None]:
        assert not any(module.training for module in net.modules())
        with torch.no_grad():
            answers.append(net.deploy()(frame))
        return {"score": float(len(answers))}

    recipe = tiny(model, epochs=epochs, warm_epochs=1)
    path = run(model, samples, tmp_path, recipe, validate=validate, validate_every=1)
    loaded, _, card = load_model(path)
    assert card["epoch"] == epochs - 1
    with torch.no_grad():
        torch.testing.assert_close(loaded.deploy()(frame), answers[-1])


# ------------------------------------------------------------------------- given weights


@pytest.mark.parametrize("start", ["mshnet", "mshnet with 3x3 heads", "p2p"])
def test_training_starts_from_given_weights(
    tiny, run, samples, tmp_path: Path, lived_in, start: str
) -> None:
    model = start.split()[0]
    net = lived_in(MSHNet(3) if "3x3" in start else create_model(model))
    given = tmp_path / "w.safetensors"
    save_weights(given, model, net, {})
    recipe = tiny(model, epochs=2, lr=1e-12, batch_size=8)
    # A second run goes on without being told the weights again.
    with pytest.raises(KeyboardInterrupt):
        run(model, samples, tmp_path / "run", recipe, weights=given, progress=interrupted)
    path = run(model, samples, tmp_path / "run", recipe, resume=True)
    for key, value in load_state(path, model).items():
        if not key.endswith(("running_mean", "running_var", "num_batches_tracked")):
            torch.testing.assert_close(value, net.state_dict()[key], rtol=0, atol=1e-6)


def interrupted(done: Epoch) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("policy", [None, "local-contrast"])
def test_frames_are_normalised_as_the_card_says(
    tiny, run, samples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, policy: str | None
) -> None:
    seen: list[InputSpec] = []
    monkeypatch.setattr(
        train_module, "labelled", lambda s, spec: seen.append(spec) or labelled(s, spec)
    )
    path = run("p2p", samples, tmp_path, tiny("p2p", epochs=1), normalisation=policy)
    _, card = read_card(path)
    assert {spec.normalisation for spec in seen} == {policy or BY_DEPTH}
    assert spec_of_card("p2p", card).input == seen[0]


@pytest.mark.parametrize("given", [False, True])
def test_given_weights_are_not_softened_again(
    tiny, run, samples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: bool
) -> None:
    path = tmp_path / "w.safetensors"
    save_weights(path, "p2p", create_model("p2p"), {})
    softened: list[float] = []
    monkeypatch.setattr(P2P, "set_temperature", lambda net, t: softened.append(t))
    recipe = tiny("p2p", epochs=5, warm_epochs=1, batch_size=8)
    with pytest.raises(KeyboardInterrupt):
        weights = path if given else None
        run("p2p", samples, tmp_path, recipe, weights=weights, progress=interrupted)
    run("p2p", samples, tmp_path, recipe, resume=True)
    assert softened == ([] if given else [30.0, 1.0, 1.0, 1.0, 1.0])


def test_weights_of_another_model_are_refused(run, samples, tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_weights(path, "p2p", create_model("p2p"), {})
    message = refusal(run, "mshnet", samples, tmp_path / "run", weights=path)
    assert "holds p2p, not mshnet" in message
    assert not (tmp_path / "run").exists()


# --------------------------------------------------------------------------- what is wrong


@pytest.mark.parametrize("model", MODELS)
def test_a_loss_that_is_no_number_stops_the_run(
    tiny, run, samples, tmp_path: Path, model: str
) -> None:
    message = refusal(run, model, samples, tmp_path, tiny(model, lr=1e30))
    assert message.startswith("--lr: in epoch ")
    assert "lower --lr" in message
    assert not any(tmp_path.iterdir())


def test_weights_that_are_no_numbers_after_the_last_step_stop_the_run(
    tiny, run, samples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loss of the steps before is finite."""
    step = learner.Learner._step

    def spoilt(self, batch, warm):
        result = step(self, batch, warm)
        next(self.inner.parameters()).data.fill_(math.nan)
        return result

    monkeypatch.setattr(learner.Learner, "_step", spoilt)
    how = tiny("p2p", epochs=1, batch_size=2)
    message = refusal(run, "p2p", samples[:2], tmp_path, how)
    assert message.startswith("--lr: in epoch 1 the weights became infinite or no numbers")


def test_what_it_computes_in_is_told_and_that_it_changed(
    tiny, run, samples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    for precision in ("float32", "bfloat16"):
        monkeypatch.setattr(train_module, "precision_on", lambda *_, now=precision: now)
        options = {"tell": told.append, "resume": precision == "bfloat16"}
        run("p2p", samples, tmp_path, tiny("p2p", epochs=2), **options)
    assert told == [
        "computing in float32",
        "computing in bfloat16, and in float32 before: the result is another than on one machine",
    ]
    _, card = read_card(tmp_path / "model.safetensors")
    assert card["precision"] == "float32", "nothing was left to do"


def test_the_papers_recipe_computes_in_float32() -> None:
    assert not recipe_of("mshnet", "paper").bfloat16
    assert recipe_of("mshnet", "finetune").bfloat16


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_checkpoint_with_an_optimizer_of_another_network_is_refused(
    tiny, run, samples, tmp_path: Path, optimizer: str
) -> None:
    recipe = tiny("mshnet", optimizer=optimizer)
    run("mshnet", samples, tmp_path, recipe)
    saved = torch.load(tmp_path / "last.ckpt")
    parts = saved["optimizer"]
    for part in (parts,) if optimizer == "adamw" else parts.values():
        kept = next(kept for kept in part["state"].values() if len(kept))
        name = next(name for name, value in kept.items() if value.ndim)
        whole, kept[name] = kept[name], torch.ones(3)
        torch.save(saved, tmp_path / "last.ckpt")
        message = refusal(run, "mshnet", samples, tmp_path, recipe, resume=True)
        assert message.startswith("last.ckpt: is damaged")
        kept[name] = whole


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested")
def test_a_checkpoint_with_weights_of_other_shapes_is_refused(
    tiny, run, samples, tmp_path: Path
) -> None:
    run("p2p", samples, tmp_path)
    whole = torch.load(tmp_path / "last.ckpt")
    for other in (torch.ones(3), torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])):
        name = next(name for name in whole["net"] if name.startswith("stem"))
        parts = {part: {**whole[part], name: other} for part in ("net", "average")}
        torch.save({**whole, **parts}, tmp_path / "last.ckpt")
        message = refusal(run, "p2p", samples, tmp_path, resume=True)
        assert "last.ckpt: is " in message


@pytest.mark.parametrize(
    ("options", "flag"),
    [({"samples": []}, "--data"), ({"seed": -1}, "--seed"), ({"model": "yolo"}, "yolo")],
)
def test_what_cannot_be_trained_is_said_at_once(
    tiny, samples, tmp_path: Path, options, flag
) -> None:
    settled = {"model": "p2p", "samples": samples, "seed": 0} | options
    message = refusal(train, out=tmp_path, recipe=tiny("p2p"), device="cpu", **settled)
    assert message.startswith(f"{flag}: ")
    assert not any(tmp_path.iterdir())


def test_one_crop_is_too_few_for_p2p_but_not_for_mshnet(tiny, run, samples, tmp_path: Path) -> None:
    message = refusal(run, "p2p", samples, tmp_path, tiny("p2p", batch_size=1))
    assert message.startswith("--batch-size: ")
    run("mshnet", samples[:2], tmp_path, tiny("mshnet", epochs=1, batch_size=1))


def test_frames_too_large_for_the_gpu_are_validated_on_the_processor(
    tiny, run, metrics, samples, tmp_path: Path
) -> None:
    seen: list[str] = []

    def validate(net: torch.nn.Module) -> dict[str, float]:
        seen.append(next(net.parameters()).device.type)
        if len(seen) == 1:
            raise MemoryError("frames of 4096x4096")
        return {"score": 0.5}

    run("p2p", samples, tmp_path, tiny("p2p", epochs=1), validate=validate)
    assert len(seen) == 2 and seen[1] == "cpu"
    assert [line["scores"] for line in metrics(tmp_path)] == [{"score": 0.5}]
