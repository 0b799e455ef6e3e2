"""Whole files of every kind that the readers take, to be damaged by `fuzz.py`."""

import io
import json
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

GREY = (np.arange(20 * 24).reshape(20, 24) * 131 % 65536).astype(np.uint16)
ACCURACY = {
    **{"protocol": "native", "images": 4, "targets": 6, "undefined": []},
    **dict.fromkeys(("iou", "niou", "pd", "precision_3px", "recall_3px"), 0.5),
    **dict.fromkeys(("f1_3px", "f1_5px"), 0.5),
    **dict.fromkeys(("fa_per_mpx", "fa_legacy_per_mpx", "position_px"), 1.5),
}
GATE = """[drift]
net_targets_lost = 1
f1_3px = -0.005
[drift.lost_by_scr]
"0 to 1.5" = 0
[floor]
fps = 10.5
[baseline]
fps_ratio = 0.9
"""


def pictures() -> list[tuple[str, bytes]]:
    """(ending, file) of pictures of every kind, 8 and 16 bit, grey and colour."""
    small = (GREY >> 8).astype(np.uint8)
    colour = cv2.merge([small, small, small])
    found = [
        (suffix, cv2.imencode(suffix, pixels)[1].tobytes())
        for suffix in (".png", ".tif", ".bmp", ".jpg")
        for pixels in (small, GREY, colour)
        if suffix in (".png", ".tif") or pixels is not GREY
    ]
    return [*found, (".tif", cv2.imencodemulti(".tif", [GREY, GREY[:9], GREY])[1].tobytes())]


def arrays() -> list[tuple[str, bytes]]:
    """NPY of a frame and of a stack, NPZ as it is and packed."""
    found = []
    for value in (GREY, np.stack([GREY, GREY]), GREY.astype(">u2")):
        file = io.BytesIO()
        np.save(file, value)
        found.append((".npy", file.getvalue()))
    for save in (np.savez, np.savez_compressed):
        file = io.BytesIO()
        save(file, a=GREY, b=GREY[:5])
        found.append((".npz", file.getvalue()))
    return found


def videos(folder: Path) -> list[tuple[str, bytes]]:
    """Three frames of motion JPEG and of MPEG-4."""
    found = []
    for suffix, code in ((".avi", "MJPG"), (".mp4", "mp4v"), (".mkv", "MJPG")):
        file = folder / f"seed{suffix}"
        video = cv2.VideoWriter(str(file), cv2.VideoWriter_fourcc(*code), 25, (64, 48))
        for shade in (40, 80, 120):
            video.write(np.full((48, 64, 3), shade, np.uint8))
        video.release()
        found.append((suffix, file.read_bytes()))
    return found


def bench() -> dict[str, Any]:
    """A small bench.json: two variants, one drift entry with every optional field."""
    latency = {"p50": 2.0, "p90": 2.5, "p99": 3.0, "mean": 2.1, "samples": 10}
    curve = {"threshold": [0.1, 0.5], "fa_per_mpx": [9.0, 1.0]}
    curve |= dict.fromkeys(("precision_3px", "recall_3px", "pd"), [0.4, None])
    variants = [
        {
            **{"name": name, "runtime": "onnxruntime", "precision": name, "device": "cpu"},
            **{"measured": True, "not_measured": None, "bytes": 1000, "memory_mb": 50.5},
            **{"fps": 480.0, "fps_end_to_end": 300.0, "power_w": None, "joule_per_frame": None},
            "latency_ms": latency,
            "stages_ms": {"read": 1.0, "pre": 0.1, "infer": 2.0, "post": 0.2},
            "accuracy": {**ACCURACY, "threshold": 0.5, "curve": curve},
            **{"infer_ms": [2.0, 2.1, 2.3], "weak": ["few samples"]},
        }
        for name in ("fp32", "int8")
    ]
    target = {"image": "a", "row": 3.5, "col": 4.5, "area_px": 9.0, "scr": 2.0, "flip": "lost"}
    target |= {"score_reference": 0.9, "score_candidate": 0.4}
    target |= {"matched_reference": True, "matched_candidate": False}
    equal = {"fa_per_mpx": 1.0, "pd_reference": 0.9, "pd_candidate": 0.8, "own": True}
    equal |= {"threshold_reference": 0.5, "threshold_candidate": 0.4, "ci95": [-0.2, 0.0]}
    drift = {
        **{"reference": "fp32", "candidate": "int8", "runtime": "onnxruntime"},
        **dict.fromkeys(("iou", "niou", "pd", "fa_per_mpx", "f1_3px", "f1_5px"), -0.01),
        **{"targets_lost": 1, "targets_gained": 0, "false_alarms_gained": 0, "p_value": 1.0},
        **{"ci95": [-0.3, 0.1], "targets": [target], "pd_at_fa": [equal]},
        "ci95_of": {"iou": [-0.1, 0.1], "f1_3px": [-0.1, 0.1], "pd": None},
        **{"by_area": [{"above": 0, "up_to": 9, "targets": 1, "lost": 1, "gained": 0}]},
    }
    result = {
        **{"model": "p2p", "bundle": "0" * 64, "timed_on": "frames", "variants": variants},
        "cost": {"params": 9, "macs": 1e9, "gflops": 2.0, "input": [1, 1, 64, 96]},
        "drift": [drift],
    }
    machine = {"cpu": "x", "threads": 2, "load": 0.5, "fingerprint": "f"}
    return {"schema": "irstd-edge/bench/1", "machine": machine, "results": [result]}


def manifest() -> dict[str, Any]:
    """A small manifest.json."""
    return {
        **{"schema": "irstd-edge/bundle/1", "model": "p2p", "parent_sha256": "0" * 64},
        "files": {"fp32.onnx": "1" * 64, "golden/a.png": "2" * 64},
        "input": {"channels": 1, "stride": 8, "bit_depth": 14, "normalisation": "full-scale"},
        "decode": {
            **{"kind": "heatmap", "threshold": 0.4},
            "operating_points": [{"threshold": 0.4, "pd": 0.9, "fa_per_mpx": 2.0}],
        },
        "quantization": {
            **{"method": "ptq", "recipe": {"seed": 0}},
            "calibration": [{"name": "a", "sha256": "3" * 64}],
            "float_layers": [{"layer": "stem", "reason": "input"}],
        },
        **{"versions": {"nncf": "3.4.0"}, "accuracy": {"int8": {"f1_3px": 0.9}}},
    }


def golden() -> dict[str, Any]:
    """What a frame should give, of a graph that sees nothing in it."""
    target = {"row": 3.5, "col": 4.5, "score": 0.3, "area_px": 9.0}
    return {
        "tolerance": {"position_px": 0.5, "score": 0.3},
        "frames": [{"name": "a", "bit_depth": 8}],
        "expected": {"fp32.onnx": {"a": [target]}},
    }


def sensitivity() -> dict[str, Any]:
    """Of two layers."""
    layer = {"layer": "high1.conv1", "macs": 1000, "targets_lost": 1, "targets_gained": 0}
    layer |= {"score_error": 0.01, "sqnr_db": 31.5, "pd_at_fa": None}
    layers = [layer, layer | {"layer": "low", "pd_at_fa": -0.01}]
    return {"schema": "irstd-edge/sensitivity/2", "bundle": "0" * 64, "layers": layers}


def engine_entry() -> dict[str, Any]:
    """Of an engine that was kept."""
    key = {"graph_sha256": "0" * 64, "backend": "tensorrt", "version": "10.3", "gpu": "Orin"}
    key |= {"target": "sm_87", "flags": ["min=1x1x32x32", "dla"]}
    return {"key": key, "store": "0" * 16, "hmac": "0" * 64}


def graph() -> bytes:
    """Two convolutions, the second on stored int8 numbers, as our graphs have them."""
    from onnx import TensorProto, helper, numpy_helper

    weight = np.full((2, 1, 3, 3), 0.1, np.float32)
    stored = np.full((1, 2, 1, 1), 7, np.int8)
    constants = {"w": weight, "q": stored, "s": np.float32(0.1), "z": np.int8(0)}
    nodes = [
        helper.make_node("Conv", ["frame", "w"], ["a"], "first", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["r"], "relu"),
        helper.make_node("QuantizeLinear", ["r", "s", "z"], ["rq"], "quantize"),
        helper.make_node("DequantizeLinear", ["rq", "s", "z"], ["rd"], "dequantize"),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["v"], "weights"),
        helper.make_node("Conv", ["rd", "v"], ["logits"], "second"),
    ]
    frame = helper.make_tensor_value_info("frame", TensorProto.FLOAT, ["N", 1, "H", "W"])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 1, "H", "W"])
    tensors = [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()]
    made = helper.make_graph(nodes, "net", [frame], [logits], tensors)
    opset = [helper.make_opsetid("", 17)]
    return bytes(helper.make_model(made, opset_imports=opset, ir_version=8).SerializeToString())


def safetensors() -> bytes:
    """A few tensors under the name and card of a model."""
    from safetensors.numpy import save

    card = json.dumps({"threshold": 0.5, "operating_points": [[0.5, 0.9, 2.0]], "seed": 0})
    tensors = {"stem.0.weight": np.ones((2, 3), np.float32), "b": np.zeros(4, np.int64)}
    return bytes(save(tensors, {"model": "p2p", "card": card}))


def pickles() -> list[tuple[str, bytes]]:
    """A state dict as torch saves it now, and as it did before it was a ZIP file."""
    import torch

    state = {"state_dict": {"a": torch.ones(2, 3), "b": torch.zeros(4)}, "iou": np.float64(0.5)}
    found = []
    for zipped in (True, False):
        file = io.BytesIO()
        torch.save(state, file, _use_new_zipfile_serialization=zipped)
        found.append((".pkl", file.getvalue()))
    return found


def checkpoint() -> bytes:
    """Of a training run."""
    import torch

    state = {"identity": "run", "epoch": 3, "best": 0.5, "lines": ["{}"], "parent": None}
    tensors = {"a": torch.ones(2, 3)}
    file = io.BytesIO()
    torch.save(state | {"net": tensors, "average": tensors, "optimizer": {"state": {}}}, file)
    return file.getvalue()


def bombs() -> dict[str, Callable[[], bytes]]:
    """What takes memory or time out of proportion to its size: name -> file."""
    return {
        "sparse.png": lambda: png(60_000, 60_000),
        "pages.tif": lambda: tiff_of_entries(3000),
        "header.npy": lambda: b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**31) + b" " * 64,
        "header.npz": lambda: packed(b"\x93NUMPY\x02\x00\xff\xff\xff\x7f" + b" " * 2**24),
        "side.npy": lambda: npy((1 << 40, 8)),
        "scans.jpg": lambda: b"\xff\xd8\xff" + b"\xff\xda\0\0" * 1000 + b"\xff\xd9",
        "portable.png": lambda: b"P5 30000 30000 65535\n" + b"\0" * 64,
    }


def png(height: int, width: int) -> bytes:
    """A PNG that declares a size and has two bytes of pixels."""
    import zlib

    out = b"\x89PNG\r\n\x1a\n"
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    for kind, body in ((b"IHDR", header), (b"IDAT", zlib.compress(b"\0\0")), (b"IEND", b"")):
        check = struct.pack(">I", zlib.crc32(kind + body))
        out += struct.pack(">I", len(body)) + kind + body + check
    return out


def tiff_of_entries(pages: int) -> bytes:
    """Pages that overlap, each of which declares 65,535 entries."""
    out = bytearray(b"II*\0" + struct.pack("<I", 8) + b"\xff" * (2 * pages + 65_535 * 12 + 6))
    for page in range(pages):
        at = 8 + 2 * page + 2 + 65_535 * 12
        out[at : at + 4] = struct.pack("<I", 8 + 2 * (page + 1))
    return bytes(out)


def npy(shape: tuple[int, ...]) -> bytes:
    """An NPY that declares a shape and holds 64 bytes."""
    text = repr({"descr": "<u2", "fortran_order": False, "shape": shape}).encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + b"\0" * 64


def packed(data: bytes) -> bytes:
    """An NPZ of one packed member."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", data)
    return file.getvalue()
