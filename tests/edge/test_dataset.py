import json
from pathlib import Path

import numpy as np
import pytest

from irstd_edge.edge.dataset import DataSet, open_dataset, open_datasets, sets_around
from irstd_edge.edge.frames import png_of, read_mask, resize_bilinear, resize_nearest
from irstd_edge.edge.types import IrstdError, Sample, Skip

NAMES = tuple(f"n{i:02d}" for i in range(8))
MASK = np.zeros((6, 9), bool)
MASK[1:3, 4:6] = MASK[5, 8] = True
POINTS = [[1.5, 4.5], [5.0, 8.0]]


def counts_of(name: str) -> np.ndarray:
    return np.full((6, 9), int(name[1:]) * 20, np.uint8)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Eight frames of 6x9 with one mask, the first six in trainval, the others in test."""
    root = tmp_path / "set"
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for name in NAMES:
        (root / "images" / f"{name}.png").write_bytes(png_of(counts_of(name)))
        (root / "masks" / f"{name}.png").write_bytes(png_of(MASK))
    write_lists(root, NAMES[:6], NAMES[6:])
    return root


def write_lists(root: Path, trainval: tuple[str, ...], test: tuple[str, ...]) -> None:
    (root / "trainval.txt").write_text("\n".join(trainval) + "\n")
    (root / "test.txt").write_text("\n".join(test) + "\n")


def only_points(root: Path, points: object) -> None:
    for path in (root / "masks").iterdir():
        path.unlink()
    (root / "masks").rmdir()
    (root / "points.json").write_text(json.dumps(points))


def samples_of(data: DataSet, protocol: str = "native") -> list[Sample]:
    found = [item for item in data.samples(protocol=protocol) if isinstance(item, Sample)]
    assert len(found) == len(data.names)
    return found


def test_samples_come_in_the_order_of_the_list_and_again(root: Path) -> None:
    write_lists(root, NAMES[:6], ("n07", "n06"))
    data = open_dataset(root)
    assert data.names == ("n07", "n06")
    for _ in range(2):
        assert [sample.frame.name for sample in samples_of(data)] == ["n07", "n06"]
    sample = data.sample("n07")
    np.testing.assert_array_equal(sample.frame.counts, counts_of("n07"))
    np.testing.assert_array_equal(sample.mask, MASK)
    assert sample.points.tolist() == POINTS


def test_val_and_train_part_trainval(root: Path) -> None:
    train, val = (open_dataset(root, split).names for split in ("train", "val"))
    assert open_dataset(root, "trainval").names == NAMES[:6]
    assert val
    assert set(train) | set(val) == set(NAMES[:6])
    assert not set(train) & set(val)


def test_all_frames_need_no_list(root: Path) -> None:
    for name in ("trainval.txt", "test.txt"):
        (root / name).unlink()
    data = open_dataset(root, None)
    assert data.names == tuple(sorted(NAMES))
    assert data.sample("n07").points.tolist() == POINTS


def test_one_name_cannot_be_parted(root: Path) -> None:
    write_lists(root, NAMES[:1], NAMES[1:])
    assert open_dataset(root, "train").names == NAMES[:1]
    with pytest.raises(IrstdError, match=r"trainval\.txt: too few names to hold one out as val"):
        open_dataset(root, "val")


def test_img_idx_lists_are_read_where_there_are_no_others(root: Path) -> None:
    (root / "img_idx").mkdir()
    (root / "img_idx" / "train_SET.txt").write_text("n00\nn01\n")
    (root / "img_idx" / "test_SET.txt").write_text("n02\n")
    assert open_dataset(root).names == NAMES[6:]
    (root / "test.txt").unlink()
    with pytest.raises(IrstdError, match=r"set: no list test\.txt"):
        open_dataset(root)  # never one list from here and the other from there
    (root / "trainval.txt").unlink()
    assert open_dataset(root).names == ("n02",)
    assert open_dataset(root, "trainval").names == ("n00", "n01")
    (root / "img_idx" / "test_OTHER.txt").write_text("n03\n")
    with pytest.raises(IrstdError, match=r"img_idx: several test\*\.txt: leave one"):
        open_dataset(root)


def test_masks_named_pixels0_are_found(root: Path) -> None:
    (root / "masks" / "n06.png").rename(root / "masks" / "n06_pixels0.png")
    np.testing.assert_array_equal(open_dataset(root).sample("n06").mask, MASK)


@pytest.mark.parametrize(
    ("folder", "other"),
    [("images", "n06.tif"), ("masks", "n06.bmp"), ("masks", "n06_pixels0.png")],
)
def test_of_two_files_of_one_name_none_is_chosen(root: Path, folder: str, other: str) -> None:
    """A raw frame and its preview, say."""
    (root / folder / other).write_bytes((root / folder / "n06.png").read_bytes())
    assert open_dataset(root, "trainval").names == NAMES[:6]
    with pytest.raises(IrstdError, match=r"n06\S* beside it has the same name: leave one"):
        open_dataset(root)


def test_a_file_of_several_frames_is_no_frame(root: Path) -> None:
    (root / "images" / "n06.png").unlink()
    np.save(root / "images" / "n06.npy", np.stack([counts_of("n06")] * 3))
    with pytest.raises(IrstdError, match=r"n06\.npy: holds 3 frames where one belongs: split it"):
        open_dataset(root).sample("n06")


def test_hidden_files_are_no_frames(root: Path) -> None:
    (root / "images" / "._n06.png").write_bytes(b"what a Mac leaves")
    assert open_dataset(root, None).names == NAMES


def test_the_data_set_around_frames_is_found_from_inside_too(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert sets_around([root / "images" / "n06.png", root / "images" / "n07.png"]) == [root]
    assert sets_around([tmp_path / "n06.png", root / "masks" / "n06.png"]) == []
    assert sets_around([tmp_path / "images" / "n06.png"]) == []  # of no labels, no lists
    monkeypatch.chdir(root / "images")
    assert sets_around([Path("n06.png")]) == [root]


def test_points_json_stands_in_for_masks(root: Path) -> None:
    only_points(root, {"n06": [[2.25, 3]], "n07": []})
    first, second = samples_of(open_dataset(root))
    assert (first.mask, second.mask) == (None, None)
    assert first.points.tolist() == [[2.25, 3.0]]
    assert second.points.shape == (0, 2)


def test_points_json_wins_over_the_masks_centroids(root: Path) -> None:
    (root / "points.json").write_text('{"n06": [[2, 3]], "n07": []}')
    first = samples_of(open_dataset(root))[0]
    assert first.points.tolist() == [[2.0, 3.0]]
    np.testing.assert_array_equal(first.mask, MASK)


@pytest.mark.parametrize(
    ("points", "reason"),
    [
        ({"n07": []}, "points.json: no points for n06: add them, [] for no target"),
        (
            {"n06": [[6, 1]], "n07": []},
            "points.json: n06 has a point outside of its 6x9 pixels: give [row, col]",
        ),
    ],
)
def test_a_frame_whose_points_do_not_fit_is_skipped_by_name(
    root: Path, points: object, reason: str
) -> None:
    only_points(root, points)
    data = open_dataset(root)
    assert next(iter(data.samples())) == Skip("n06", reason)
    with pytest.raises(IrstdError) as caught:
        list(data.samples(strict=True))
    assert str(caught.value) == f"{root}/{reason}"


@pytest.mark.parametrize("text", ["[]", '{"n06": 3}', '{"n06": [[1, 2, 3]]}', '{"n06": [[1], []]}'])
def test_points_of_another_form_are_refused(root: Path, text: str) -> None:
    (root / "points.json").write_text(text)
    with pytest.raises(IrstdError, match=r"points\.json: .*\[row, col\]"):
        open_dataset(root)


def test_a_mask_of_another_size_is_skipped_by_name(root: Path) -> None:
    (root / "masks" / "n06.png").write_bytes(png_of(MASK[:, :8]))
    reason = (
        "masks/n06.png: the mask has 6x8 pixels, its frame 6x9: "
        "correct the mask, or take n06 off the list"
    )
    skip, sample = open_dataset(root).samples()
    assert skip == Skip("n06", reason)
    assert isinstance(sample, Sample)
    with pytest.raises(IrstdError) as caught:
        list(open_dataset(root).samples(strict=True))
    assert str(caught.value) == f"{root}/{reason}"


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("folder", ["images", "masks"])
def test_a_missing_file_is_never_skipped(root: Path, folder: str, strict: bool) -> None:
    (root / folder / "n07.png").unlink()
    with pytest.raises(IrstdError, match=rf"{folder}/n07\.png: no such file: add it, or take n07"):
        list(open_dataset(root).samples(strict=strict))


@pytest.mark.parametrize("folder", ["images", "masks"])
def test_a_truncated_file_is_never_skipped(root: Path, folder: str) -> None:
    path = root / folder / "n07.png"
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(IrstdError, match=r"n07\.png: the PNG is truncated: copy it again"):
        list(open_dataset(root).samples())


def test_the_lists_of_another_set_are_refused(root: Path) -> None:
    (root / "test.txt").write_text("XDU0\nXDU1\n")
    with pytest.raises(IrstdError, match=r"test\.txt: none of its names is in .*images"):
        open_dataset(root)


def test_a_wrong_folder_names_the_right_one(root: Path) -> None:
    with pytest.raises(IrstdError, match=rf"no frames in images/: did you mean {root}\?"):
        open_dataset(root.parent)
    with pytest.raises(IrstdError, match=r"images: no frames in images/: give the folder"):
        open_dataset(root / "images")
    with pytest.raises(IrstdError, match=r"gone: no such folder"):
        open_dataset(root / "gone")


def test_a_set_that_is_given_twice_is_refused(root: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(root)
    assert [data.root for data in open_datasets([root], "test")] == [root]
    for again in (root, root / "images" / "..", link):
        with pytest.raises(IrstdError, match=f"--data: {again} is given twice: give each"):
            open_datasets([root, again], "test")


def test_a_set_without_labels_is_refused(root: Path) -> None:
    for path in (root / "masks").iterdir():
        path.unlink()
    with pytest.raises(IrstdError, match=r"set: neither masks/ nor points\.json: add the labels"):
        open_dataset(root)


def test_wrong_words_list_the_right_ones(root: Path) -> None:
    with pytest.raises(IrstdError, match="--split: 'all' is not one of test, trainval, train, val"):
        open_dataset(root, "all")
    with pytest.raises(IrstdError, match="--protocol: 'x' is not one of native, paper256"):
        list(open_dataset(root).samples(protocol="x"))


def test_dataset_json_gives_the_bit_depth(root: Path) -> None:
    (root / "images" / "n06.png").write_bytes(png_of(np.full((6, 9), 16383, np.uint16)))
    assert open_dataset(root).sample("n06").frame.bit_depth == 16
    (root / "dataset.json").write_text('{"bit_depth": 14}')
    assert open_dataset(root).sample("n06").frame.bit_depth == 14
    for text in ('{"bit_depth": 13}', "[]", '{"bit_depth": null}'):
        (root / "dataset.json").write_text(text)
        with pytest.raises(IrstdError, match=r"dataset\.json: bit_depth .* is not one of"):
            open_dataset(root)


def test_paper256_squashes_frame_and_mask_and_finds_the_points_again(root: Path) -> None:
    data = open_dataset(root)
    native, squashed = data.sample("n07"), data.sample("n07", "paper256")
    expected = resize_bilinear(native.frame.counts, (256, 256))
    np.testing.assert_array_equal(squashed.frame.counts, expected)
    np.testing.assert_array_equal(squashed.mask, resize_nearest(MASK, (256, 256)))
    # Rows 1 and 2 of 6 become 43..127 of 256, columns 4 and 5 of 9 become 114..170.
    np.testing.assert_allclose(squashed.points[0], [85.0, 142.0])


def test_paper256_scales_points_where_there_is_no_mask(root: Path) -> None:
    only_points(root, {"n06": [[2.5, 4.0]], "n07": []})
    first, second = samples_of(open_dataset(root), "paper256")
    np.testing.assert_allclose(first.points, [[127.5, 127.5]])
    assert first.frame.shape == (256, 256)
    assert second.points.shape == (0, 2)


@pytest.mark.real_data
def test_nudt_has_its_published_targets(real_data: Path) -> None:
    samples = samples_of(open_dataset(real_data / "NUDT-SIRST"))
    assert len(samples) == 664
    assert sum(len(sample.points) for sample in samples) == 945


@pytest.mark.real_data
def test_nuaa_reads_as_pillow_reads_it_but_for_one_named_frame(real_data: Path) -> None:
    image = pytest.importorskip("PIL.Image", reason="Pillow is the reference here")
    data = open_dataset(real_data / "NUAA-SIRST")
    targets = 0
    for item in data.samples():
        if isinstance(item, Skip):
            assert item.name == "Misc_111"
            continue
        with image.open(data.images[item.frame.name]) as file:
            expected = np.asarray(file.convert("RGB").convert("L"))
        np.testing.assert_array_equal(item.frame.counts, expected)
        targets += len(item.points)
    assert (len(data.names), targets) == (214, 262)
    with pytest.raises(IrstdError, match=r"Misc_111\.png: the mask has 400x592 pixels"):
        list(data.samples(strict=True))


@pytest.mark.real_data
def test_the_lists_of_both_layouts_agree(real_data: Path, tmp_path: Path) -> None:
    source = real_data / "NUDT-SIRST"
    for part in ("images", "masks", "img_idx"):
        (tmp_path / part).symlink_to(source / part)
    for split in ("test", "train", "val"):
        assert open_dataset(tmp_path, split).names == open_dataset(source, split).names
    name = open_dataset(source).names[0]
    assert read_mask(source / "masks" / f"{name}.png").shape == (256, 256)
