"""Calibration frames hold the extremes, come from the train part, and are the same every time."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest

from irstd_edge.calibration.subset import calibration_samples
from irstd_edge.edge.dataset import fingerprint, open_dataset
from irstd_edge.edge.frames import png_of
from irstd_edge.edge.types import Frame, IrstdError

FRAMES = 40
BRIGHTEST, FAINTEST = "f07", "f12"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return flat_set(tmp_path_factory.mktemp("flat"), {BRIGHTEST: 160, FAINTEST: 5})


def flat_set(root, rises):
    """A target of 3x3 in the middle of each flat frame, 60 counts over it but for these frames."""
    for part in ("images", "masks"):
        (root / part).mkdir()
    mask = np.zeros((32, 32), np.uint8)
    mask[15:18, 15:18] = 255
    names = [f"f{i:02d}" for i in range(FRAMES)]
    for name in names:
        rise = rises.get(name, 60)
        counts = np.where(mask > 0, 40 + rise, 40).astype(np.uint8)
        (root / "images" / f"{name}.png").write_bytes(png_of(counts))
        (root / "masks" / f"{name}.png").write_bytes(png_of(mask))
    (root / "trainval.txt").write_text("\n".join(names))
    (root / "test.txt").write_text("f00\n")
    return open_dataset(root, "train")


def names_of(samples):
    return [sample.frame.name for sample in samples]


@pytest.mark.parametrize("seed", range(5))
def test_holds_the_extremes(data, seed):
    assert {BRIGHTEST, FAINTEST} <= set(data.names), "the hash put them elsewhere: rename them"
    names = names_of(calibration_samples([data], 4, seed))
    assert len(set(names)) == 4
    assert {BRIGHTEST, FAINTEST} <= set(names)


def test_of_several_sets_the_extremes_are_those_of_all(data, tmp_path):
    """Though their frames have the same names."""
    other = flat_set(tmp_path, {BRIGHTEST: 100, FAINTEST: 1})
    found = calibration_samples([data, other], 4, 0)
    peaks = [(s.frame.name, int(s.frame.counts.max())) for s in found]
    assert len(peaks) == 4
    assert (BRIGHTEST, 200) in peaks and (FAINTEST, 41) in peaks
    assert (BRIGHTEST, 140) not in peaks and (FAINTEST, 45) not in peaks
    whole = names_of(calibration_samples([data, other], 1000, 0))
    assert whole == [*data.names, *other.names]


def test_every_set_must_have_frames_that_can_be_used(data, tmp_path):
    other = flat_set(tmp_path, {})
    skipped = []
    for name in other.names:
        (tmp_path / "masks" / f"{name}.png").write_bytes(png_of(np.zeros((8, 8), np.uint8)))
    with pytest.raises(IrstdError, match=f"{tmp_path}: none of its frames can be used"):
        calibration_samples([data, other], 4, 0, skip=skipped.append)
    assert [skip.name for skip in skipped] == [f"{tmp_path.name}/{name}" for name in other.names]


def test_frames_of_two_bit_depths_are_refused(data, tmp_path):
    """Wherever in the list they are."""
    other = flat_set(tmp_path, {})
    name = other.names[-1]
    deep = np.full((32, 32), 40_000, np.uint16)
    (tmp_path / "images" / f"{name}.png").write_bytes(png_of(deep))
    words = f"--data: {tmp_path}: {name} has 16 bits, {other.names[0]} has 8: a bundle is for one"
    with pytest.raises(IrstdError, match=words):
        calibration_samples([other], 4, 0)


def test_is_seeded(data):
    first, again, other = (names_of(calibration_samples([data], 12, seed)) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_never_takes_held_out_frames(data):
    held_out = set(open_dataset(data.root, "val").names)
    assert held_out and held_out.isdisjoint(names_of(calibration_samples([data], FRAMES, 0)))


def test_takes_a_small_set_whole(data):
    assert names_of(calibration_samples([data], 1000, 0)) == list(data.names)


@pytest.mark.parametrize("split", ["test", "val"])
def test_refuses_what_is_to_judge_by(data, split):
    with pytest.raises(IrstdError, match=f"{split} is to judge by"):
        calibration_samples([replace(data, split=split)], 4, 0)


def test_works_without_targets(tmp_path, data):
    for part in ("images", "masks"):
        (tmp_path / part).mkdir()
    counts = np.zeros((16, 16), np.uint8)
    for name in ("a", "b"):
        (tmp_path / "images" / f"{name}.png").write_bytes(png_of(counts))
        (tmp_path / "masks" / f"{name}.png").write_bytes(png_of(counts))
    (tmp_path / "trainval.txt").write_text("a\nb\n")
    (tmp_path / "test.txt").write_text("a\n")
    empty = replace(open_dataset(tmp_path, "trainval"))
    assert names_of(calibration_samples([empty], 2, 0)) == ["a", "b"]


def test_fingerprint_is_of_the_counts_not_of_the_file():
    counts = np.array([[1, 2], [3, 0x1234]], np.uint16)
    name, digest = fingerprint(Frame("x", counts, 16))
    expected = hashlib.sha256(bytes([1, 0, 2, 0, 3, 0, 0x34, 0x12])).hexdigest()
    assert (name, digest) == ("x", expected)
    swapped = fingerprint(Frame("x", counts.astype(">u2"), 16))
    assert swapped == (name, expected)
