from dataclasses import replace

import pytest

from irstd_edge.edge.types import IrstdError
from irstd_edge.models.batches import Augmentation, PaperAugmentation
from irstd_edge.models.losses import MASK_LOSSES
from irstd_edge.models.recipes import RECIPES, START_TEMPERATURE, Recipe, recipe_of

MASK = Recipe("dice", epochs=10, batch_size=4, lr=1.0)


def refusal(*arguments, **options) -> str:
    with pytest.raises(IrstdError) as error:
        recipe_of(*arguments, **options)
    message = str(error.value)
    assert "\n" not in message
    return message


def test_the_papers_recipe() -> None:
    recipe = recipe_of("mshnet", "paper")
    assert (recipe.loss, recipe.epochs, recipe.batch_size) == ("sls", 400, 4)
    assert (recipe.optimizer, recipe.lr, recipe.average_share) == ("adagrad", 0.05, 0.0)
    assert recipe.warm == 6, "epochs 0 to 5"
    assert recipe.max_norm == 0, "gradients are taken as they are"
    assert recipe.final_share == 1 / 5, "one of five outputs"
    assert recipe.crops_in(0) == recipe.crops_in(399) == PaperAugmentation(256, (128, 512), 1.0)


@pytest.mark.parametrize("model", ["mshnet", "p2p"])
def test_the_default_recipe_ends_on_whole_frames(model: str) -> None:
    recipe = recipe_of(model)
    assert recipe == RECIPES[model, "default"]
    assert recipe.crops_in(0) == Augmentation(64 if model == "mshnet" else 128)
    assert recipe.crops_in(recipe.epochs - 1) == Augmentation(256)


@pytest.mark.parametrize("model", ["mshnet", "p2p"])
def test_fine_tuning_goes_on_gently(model: str) -> None:
    default, recipe = recipe_of(model), recipe_of(model, "finetune")
    assert recipe.lr <= default.lr and recipe.loss == default.loss and recipe.warm == 0
    assert recipe.crops_in(recipe.epochs - 1).size_px == 256
    last = recipe.crops_in(recipe.epochs - 1)
    assert isinstance(last, Augmentation) and last.paste == 0
    resamples, noisy = last.zoom != (1.0, 1.0), last.noise > 0
    assert resamples == noisy == last.turn == (model == "p2p")


def test_large_frames_are_whole_frames_side_by_side_in_part() -> None:
    finetune, recipe = recipe_of("mshnet", "finetune"), recipe_of("mshnet", "large-frames")
    last = finetune.crops_in(0)
    assert isinstance(last, Augmentation) and last.joined == 0
    assert recipe.crops == (replace(last, joined=0.4),)
    assert recipe.lr < finetune.lr and recipe.loss == finetune.loss
    assert recipe.joins and recipe.start_share == 0.5, "half of what it started from"
    assert not any(other.joins or other.start_share for other in (finetune, recipe_of("mshnet")))
    assert refusal("p2p", "large-frames").endswith("choose default, finetune or whole-frames")


def test_turned_frames_are_seen_from_all_sides_and_the_last_epoch_is_kept() -> None:
    finetune, recipe = recipe_of("mshnet", "finetune"), recipe_of("mshnet", "turned")
    whole = finetune.crops_in(0)
    assert isinstance(whole, Augmentation) and not whole.turn
    assert recipe.crops[-1] == replace(whole, turn=True)
    assert recipe.crops[0] == replace(whole, turn=True, size_px=224)
    assert (recipe.keep, finetune.keep) == ("last", "best")
    assert recipe.loss == finetune.loss and recipe.optimizer == finetune.optimizer


def test_noisy_frames_have_up_to_two_counts_of_noise_and_are_half_of_what_is_kept() -> None:
    finetune, recipe = recipe_of("mshnet", "finetune"), recipe_of("mshnet", "noisy")
    whole = finetune.crops_in(0)
    assert isinstance(whole, Augmentation) and whole.noise == 0
    assert recipe.crops == (replace(whole, noise=pytest.approx(2 / 255, rel=0.05)),)
    assert recipe.lr < finetune.lr and recipe.start_share == 0.5


def test_whole_frames_is_how_fine_tuning_of_points_ends() -> None:
    finetune, recipe = recipe_of("p2p", "finetune"), recipe_of("p2p", "whole-frames")
    assert recipe.crops == finetune.crops[-1:]
    assert recipe.lr < finetune.lr and recipe.loss == finetune.loss
    assert refusal("mshnet", "whole-frames").startswith("--recipe: mshnet has no recipe")


@pytest.mark.parametrize(
    "given", [{"epochs": 3}, {"batch_size": 2}, {"lr": 0.5}, {"loss": "dice"}, {"keep": "last"}, {}]
)
@pytest.mark.parametrize(
    "name", ["default", "paper", "finetune", "turned", "large-frames", "noisy"]
)
def test_given_figures_take_the_place_of_the_recipes(name: str, given) -> None:
    own = RECIPES["mshnet", name]
    if "batch_size" in given:
        given = given | {"lr": own.lr * (given["batch_size"] / own.batch_size) ** 0.5}
    assert recipe_of("mshnet", name, **given) == replace(own, **given)


def test_the_rate_goes_with_the_root_of_the_batch_size_unless_it_is_given() -> None:
    assert recipe_of("p2p", batch_size=64).lr == pytest.approx(2 * recipe_of("p2p").lr)
    assert recipe_of("p2p", batch_size=64, lr=0.1).lr == 0.1


@pytest.mark.parametrize("loss", MASK_LOSSES)
def test_mshnet_takes_every_mask_loss_and_p2p_none(loss: str) -> None:
    assert recipe_of("mshnet", loss=loss).loss == loss
    assert "--loss" in refusal("p2p", loss=loss)


def test_sls_is_never_without_its_warm_up() -> None:
    for name in ("default", "finetune", "paper"):
        assert recipe_of("mshnet", name, epochs=60, loss="sls").warm == 6
    assert recipe_of("mshnet", "default").warm == 0


def test_wrong_names_list_the_right_ones() -> None:
    assert refusal("yolo") == "yolo: no model has this name; choose one of mshnet, p2p"
    message = refusal("mshnet", "fast")
    assert message == (
        "--recipe: mshnet has no recipe 'fast'; choose default, paper, finetune, turned, "
        "large-frames or noisy"
    )
    assert refusal("p2p", keep="first") == "--keep: there is no 'first' epoch; choose best or last"
    assert refusal("p2p", "paper").endswith("choose default, finetune or whole-frames")
    assert all(name in refusal("mshnet", loss="tversky") for name in MASK_LOSSES)
    assert refusal("mshnet", loss="points").startswith("--loss: mshnet")


@pytest.mark.parametrize("value", [0, -1, float("inf"), float("nan")])
@pytest.mark.parametrize("option", ["epochs", "batch_size", "lr"])
def test_figures_are_positive(option: str, value: float) -> None:
    message = refusal("p2p", **{option: value})
    assert message.startswith(f"--{option.replace('_', '-')}: {value} ")


@pytest.mark.parametrize("recipe", RECIPES.values())
def test_every_kind_of_crop_but_the_last_has_an_end(recipe: Recipe) -> None:
    assert len(recipe.until) == len(recipe.crops) - 1
    assert list(recipe.until) == sorted(recipe.until)


def test_crops_follow_each_other_at_their_shares() -> None:
    crops = (Augmentation(64), Augmentation(128), Augmentation(256))
    recipe = replace(MASK, crops=crops, until=(0.5, 0.8))
    sizes = [recipe.crops_in(epoch).size_px for epoch in range(10)]
    assert sizes == [64] * 5 + [128] * 3 + [256] * 2
    assert replace(MASK, crops=crops[:1], until=()).crops_in(9).size_px == 64


def test_one_cycle_rises_for_a_twentieth_and_falls_to_a_hundredth() -> None:
    rates = [MASK.lr_at((step + 1) / 100) for step in range(100)]
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert all(later < earlier for earlier, later in zip(rates[4:], rates[5:], strict=False))
    assert rates[-1] == pytest.approx(0.01)
    assert MASK.lr_at(0.05 + 0.95 / 2) == pytest.approx(0.01 + 0.99 / 2)


def test_adagrad_has_a_constant_rate() -> None:
    recipe = replace(MASK, optimizer="adagrad")
    assert {recipe.lr_at(done) for done in (0.01, 0.5, 1.0)} == {1.0}


def test_the_average_looks_back_on_a_share_of_the_run() -> None:
    recipe = replace(MASK, average_share=0.02)
    assert recipe.decay_at(0, 10_000) == 0.1
    assert recipe.decay_at(890, 10_000) == pytest.approx(891 / 900)
    assert recipe.decay_at(9_999, 10_000) == pytest.approx(1 - 1 / 200)
    assert recipe.decay_at(199, 200) == pytest.approx(1 - 1 / 4)
    assert recipe.decay_at(9, 10) == 0, "the last weights"
    assert replace(MASK, average_share=0.0).decay_at(9_999, 10_000) == 0


@pytest.mark.parametrize(
    ("epochs", "asked", "warm"),
    [(300, 10, 10), (50, 10, 10), (49, 10, 9), (5, 10, 1), (4, 10, 0), (100, 0, 0)],
)
def test_warm_up_leaves_four_fifths_of_a_run(epochs: int, asked: int, warm: int) -> None:
    recipe = replace(MASK, epochs=epochs, warm_epochs=asked)
    assert recipe.warm == warm
    temperatures = [recipe.temperature_in(epoch) for epoch in range(epochs)]
    assert temperatures[warm:] == [1.0] * (epochs - warm)
    expected = [START_TEMPERATURE + (1 - START_TEMPERATURE) * e / warm for e in range(warm)]
    assert temperatures[:warm] == pytest.approx(expected)
