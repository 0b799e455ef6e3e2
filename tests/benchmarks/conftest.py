from typing import Any

import pytest


def target(index: int, after: float, flip: str | None = None) -> dict[str, Any]:
    return {
        "image": f"frame{index}",
        "row": 10.0 + index,
        "col": 20.5,
        "area_px": 4 * index + 1,
        "scr": 0.8 * index,
        "score_reference": 0.9 if flip != "gained" else 0.4,
        "score_candidate": after,
        "flip": flip,
    }


def variant(name: str, runtime: str, p50: float, f1: float) -> dict[str, Any]:
    noise = ["noisy: the middle half of the times spreads over 13% of p50"]
    return {
        "name": name,
        "runtime": runtime,
        "precision": name,
        "device": "cpu",
        "measured": True,
        "not_measured": None,
        "bytes": 1_040_000 if name == "fp32" else 310_000,
        "memory_mb": 181.5,
        "latency_ms": {"p50": p50, "p90": 1.2 * p50, "p99": 1.5 * p50, "mean": p50, "samples": 4},
        "stages_ms": {"read": 1.0, "pre": 0.5, "infer": p50, "post": 0.5},
        "fps": 1000 / p50,
        "fps_end_to_end": 1000 / (p50 + 2),
        "power_w": None,
        "joule_per_frame": None,
        "accuracy": {
            "protocol": "native",
            "images": 4,
            "skipped": [{"name": "Misc_111", "reason": "mask of another size"}],
            "targets": 4,
            "iou": None,
            "niou": None,
            "pd": 0.9947,
            "fa_per_mpx": 1.25,
            "fa_legacy_per_mpx": None,
            "precision_3px": 0.9,
            "recall_3px": 0.9947,
            "f1_3px": f1,
            "f1_5px": f1,
            "position_px": 0.4,
            "undefined": [],
        },
        "infer_ms": [p50, p50, 1.2 * p50, 1.5 * p50],
        "weak": [*(noise if p50 == 20.0 else []), "p99 of 4 samples, 100 are needed"],
    }


def drift(runtime: str) -> dict[str, Any]:
    return {
        "reference": "fp32",
        "candidate": "int8",
        "runtime": runtime,
        "iou": None,
        "niou": None,
        "pd": -0.0106,
        "fa_per_mpx": 0.5,
        "f1_3px": -0.0021,
        "f1_5px": -0.0021,
        "targets_lost": 2,
        "targets_gained": 1,
        "false_alarms_gained": 3,
        "p_value": 1.0,
        "ci95": [-0.01, 0.004],
        "targets": [
            target(0, 0.91),
            target(1, 0.31, "lost"),
            target(2, 0.72, "gained"),
            target(3, 0.12, "lost"),
        ],
    }


@pytest.fixture
def bench_json() -> dict[str, Any]:
    """One model on two runtimes, as `irstd-edge bench` writes it."""
    return {
        "schema": "irstd-edge/bench/1",
        "machine": {
            "cpu": "Test CPU",
            "isa": "x86_64+avx2",
            "threads": 2,
            "gpu": None,
            "board": None,
            "power_mode": None,
            "load": 0.25,
            "fingerprint": "0123456789abcdef",
        },
        "results": [
            {
                "model": "p2p",
                "bundle": "ab" * 32,
                "timed_on": "16 frames of the data, cut or mirrored to 256x256",
                "cost": {
                    "params": 240366,
                    "macs": 1_530_000_000,
                    "gflops": 3.06,
                    "input": [1, 1, 256, 256],
                },
                "variants": [
                    variant("fp32", "onnxruntime", 60.0, 0.9442),
                    variant("int8", "onnxruntime", 40.0, 0.9421),
                    variant("fp32", "openvino", 50.0, 0.9442),
                    variant("int8", "openvino", 20.0, 0.9421),
                ],
                "drift": [drift("onnxruntime"), drift("openvino")],
            }
        ],
    }
