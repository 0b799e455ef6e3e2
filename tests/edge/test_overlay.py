from pathlib import Path

import cv2
import numpy as np
import pytest

from irstd_edge.edge.overlay import CODECS, open_video, overlay
from irstd_edge.edge.types import Detection, Frame, IrstdError


def scene(height: int, width: int, bits: int = 8) -> Frame:
    """Even noise in a small part of the scale, as thermal frames have it."""
    low, high = (40, 60) if bits == 8 else (20_000, 20_400)
    counts = np.random.default_rng(0).integers(low, high, (height, width))
    return Frame("scene", counts.astype(np.uint8 if bits == 8 else np.uint16), bits)


def painted(picture, channel, other):
    """(rows, columns) of the pixels that have more of one colour than of another."""
    signed = picture.astype(int)
    return np.nonzero(signed[..., channel] - signed[..., other] > 60)


def test_a_detection_has_a_green_circle_around_its_place() -> None:
    # The circle is 4 px and the radius of its disc, 1 px; zoom 8 puts the centre of pixel (20, 40)
    # at (163.5, 323.5).
    picture = overlay(scene(64, 64), [Detection(20, 40, 0.93, np.pi)])
    rows, cols = painted(picture, 1, 2)
    left = cols <= 323  # the score stands on the right
    assert abs(cols.min() - (323.5 - 40)) <= 1.5
    assert abs(rows[left].min() - (163.5 - 40)) <= 1.5
    assert abs(rows[left].max() - (163.5 + 40)) <= 1.5
    radius = np.hypot(rows[left] - 163.5, cols[left] - 323.5)
    assert np.all(abs(radius - 40) <= 2)


def test_its_score_stands_beside_it() -> None:
    one, other = (overlay(scene(64, 64), [Detection(20, 20, s, 4)]) for s in (0.11, 0.88))
    changed = np.nonzero((one != other).any(axis=2))
    assert changed[1].min() > 163 + 40  # right of the circle
    assert abs(changed[0].mean() - 163) < 12


def test_a_labelled_point_has_an_orange_square() -> None:
    rows, cols = painted(overlay(scene(64, 64), (), [(20.0, 40.0)]), 2, 0)
    edges = (rows.min(), rows.max(), cols.min(), cols.max())
    expected = (163.5 - 56, 163.5 + 56, 323.5 - 56, 323.5 + 56)
    assert np.all(np.abs(np.subtract(edges, expected)) <= 1.5)


@pytest.mark.parametrize("bits", [8, 16])
def test_the_counts_in_use_fill_the_grey_scale(bits: int) -> None:
    picture = overlay(scene(64, 48, bits), ())
    assert picture.dtype == np.uint8
    assert (picture.min(), picture.max()) == (0, 255)
    assert 100 < picture.mean() < 155


def test_without_detections_it_is_grey() -> None:
    picture = overlay(scene(64, 64), ())
    assert np.all(picture == picture[..., :1])


def test_a_frame_without_contrast_is_black() -> None:
    assert not overlay(Frame("flat", np.full((64, 64), 900, np.uint16), 16), ()).any()


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((64, 48), (512, 384)),
        ((48, 256), (96, 512)),
        ((300, 200), (600, 400)),
        ((512, 640), (512, 640)),
        ((1, 1), (512, 512)),
    ],
)
def test_the_longer_side_has_at_least_512_px(
    shape: tuple[int, int], expected: tuple[int, int]
) -> None:
    assert overlay(scene(*shape), ()).shape == (*expected, 3)


@pytest.mark.parametrize("longer", [205, 400])
def test_it_is_enlarged_where_rounding_down_would_leave_it_smaller(longer: int) -> None:
    assert max(overlay(scene(100, longer), ()).shape) >= 512


@pytest.mark.parametrize("suffix", CODECS)
def test_a_video_has_every_picture_in_order_at_its_rate(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"found{suffix}"
    greys = range(20, 240, 20)
    with open_video(path, 12.5) as add:
        for grey in greys:
            add(f"f{grey}", np.full((64, 96, 3), grey, np.uint8))
        assert not path.exists()
    video = cv2.VideoCapture(str(path))
    assert video.get(cv2.CAP_PROP_FPS) == pytest.approx(12.5)
    read = []
    while (found := video.read())[0]:
        read.append(found[1].mean())
    assert read == pytest.approx(list(greys), abs=4)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_video_of_nothing_is_no_file_and_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "found.avi"
    for old in (None, b"old"):
        if old is not None:
            path.write_bytes(old)
        with open_video(path, 25):
            pass
        assert [p.read_bytes() for p in tmp_path.iterdir()] == ([] if old is None else [old])


def test_pictures_of_two_sizes_are_no_video(tmp_path: Path) -> None:
    with (
        pytest.raises(IrstdError, match=r"^--video: second: has another size .* use --overlay"),
        open_video(tmp_path / "found.avi", 25) as add,
    ):
        add("first", np.zeros((64, 96, 3), np.uint8))
        add("second", np.zeros((96, 64, 3), np.uint8))
    assert not list(tmp_path.iterdir())


def test_a_rate_that_the_format_lacks_is_said_at_the_first_picture(tmp_path: Path) -> None:
    with (
        pytest.raises(IrstdError, match=r"cannot hold 96x64 pixels at 66\.667 frames/s: use \.avi"),
        open_video(tmp_path / "found.mp4", 66.667) as add,
    ):
        add("first", np.zeros((64, 96, 3), np.uint8))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("shape", [(600, 2), (3, 600), (15, 15)])
def test_a_picture_too_narrow_for_a_video_is_refused(
    tmp_path: Path, shape: tuple[int, int]
) -> None:
    """OpenCV's encoder would write past its end."""
    with (
        pytest.raises(IrstdError, match=r"pixels are too few for a video, .* use --overlay"),
        open_video(tmp_path / "found.avi", 25) as add,
    ):
        add("first", np.zeros((*shape, 3), np.uint8))
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_is_said_at_once(tmp_path: Path) -> None:
    (tmp_path / "found.avi").mkdir()
    with pytest.raises(IrstdError, match=r"found\.avi: cannot be written"):
        open_video(tmp_path / "found.avi", 25).__enter__()


def test_a_video_needs_an_ending_that_is_one(tmp_path: Path) -> None:
    with pytest.raises(IrstdError, match=r"found\.gif: is no \.avi or \.mp4"):
        open_video(tmp_path / "found.gif", 25).__enter__()


def test_a_video_that_was_not_written_whole_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a full disk: OpenCV writes on and says nothing."""

    class Lossy:
        def __init__(self) -> None:
            self.inner = inner()

        def write(self, picture: np.ndarray) -> None:
            pass

        def __getattr__(self, name: str) -> object:
            return getattr(self.inner, name)

    inner, code = cv2.VideoWriter, cv2.VideoWriter.fourcc
    monkeypatch.setattr(cv2, "VideoWriter", Lossy)
    monkeypatch.setattr(Lossy, "fourcc", staticmethod(code), raising=False)
    with (
        pytest.raises(IrstdError, match=r"found\.avi: holds 0 of 2 frames: check path"),
        open_video(tmp_path / "found.avi", 25) as add,
    ):
        for name in "ab":
            add(name, np.zeros((64, 96, 3), np.uint8))
    assert not list(tmp_path.iterdir())
