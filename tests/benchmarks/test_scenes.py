import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from irstd_edge.benchmarks.scenes import BITS, KINDS, Scene, scene, write_dataset
from irstd_edge.edge.dataset import open_dataset
from irstd_edge.edge.frames import points_of_mask
from irstd_edge.edge.types import IrstdError, Sample


def drawn(kind: str, count: int = 30, **options: object) -> list[Scene]:
    return [scene(np.random.default_rng([9, i]), kind=kind, **options) for i in range(count)]


def digests(root: Path) -> dict[str, str]:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files
    }


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_scene_has_the_size_and_bits_it_was_asked_for(kind: str, bits: int) -> None:
    one = scene(np.random.default_rng(3), (96, 130), bits, kind, "night")
    assert (one.frame.name, one.frame.shape, one.frame.bit_depth) == ("night", (96, 130), bits)
    assert one.frame.counts.dtype == (np.uint8 if bits == 8 else np.uint16)
    assert one.frame.counts.max() < 2**bits
    assert len(np.unique(one.frame.counts)) > (16 if bits == 8 else 1000)
    assert one.mask.shape == (96, 130)


@pytest.mark.parametrize("kind", KINDS)
def test_the_truth_fits_the_frame(kind: str) -> None:
    scenes = drawn(kind)
    assert {len(one.targets) for one in scenes} >= {1, 2, 3}
    for one in scenes:
        places = points_of_mask(one.mask)
        assert len(places) == len(one.targets)
        for target in one.targets:
            assert one.mask[round(target.row), round(target.col)]
            offset = np.hypot(*(places - (target.row, target.col)).T).min()
            assert offset < 1.0
            assert 0.5 <= target.sigma_px <= 2.0
            assert target.width_px <= target.length_px <= 16
            assert 0.0 < target.scr <= 8.0
            assert target.kind == kind


def rise_over_clutter(one: Scene) -> float:
    """The lone target's mean over its surroundings, in deviations of them, from the frame alone."""
    row, col = (round(float(x)) for x in one.points[0])
    window = np.s_[max(row - 10, 0) : row + 11, max(col - 10, 0) : col + 11]
    counts, inside = one.frame.counts[window].astype(float), one.mask[window]
    grown = np.array(inside)
    for axis in (0, 1):
        grown |= np.roll(grown, 2, axis) | np.roll(grown, -2, axis)
    outside = counts[~grown]
    return float((counts[inside].mean() - outside.mean()) / outside.std())


def test_the_contrast_is_in_the_frame() -> None:
    lone = [one for kind in KINDS for one in drawn(kind, 60) if len(one.targets) == 1]
    said = np.array([one.targets[0].scr for one in lone])
    found = np.array([rise_over_clutter(one) for one in lone])
    assert len(lone) > 100
    assert np.corrcoef(said, found)[0, 1] > 0.6
    assert 0.8 < np.median(found / said) < 1.2
    assert np.mean(said >= 3) > 0.8  # most can be seen, some cannot
    assert said.min() < 2.5


def test_scenes_look_like_the_frames_that_networks_are_trained_on() -> None:
    scenes = [one for kind in KINDS for one in drawn(kind)]
    counts = np.array([(one.frame.counts.mean(), one.frame.counts.std()) for one in scenes])
    areas = [one.mask.sum() / len(one.targets) for one in scenes if one.targets]
    # NUDT-SIRST trainval: brightness 114, contrast 31 (medians over frames)
    np.testing.assert_allclose(np.median(counts, axis=0), [114, 31], rtol=0.25)
    # Its median target has 21 pixels; these masks end at half of the peak, and are smaller.
    assert 6 < np.median(areas) < 21


def test_clutter_is_smooth_on_a_large_scale_and_drawn_out_along_the_sea() -> None:
    steps = {"sky": [], "sea": []}
    for kind, ratios in steps.items():
        for one in drawn(kind):
            counts = one.frame.counts[128:].astype(float)
            down, along = (np.abs(np.diff(counts[::4, ::4], axis=axis)).mean() for axis in (0, 1))
            ratios.append(down / along)
    assert np.median(steps["sea"]) > 1.3 > 1.25 > np.median(steps["sky"])


def test_a_small_frame_gets_fewer_targets_rather_than_an_error() -> None:
    counts = [len(scene(np.random.default_rng(i), (32, 32)).targets) for i in range(40)]
    assert 0 < max(counts) <= 2


def test_the_data_set_opens_as_one(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    root = tmp_path / "a" / "scenes"
    write_dataset(root, 10, (48, 64), 14, 5, lambda done, total: seen.append((done, total)))
    assert seen == [(i, 10) for i in range(1, 11)]
    truth = json.loads((root / "targets.json").read_text())
    names = [name for split in ("trainval", "test") for name in open_dataset(root, split).names]
    assert names == list(truth)
    assert (len(open_dataset(root).names), len(open_dataset(root, "trainval").names)) == (5, 5)
    for item in open_dataset(root).samples(strict=True):
        assert isinstance(item, Sample)
        assert (item.frame.bit_depth, item.frame.shape) == (14, (48, 64))
        known = np.array([(t["row"], t["col"]) for t in truth[item.frame.name]]).reshape(-1, 2)
        assert len(item.points) == len(known)
        for place in known:
            assert np.hypot(*(item.points - place).T).min() < 1.0
    assert set(truth[names[0]][0] if truth[names[0]] else truth[names[1]][0]) == {
        "row", "col", "sigma_px", "length_px", "width_px", "scr", "kind",
    }  # fmt: skip


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    for name, seed in (("one", 5), ("two", 5), ("other", 6)):
        write_dataset(tmp_path / name, 6, (64, 64), seed=seed)
    one, two, other = (digests(tmp_path / name) for name in ("one", "two", "other"))
    assert one == two
    assert one.keys() == other.keys()
    assert one["images/00000_sky.png"] != other["images/00000_sky.png"]


def test_more_frames_leave_the_first_ones_as_they_are(tmp_path: Path) -> None:
    for frames in (4, 6):
        write_dataset(tmp_path / str(frames), frames, (64, 64))
    few, many = digests(tmp_path / "4"), digests(tmp_path / "6")
    assert all(many[name] == few[name] for name in few if name.startswith(("images", "masks")))


def test_a_folder_that_is_not_empty_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("mine")
    with pytest.raises(IrstdError, match="the folder is not empty: remove it or choose another"):
        write_dataset(tmp_path, 4)
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]


def test_an_interruption_leaves_nothing(tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_dataset(tmp_path / "scenes", 4, (32, 32), progress=interrupt)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"frames": 1}, "--frames: 1 is too few to part, ask for 2 or more"),
        ({"size": (16, 64)}, "--size: 16x64 is not within 32..8192 pixels a side"),
        ({"size": (64, 9000)}, "--size: 64x9000 is not within 32..8192 pixels a side"),
        ({"bits": 12}, "--bits: 12 is not one of 8, 14, 16"),
        ({"seed": -1}, "--seed: -1 is negative, give 0 or more"),
    ],
)
def test_what_is_not_offered_is_refused(tmp_path: Path, options: dict, why: str) -> None:
    with pytest.raises(IrstdError) as caught:
        write_dataset(tmp_path / "scenes", **options)
    assert str(caught.value) == why
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_kind_lists_the_right_ones() -> None:
    with pytest.raises(IrstdError, match="kind: 'moon' is not one of sky, cloud, sea, ground"):
        scene(np.random.default_rng(0), kind="moon")
