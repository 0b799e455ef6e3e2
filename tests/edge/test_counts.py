from pathlib import Path

import numpy as np
import pytest

from irstd_edge.edge.counts import (
    clipped_share,
    frame_of_pixels,
    frames_of_pages,
    one_channel,
    refuse_numbers,
    refuse_size,
)
from irstd_edge.edge.policy import MAX_SIDE_PX
from irstd_edge.edge.types import IrstdError

PATH = Path("folder/flight.tif")


def test_pages_are_named_by_their_place_and_the_only_one_by_its_file():
    pages = [np.full((2, 3), value, np.uint8) for value in (5, 6)]
    several = list(frames_of_pages(PATH, pages, True, None))
    assert [(f.name, int(f.counts[0, 0])) for f in several] == [("flight#0", 5), ("flight#1", 6)]
    assert [f.name for f in frames_of_pages(PATH, pages[:1], False, None)] == ["flight"]


def test_pages_are_taken_as_they_come():
    def pages():
        yield np.zeros((2, 2), np.uint8)
        raise AssertionError("read ahead")

    assert next(frames_of_pages(PATH, pages(), True, None)).name == "flight#0"


def test_bits_are_those_of_the_type_unless_they_are_given():
    counts = np.full((2, 2), 1023, np.uint16)
    assert frame_of_pixels(PATH, "f", counts, None).bit_depth == 16
    assert frame_of_pixels(PATH, "f", counts, 10).bit_depth == 10
    with pytest.raises(
        IrstdError, match="a pixel of 1024 counts does not fit 10 bits: correct --bits, or bit_dep"
    ):
        frame_of_pixels(PATH, "f", counts + 1, 10)
    with pytest.raises(
        IrstdError, match=r"flight\.tif: holds counts of 8 bits, not of 14: correct"
    ):
        frame_of_pixels(PATH, "f", counts.astype(np.uint8), 14)


@pytest.mark.parametrize("shape", [(4, 4, 1), (4, 4, 2), (4, 4, 5), (2, 4, 4, 3)])
def test_a_wrong_number_of_channels_is_refused(shape):
    with pytest.raises(IrstdError, match=r"flight\.tif: has the shape .*: save one channel or"):
        one_channel(PATH, np.zeros(shape, np.uint8))


@pytest.mark.parametrize("kind", ["u1", "<u2", ">u2"])
def test_counts_may_be_of_either_byte_order(kind):
    refuse_numbers(PATH, np.dtype(kind))


@pytest.mark.parametrize("kind", ["bool", "int8", "int16", "uint32", "float16", "float64", "O"])
def test_other_numbers_are_refused_by_name(kind):
    with pytest.raises(IrstdError, match=f"holds {np.dtype(kind)} numbers: save the sensor's"):
        refuse_numbers(PATH, np.dtype(kind))


@pytest.mark.parametrize("bits", [8, 14])
def test_clipped_pixels_are_those_at_full_scale_of_the_sensor(bits):
    counts = np.zeros((10, 10), np.uint8 if bits == 8 else np.uint16)
    counts[0, :3] = 2**bits - 1
    counts[1] = 2**bits - 2
    assert clipped_share(frame_of_pixels(PATH, "f", counts, bits)) == 0.03
    if bits == 14:
        assert clipped_share(frame_of_pixels(PATH, "f", counts, 16)) == 0


def test_a_size_is_bounded_on_both_sides():
    refuse_size(PATH, 1, MAX_SIDE_PX)
    with pytest.raises(IrstdError, match="1x8193 pixels, and 8192 is the longest side"):
        refuse_size(PATH, 1, MAX_SIDE_PX + 1)
    with pytest.raises(IrstdError, match="declares 0x7 pixels, so it holds no frame"):
        refuse_size(PATH, 0, 7)
