import tracemalloc
from importlib.util import find_spec

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irstd_edge.edge.normalisation import NORMALISATIONS
from irstd_edge.edge.runners import Runner
from irstd_edge.edge.tiles import Span, Tiling, detect_tiled, predict_tiled, spans
from irstd_edge.edge.types import DecodeSpec, Frame, InputSpec, IrstdError, ModelSpec

STRIDE = 4


def mask_net(reach, shapes=None):
    """logits = 8-bit counts summed over (2 reach + 1) ** 2 pixels, less 199.5: exact in float32.

    Zeros stand in for what lies beyond the border of what it is given, as in a convolution.
    """

    def infer(batch):
        if shapes is not None:
            shapes.append(batch.shape)
        return [np.stack([box_sum(image[0], reach)[None] for image in batch]) - np.float32(199.5)]

    return Runner(ModelSpec("local", InputSpec(STRIDE), DecodeSpec("mask")), "fake", "fp32", infer)


def heatmap_net(reach):
    """The same over 2x2 cells, with dx of 1/4 in every other column: geometry that has a place."""

    def infer(batch):
        heat, geometry = [], []
        for image in batch:
            cells = box_sum(image[0], reach)[::2, ::2]
            heat.append(cells[None] - np.float32(199.5))
            geometry.append(np.stack([cells % 2 / 4, 0 * cells, 0 * cells - 1]))
        return [np.stack(heat), np.stack(geometry)]

    spec = ModelSpec("local", InputSpec(STRIDE), DecodeSpec("heatmap"))
    return Runner(spec, "fake", "fp32", infer)


def box_sum(image, reach):
    counts = np.rint(image * 255).astype(np.float32)
    side = 2 * reach + 1
    return cv2.boxFilter(counts, -1, (side, side), normalize=False, borderType=cv2.BORDER_CONSTANT)


def scene(shape, places, name="scene"):
    """8 bit, black but for 2x2 targets of 200 counts with their top left pixels at `places`."""
    counts = np.zeros(shape, np.uint8)
    for row, col in places:
        counts[row : row + 2, col : col + 2] = 200
    return Frame(name, counts, 8)


@given(st.integers(1, 40), st.integers(1, 12), st.integers(0, 4))
def test_cores_cover_a_side_once_and_keep_their_distance(cells, tile_cells, halo_cells):
    size, halo = cells * STRIDE, halo_cells * STRIDE
    tile = max(tile_cells * STRIDE, 2 * halo + STRIDE)
    found = spans(size, tile, halo)
    assert [p for span in found for p in range(span.first, span.last)] == list(range(size))
    for span in found:
        stop = span.start + min(tile, size)
        assert 0 <= span.start and stop <= size
        assert span.start == 0 == span.first or span.first - span.start >= halo
        assert stop == size == span.last or stop - span.last >= halo


def test_spans_by_hand():
    assert spans(20, 32, 8) == [Span(0, 0, 20)]
    assert spans(48, 32, 8) == [Span(0, 0, 24), Span(16, 24, 48)]
    # The third tile would reach to 64: it is shifted inwards.
    assert spans(52, 32, 8) == [Span(0, 0, 24), Span(16, 24, 28), Span(20, 28, 52)]


@pytest.mark.parametrize("name", NORMALISATIONS)
def test_tiles_share_the_stretch_of_their_frame(name):
    """A network that gives its input back: tiles put together are the stretched frame."""
    random = np.random.default_rng(2)
    counts = np.rint(random.normal(8000, 20, (90, 130))).astype(np.uint16)
    counts[:40] += 900
    frame = Frame("two skies", counts, 16)
    spec = ModelSpec("same", InputSpec(STRIDE, normalisation=name), DecodeSpec("mask"))
    run = Runner(spec, "fake", "fp32", lambda batch: [batch - np.float32(0.5)])
    whole, tiled = run.predict(frame), predict_tiled(run, frame, Tiling((48, 48), STRIDE, 8))
    np.testing.assert_array_equal(tiled.probability, whole.probability)


SIZES = st.tuples(st.integers(3, 90), st.integers(3, 90))


@settings(deadline=None, max_examples=150)
@given(SIZES, st.integers(1, 6), st.integers(1, 6), st.integers(0, 9), st.integers(1, 5), st.data())
@pytest.mark.parametrize("net", [mask_net, heatmap_net])
def test_tiles_equal_the_whole_where_the_network_is_local(net, shape, high, wide, halo, many, data):
    reach = data.draw(st.integers(0, min(halo, 3)))
    rounded = -(-halo // STRIDE) * STRIDE
    tile = (2 * rounded + high * STRIDE, 2 * rounded + wide * STRIDE)
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    counts = rng.integers(0, 256, shape, np.uint8) * (rng.random(shape) < 0.05)
    frame = Frame("f", counts.astype(np.uint8), 8)
    run = net(reach)
    whole, tiled = run.predict(frame), predict_tiled(run, frame, Tiling(tile, STRIDE, halo, many))
    assert tiled.detections == whole.detections
    assert detect_tiled(run, frame, Tiling(tile, STRIDE, halo, many)) == whole.detections
    np.testing.assert_array_equal(tiled.probability, whole.probability)
    assert tiled.stride == whole.stride
    assert (tiled.mask is None) == (whole.mask is None)
    if whole.mask is not None:
        np.testing.assert_array_equal(tiled.mask, whole.mask)


def seams(size, tile, halo):
    return [span.first for span in spans(size, tile, halo)][1:]


@pytest.mark.parametrize("net", [mask_net, heatmap_net])
def test_a_target_on_a_seam_or_a_corner_is_found_once(net):
    rows, cols = seams(160, 64, 16), seams(224, 64, 16)
    assert (rows, cols) == ([48, 80, 112], [48, 80, 112, 144, 176])
    places = [(row - 1, col - 1) for row in rows for col in cols]
    places += [(row - 1, 20) for row in rows] + [(20, col - 1) for col in cols]
    places += [(0, 0), (158, 222), (0, 222), (158, 0)]  # the frame's own corners
    frame = scene((160, 224), places)
    found = predict_tiled(net(1), frame, Tiling((64, 64), STRIDE, 16)).detections
    assert len(found) == len(places)
    for row, col in places:
        near = [d for d in found if abs(d.row - row - 0.5) <= 2 and abs(d.col - col - 0.5) <= 2]
        assert len(near) == 1, (row, col)


def test_a_blob_that_is_cut_by_seams_stays_one_of_its_full_area():
    counts = np.zeros((96, 96), np.uint8)
    counts[10:80, 40:43] = 220  # through every seam of the rows
    (found,) = detect_tiled(mask_net(0), Frame("f", counts, 8), Tiling((32, 32), STRIDE, 8))
    assert (found.row, found.col, found.area_px) == (44.5, 41.0, 210.0)


def test_every_tile_has_one_size_and_the_batch_is_bounded():
    shapes = []
    predict_tiled(mask_net(1, shapes), scene((90, 131), []), Tiling((32, 48), STRIDE, 8, batch=4))
    assert {shape[1:] for shape in shapes} == {(1, 32, 48)}
    assert [shape[0] for shape in shapes] == [4, 4, 4, 4, 4]  # 5 rows of 4 columns


def test_a_frame_within_the_tile_runs_whole_and_a_long_one_takes_its_own_width():
    shapes = []
    run = mask_net(1, shapes)
    predict_tiled(run, scene((30, 22), []), Tiling((64, 64), STRIDE, 8))
    predict_tiled(run, scene((30, 100), []), Tiling((64, 64), STRIDE, 8))
    assert shapes == [(1, 1, 32, 24), (1, 1, 32, 64), (1, 1, 32, 64)]


def test_threshold_and_bit_depth_are_those_of_the_frame():
    counts = np.zeros((64, 64), np.uint16)
    counts[30:32, 30:32] = 14_000  # of 16383: 217.9 of 255
    frame, tiling = Frame("f", counts, 14), Tiling((32, 32), STRIDE, 8)
    assert len(predict_tiled(mask_net(0), frame, tiling).detections) == 1
    assert len(predict_tiled(mask_net(0), Frame("f", counts, 16), tiling).detections) == 0
    counts[0, 0] = 12_850  # of 16383: 200.0 of 255, a probability of 0.62
    assert len(predict_tiled(mask_net(0), frame, tiling, 0.5).detections) == 2
    assert len(predict_tiled(mask_net(0), frame, tiling, 0.7).detections) == 1


def test_the_halo_is_rounded_up_to_the_stride():
    assert Tiling((96, 96), 16).halo == 32
    assert Tiling((112, 112), 16, 33).halo == 48


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (((100, 128), 16), r"--tile: 100x128 is not a multiple of 16, .*: use 112x128"),
        (((0, 64), 16), "use 16x64"),
        (((64, 64), 16), "64x64 leaves no core inside a halo of 32 px: use 80x80"),
        (((64, 64), 16, -1), "--halo: -1 px is below 0: use 32"),
        (((96, 96), 16, 32, 0), "batch: 0 tiles"),
    ],
)
def test_a_tiling_that_cannot_be_says_which_can(values, message):
    with pytest.raises(IrstdError, match=message):
        Tiling(*values)


def test_nan_names_the_frame():
    run = mask_net(1)
    broken = Runner(run.spec, "fake", "fp32", lambda batch: [np.full_like(batch, np.nan)])
    for look in (predict_tiled, detect_tiled):
        with pytest.raises(IrstdError, match="^scene: local fp32 on fake: logits: .*NaN"):
            look(broken, scene((64, 64), []), Tiling((32, 32), STRIDE, 8))


@pytest.mark.parametrize("net", [mask_net, heatmap_net])
def test_memory_of_detections_does_not_grow_with_the_height_of_the_frame(net):
    """Of a frame twice as high there is the frame itself more, and nothing else."""

    def peak(height):
        frame = Frame("f", np.zeros((height, 512), np.uint8), 8)
        tracemalloc.start()
        assert detect_tiled(net(0), frame, Tiling((64, 64), STRIDE, 8)) == ()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    low, high = peak(512), peak(4096)
    assert high < low + 100_000  # a map of the frame would be 0.9 MB and more of this


@pytest.mark.slow
@pytest.mark.real_data
@pytest.mark.skipif(find_spec("torch") is None, reason="torch is in the train extra")
def test_a_mosaic_of_real_frames_is_found_by_tiles_as_well_as_whole(real_data):
    """Both pool over what they see, so they differ; the tile is nearer to what was trained on."""
    from irstd_edge.benchmarks.accuracy import score_points
    from irstd_edge.edge.dataset import open_dataset
    from irstd_edge.edge.runners import torch_runner
    from irstd_edge.models.weights import load_model, spec_of_card

    data = open_dataset(real_data / "NUDT-SIRST")
    samples = [data.sample(name) for name in data.names[:16]]
    counts = np.block([[samples[4 * i + j].frame.counts for j in range(4)] for i in range(4)])
    corners = [np.float32([256 * (k // 4), 256 * (k % 4)]) for k in range(16)]
    truth = np.concatenate([s.points + c for s, c in zip(samples, corners, strict=True)])
    frame = Frame("mosaic", counts, 8)
    net, model, card = load_model("p2p")
    spec = spec_of_card(model, card)

    def f1(prediction):
        rows = np.array([(d.row, d.col, d.score) for d in prediction.detections])
        return score_points([rows], [truth], 3.0).f1

    with torch_runner(net.deploy(), spec) as run:
        whole = f1(run.predict(frame))
        tiled = f1(predict_tiled(run, frame, Tiling((320, 320), spec.input.stride)))
    assert tiled > 0.8 and tiled > whole - 0.03
