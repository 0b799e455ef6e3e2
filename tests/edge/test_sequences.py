import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from irstd_edge.edge.sequences import (
    VIDEOS,
    RawFormat,
    extensions,
    frames_in,
    frames_of,
    raw_format,
)
from irstd_edge.edge.types import IrstdError

COUNTS = (np.arange(2 * 6 * 8).reshape(2, 6, 8) * 100).astype(np.uint16)
RAW = {"u8": "u1", "u16le": "<u2", "u16be": ">u2"}


@pytest.mark.parametrize("kind", RAW)
def test_raw_frames_follow_each_other(tmp_path: Path, kind: str) -> None:
    counts = COUNTS // 100
    path = tmp_path / "flight.raw"
    path.write_bytes(counts.astype(RAW[kind]).tobytes())
    found = list(frames_of(path, raw=RawFormat(8, 6, kind)))
    assert [frame.name for frame in found] == ["flight#0", "flight#1"]
    np.testing.assert_array_equal(np.stack([frame.counts for frame in found]), counts)
    assert {frame.bit_depth for frame in found} == {8 if kind == "u8" else 16}
    assert all(frame.counts.dtype.isnative for frame in found)
    (one,) = frames_of(path, raw=RawFormat(8, 12, kind))
    assert (one.name, one.shape) == ("flight", (12, 8))


def test_raw_bits_are_those_of_the_sensor(tmp_path: Path) -> None:
    path = tmp_path / "f.bin"
    path.write_bytes(COUNTS.astype("<u2").tobytes())
    assert next(frames_of(path, 14, RawFormat(8, 6, "u16le"))).bit_depth == 14
    with pytest.raises(IrstdError, match="does not fit 14 bits"):  # the other byte order
        next(frames_of(path, 14, RawFormat(8, 6, "u16be")))


@pytest.mark.parametrize("size", [0, 1, 95, 97, 191])
def test_a_raw_file_of_other_than_whole_frames_is_refused(tmp_path: Path, size: int) -> None:
    path = tmp_path / "f.raw"
    path.write_bytes(b"\0" * size)
    with pytest.raises(
        IrstdError, match=rf"f\.raw: {size} bytes are not whole frames of 8x6:u16le"
    ):
        frames_of(path, raw=RawFormat(8, 6, "u16le"))


def test_raw_counts_without_a_layout_ask_for_it(tmp_path: Path) -> None:
    with pytest.raises(IrstdError, match=r"x\.raw: has no header: .* --raw 640x512:u16le"):
        frames_of(tmp_path / "x.raw")


def test_a_raw_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "gone.raw", tmp_path):
        with pytest.raises(IrstdError, match=f"^{path}: cannot be read"):
            frames_of(path, raw=RawFormat(8, 6, "u8"))


def test_raw_format_is_read() -> None:
    raw = raw_format("640x512:u16le")
    assert (raw.width, raw.height, raw.kind, raw.frame_bytes) == (640, 512, "u16le", 655_360)
    assert str(raw) == "640x512:u16le"


@pytest.mark.parametrize("text", ["640x512", "640:u8", "640x512:f32", "x:u8", "-1x5:u8", "4x4:u8 "])
def test_a_wrong_raw_format_is_shown_the_right_one(text: str) -> None:
    with pytest.raises(IrstdError, match="--raw: .* write it like 640x512:u16le"):
        raw_format(text)


def test_a_raw_size_is_bounded() -> None:
    with pytest.raises(IrstdError, match="--raw: 1x100000000 pixels, and 8192 is the longest side"):
        raw_format("100000000x1:u8")
    with pytest.raises(IrstdError, match="--raw: declares 5x0 pixels, so it holds no frame"):
        raw_format("0x5:u8")


def test_a_folder_of_raw_counts_is_one_of_raw_files() -> None:
    assert extensions(RawFormat(8, 6, "u8")) == (".raw", ".bin")
    assert {".png", ".npy", ".mkv"} <= set(extensions(None))


@pytest.mark.parametrize(("suffix", "code"), [(".avi", "MJPG"), (".mp4", "mp4v"), (".mkv", "MJPG")])
def test_a_video_comes_frame_by_frame(tmp_path: Path, suffix: str, code: str) -> None:
    path = tmp_path / f"flight{suffix}"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*code), 25, (64, 48))
    if not writer.isOpened():
        pytest.skip(f"this OpenCV writes no {code} in {suffix}")
    levels = [40, 120, 200]
    for level in levels:
        writer.write(np.full((48, 64, 3), level, np.uint8))
    writer.release()
    found = list(frames_of(path))
    assert [frame.name for frame in found] == ["flight#0", "flight#1", "flight#2"]
    for frame, level in zip(found, levels, strict=True):
        assert (frame.shape, frame.bit_depth) == ((48, 64), 8)
        np.testing.assert_allclose(frame.counts, level, atol=4)


@pytest.mark.parametrize(("suffix", "about"), [(".avi", ""), (".mkv", "about ")])
def test_a_video_that_was_cut_off_gives_what_it_has_and_says_so(
    tmp_path: Path, suffix: str, about: str
) -> None:
    path = tmp_path / f"flight{suffix}"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 25, (64, 48))
    if not writer.isOpened():
        pytest.skip(f"this OpenCV writes no {suffix}")
    for level in range(20):
        writer.write(np.full((48, 64, 3), 10 * level, np.uint8))
    writer.release()
    raw = path.read_bytes()
    path.write_bytes(raw[: len(raw) * 2 // 3])
    found = []
    with pytest.raises(
        IrstdError, match=rf"flight{suffix}: ends after \d+ of {about}20 frames: copy it again"
    ):
        found.extend(iter(frames_of(path)))
    assert 5 < len(found) < 20


def test_a_playlist_opens_no_other_file_whatever_the_user_has_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = cv2.VideoWriter(
        str(tmp_path / "in.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 25, (64, 48)
    )
    writer.write(np.zeros((48, 64, 3), np.uint8))
    writer.release()
    (tmp_path / "list.avi").write_text("ffconcat version 1.0\nfile in.avi\n")
    monkeypatch.setenv("OPENCV_FFMPEG_CAPTURE_OPTIONS", "rtsp_transport;tcp")
    assert len(list(frames_of(tmp_path / "in.avi"))) == 1
    with pytest.raises(IrstdError, match=r"list\.avi: cannot be opened as a video"):
        next(frames_of(tmp_path / "list.avi"))
    assert os.environ["OPENCV_FFMPEG_CAPTURE_OPTIONS"] == "rtsp_transport;tcp"


def test_what_is_no_video_is_refused_silently(tmp_path: Path) -> None:
    """In a process of its own: FFmpeg takes its level of talk when it is first used."""
    damaged = [b"", b"not a video", b"RIFF\x10\0\0\0AVI LIST", b"#EXTM3U\nhttp://a"]
    for number, raw in enumerate(damaged):
        for suffix in VIDEOS:
            (tmp_path / f"bad{number}{suffix}").write_bytes(raw)
    code = (
        "import pathlib, sys\n"
        "from irstd_edge.edge.sequences import frames_of\n"
        "from irstd_edge.edge.types import IrstdError\n"
        "for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):\n"
        "    try: next(frames_of(path))\n"
        "    except IrstdError as error: print(error)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert run.stderr == ""
    lines = run.stdout.splitlines()
    assert len(lines) == len(damaged) * len(VIDEOS)
    for line, path in zip(lines, sorted(tmp_path.iterdir()), strict=True):
        assert line.startswith(f"{path}: cannot be opened as a video")


def touched(root: Path, *names: str) -> list[Path]:
    for name in names:
        (root / name).touch()
    return [root / name for name in names]


def test_frames_are_those_of_a_folder_by_name_and_files_as_they_are_given(tmp_path: Path) -> None:
    folder = tmp_path / "frames"
    folder.mkdir()
    b, a, upper, *_ = touched(folder, "b.png", "a.bmp", "c.TIFF", "notes.txt", "points.json", "d")
    (folder / "below").mkdir()
    touched(folder / "below", "deep.png")
    alone, raw = touched(tmp_path, "z.png", "frame.raw")
    assert frames_in([alone, folder, raw]) == [alone, a, b, upper, raw]
    assert frames_in([b]) == [b]
    assert frames_in([]) == []


def test_what_is_hidden_is_no_frame(tmp_path: Path) -> None:
    """As what a killed run leaves of a film or a picture."""
    for name in ("a.png", ".b.png", ".found.avi.0123.partial.avi"):
        (tmp_path / name).write_bytes(b"")
    assert frames_in([tmp_path], (".png", ".avi")) == [tmp_path / "a.png"]


def test_two_frames_of_one_name_are_refused(tmp_path: Path) -> None:
    for name in ("a/1.png", "a/2.png", "b/1.tif"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(IrstdError, match=r"b/1\.tif: its frame would be called 1, as .*a/1\.png"):
        frames_in([tmp_path / "a", tmp_path / "b"])


def test_where_there_is_no_frame_it_says_what_is_wanted(tmp_path: Path) -> None:
    touched(tmp_path, "notes.txt")
    with pytest.raises(IrstdError) as caught:
        frames_in([tmp_path])
    assert str(caught.value) == (
        f"{tmp_path}: no frames (.png, .bmp, .jpg, .jpeg, .tif, .tiff, .npy, .npz): give another"
    )
    missing = tmp_path / "missing.png"
    with pytest.raises(IrstdError) as caught:
        frames_in([missing])
    assert str(caught.value) == f"{missing}: no such file or folder: check the path"


def test_a_frame_is_not_called_as_a_page_of_a_stack(tmp_path: Path) -> None:
    page, stack, other = touched(tmp_path, "a#0.png", "a.tif", "b#0.png")
    with pytest.raises(IrstdError, match=r"a#0\.png: .* a page of .*a\.tif"):
        frames_in([page, stack])
    assert frames_in([page, other]) == [page, other]
    (single,) = touched(tmp_path, "b.png")
    assert frames_in([other, single]) == [other, single], "a PNG has no pages"
