"""The decode in the graph against the decode of every runtime, on ONNX Runtime."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from irstd_edge.edge.decode_graph import DECODED, FIELDS, with_decode
from irstd_edge.edge.detect import OUTPUTS, predict_from_outputs
from irstd_edge.edge.types import DecodeSpec, FloatArray, IrstdError

onnx = pytest.importorskip("onnx", reason="onnx is in the train extra")

CHANNELS = {"mask": (1,), "heatmap": (1, 3)}
STRIDES = {"mask": 1, "heatmap": 2}


def maps_graph(kind: str) -> Any:
    """A graph whose outputs are slices of its input: what goes in is what is decoded."""
    helper, free = onnx.helper, ["N", None, "h", "w"]
    nodes, outputs, constants, start = [], [], {"one": [1]}, 0
    for name, channels in zip(OUTPUTS[kind], CHANNELS[kind], strict=True):
        constants |= {f"{name}.from": [start], f"{name}.to": [start + channels]}
        bounds = [f"{name}.from", f"{name}.to", "one"]
        nodes.append(helper.make_node("Slice", ["frame", *bounds], [name], name))
        shape = ["N", channels, "h", "w"]
        outputs.append(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape))
        start += channels
    frame = helper.make_tensor_value_info("frame", onnx.TensorProto.FLOAT, free)
    stored = [onnx.numpy_helper.from_array(np.int64(v), k) for k, v in constants.items()]
    graph = helper.make_graph(nodes, "maps", [frame], outputs, stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def runs(decode: DecodeSpec, targets: int = 64) -> Callable[[FloatArray], list[Any]]:
    import onnxruntime

    data = with_decode(maps_graph(decode.kind), decode, targets).SerializeToString()
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    assert [o.name for o in session.get_outputs()] == list(DECODED[decode.kind])
    return lambda maps: session.run(None, {"frame": maps})


def expected(decode: DecodeSpec, maps: FloatArray) -> FloatArray:
    """(K, 4) of `detect`, for one frame."""
    shape = maps.shape[1] * STRIDES[decode.kind], maps.shape[2] * STRIDES[decode.kind]
    found = predict_from_outputs([maps[:1], maps[1:4]], shape, decode).detections
    rows = [[getattr(target, field) for field in FIELDS] for target in found]
    return np.reshape(np.float32(rows), (-1, len(FIELDS)))


def agrees(found: FloatArray, reference: FloatArray) -> None:
    np.testing.assert_allclose(found[: len(reference)], reference, rtol=2e-5, atol=2e-5)
    assert not found[len(reference) :].any()  # zeros after the last one


def clutter(seed: int, spread: float = 4.0, size: tuple[int, int] = (24, 40)) -> FloatArray:
    """Four maps of noise: many peaks whose offsets and sizes make them fight."""
    random = np.random.default_rng(seed)
    maps = random.normal(0, spread, (4, *size)).astype(np.float32)
    maps[0] -= 2 * spread
    maps[1:3] *= 0.5
    return maps


@pytest.mark.parametrize("threshold", [0.2, 0.5, 0.9])
def test_targets_are_those_of_the_decode(threshold: float) -> None:
    decode = DecodeSpec("heatmap", threshold)
    run, seen = runs(decode), 0
    for seed in range(40):
        maps = clutter(seed)
        (targets,) = run(maps[None])
        assert targets.shape == (1, 64, 4) and targets.dtype == np.float32
        agrees(targets[0], expected(decode, maps))
        seen += len(expected(decode, maps))
    assert seen > 40


def test_a_batch_of_any_size_keeps_its_frames_apart() -> None:
    decode = DecodeSpec("heatmap", 0.3)
    run = runs(decode)
    for size in ((24, 40), (16, 16)):
        batch = np.stack([clutter(seed, size=size) for seed in range(3)])
        (targets,) = run(batch)
        for found, maps in zip(targets, batch, strict=True):
            agrees(found, expected(decode, maps))


def test_equal_neighbours_are_one_target_the_first_of_them() -> None:
    decode = DecodeSpec("heatmap", 0.5)
    maps = np.full((4, 16, 16), -9, np.float32)
    maps[1:] = 0
    maps[3] = -1.5
    maps[0, 3, 4:7] = maps[0, 4, 4:7] = 2.0  # a plateau
    maps[0, 0, 0] = maps[0, 15, 15] = 3.0  # corners
    (targets,) = runs(decode)(maps[None])
    agrees(targets[0], expected(decode, maps))
    assert targets[0, :3, :2].tolist() == [[0.5, 0.5], [30.5, 30.5], [6.5, 8.5]]


def test_a_target_silences_those_near_it_and_no_silenced_one_does() -> None:
    decode = DecodeSpec("heatmap", 0.5)
    maps = np.full((4, 16, 16), -9, np.float32)
    maps[1:] = 0
    for k, col in enumerate(range(1, 15, 2)):  # in a row, 4 pixels apart, each reaching the next
        maps[0, 8, col] = 5 - 0.5 * k
    maps[3] = math.log(2.5)
    (targets,) = runs(decode)(maps[None])
    agrees(targets[0], expected(decode, maps))
    assert targets[0, :4, 1].tolist() == [2.5, 10.5, 18.5, 26.5]  # every other one


def test_with_more_targets_than_there_is_room_the_weakest_go() -> None:
    decode = DecodeSpec("heatmap", 0.2)
    maps = clutter(1)
    maps[3] = -1.5  # the smallest: nobody silences anybody but within a cell
    reference = expected(decode, maps)
    (targets,) = runs(decode, targets=5)(maps[None])
    assert len(reference) > 5 and targets.shape == (1, 5, 4)
    agrees(targets[0], reference[:5])


def test_a_frame_of_fewer_cells_than_targets_keeps_the_shape() -> None:
    decode = DecodeSpec("heatmap", 0.2)
    run, seen = runs(decode, targets=300), 0
    for seed in range(10):
        maps = clutter(seed, size=(16, 16))
        (targets,) = run(maps[None])
        assert targets.shape == (1, 300, 4)
        agrees(targets[0], expected(decode, maps))
        seen += len(expected(decode, maps))
    assert seen > 10


def test_a_frame_without_targets_is_all_zeros() -> None:
    maps = np.full((1, 4, 16, 16), -200, np.float32)
    (targets,) = runs(DecodeSpec("heatmap"))(maps)
    assert not targets.any()


def test_a_mask_has_its_probability_and_its_decision() -> None:
    decode = DecodeSpec("mask", 0.3)
    logits = clutter(5)[:1]
    logits[0, 0, 0] = np.float32(math.log(0.3 / 0.7))  # at the threshold is not above it
    probability, mask = runs(decode)(logits[None])
    reference = predict_from_outputs([logits], logits.shape[1:], decode)
    np.testing.assert_allclose(probability[0, 0], reference.probability, rtol=1e-5, atol=1e-6)
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask[0, 0], reference.mask)
    assert 0 < mask.sum() < mask.size


def test_what_cannot_be_decoded_is_refused() -> None:
    with pytest.raises(IrstdError, match=r"--targets: 0 is not in 1\.\.1024"):
        with_decode(maps_graph("heatmap"), DecodeSpec("heatmap"), 0)
    with pytest.raises(IrstdError, match=r"outputs \['logits'\] in opset 17, not \['heatmap', "):
        with_decode(maps_graph("mask"), DecodeSpec("heatmap"))
