"""A bench.json to test with: complete, valid, and made of parts that a test may change."""

from types import SimpleNamespace
from typing import Any

import pytest
from gate_benches import FOUND, MATCHED, TARGETS, Change, Make, figures

Json = dict[str, Any]
NOISE = "noisy: the middle half of the times spreads over 13% of p50"


def accuracy(**changes: Any) -> Json:
    """Of a point detector; all four targets are found."""
    return {
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
        "f1_3px": 0.9442,
        "f1_5px": 0.9442,
        "position_px": 0.4,
        "undefined": [],
        **changes,
    }


def variant(name: str, runtime: str = "onnxruntime", p50: float = 50.0, **changes: Any) -> Json:
    """Measured on the processor."""
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
        "accuracy": accuracy(),
        "infer_ms": [p50, p50, 1.2 * p50, 1.5 * p50],
        "weak": ["p99 of 4 samples, 100 are needed"],
        **changes,
    }


def target(index: int = 0, flip: str | None = None, **changes: Any) -> Json:
    """Found by both variants unless it was lost or gained."""
    return {
        "image": f"frame{index}",
        "row": 10.0 + index,
        "col": 20.5,
        "area_px": 4 * index + 1,
        "scr": 0.8 * index,
        "score_reference": 0.4 if flip == "gained" else 0.9,
        "score_candidate": 0.3 if flip == "lost" else 0.9,
        "matched_reference": flip != "gained",
        "matched_candidate": flip != "lost",
        "flip": flip,
        **changes,
    }


def drift(targets: list[Json], runtime: str = "onnxruntime", **changes: Any) -> Json:
    """Of INT8 against FP32, points; nothing changed but the targets that flipped."""
    return {
        "reference": "fp32",
        "candidate": "int8",
        "runtime": runtime,
        **dict.fromkeys(("iou", "niou")),
        **dict.fromkeys(("pd", "fa_per_mpx", "f1_3px", "f1_5px"), 0.0),
        "targets_lost": sum(each["flip"] == "lost" for each in targets),
        "targets_gained": sum(each["flip"] == "gained" for each in targets),
        "false_alarms_gained": 0,
        "p_value": 1.0,
        "ci95": [0.0, 0.0],
        "targets": targets,
        **changes,
    }


def equal_fa(change: float = 0.0, **changes: Any) -> Json:
    """An entry of `pd_at_fa`: at FP32's own false alarms, INT8 at a lower threshold."""
    return {
        "fa_per_mpx": 1.25,
        "own": True,
        "pd_reference": 0.9947,
        "pd_candidate": 0.9947 + change,
        "threshold_reference": 0.5,
        "threshold_candidate": 0.450166,
        "ci95": [min(change, 0.0) - 0.004, 0.004],
        **changes,
    }


def curve(found: float = 0.99) -> Json:
    """Of three thresholds and 1, as an `accuracy` object holds it."""
    return {
        "threshold": [0.1, 0.5, 0.9, 1.0],
        "precision_3px": [0.6, 0.9, 0.98, None],
        "recall_3px": [1.0, found, 0.8, 0.0],
        "pd": [1.0, found, 0.8, 0.0],
        "fa_per_mpx": [40.0, 1.25, 0.3, 0.0],
    }


def pace(missed: int = 0) -> Json:
    """Frames at 50 Hz, all detected in."""
    counts = {"arrived": 4, "detected": 4, "missed": missed, "dropped": 0, "queued": 0}
    ages = {"age_ms": {"p50": 12.0, "p99": 30.0}, "ages_ms": [12.0, 12.0, 12.0, 30.0]}
    return {"rate_hz": 50.0, **counts, **ages}


def bench(model: str, variants: list[Json], drifts: list[Json]) -> Json:
    """One model on one machine."""
    cost = {"params": 240366, "macs": 1_530_000_000, "gflops": 3.06, "input": [1, 1, 256, 256]}
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
                "model": model,
                "bundle": "ab" * 32,
                "timed_on": "16 frames of the data, cut or mirrored to 256x256",
                "cost": cost,
                "variants": variants,
                "drift": drifts,
            }
        ],
    }


@pytest.fixture
def make() -> SimpleNamespace:
    """The parts of a bench.json; keyword arguments replace their fields."""
    parts = (accuracy, variant, target, drift, equal_fa, curve, pace, bench)
    return SimpleNamespace(**{part.__name__: part for part in parts})


@pytest.fixture
def bench_json() -> Json:
    """One model on two runtimes, as `irstd-edge bench` writes it."""
    worse = accuracy(f1_3px=0.9421, f1_5px=0.9421)
    noisy = [NOISE, "p99 of 4 samples, 100 are needed"]
    variants = [
        variant("fp32", "onnxruntime", 60.0),
        variant("int8", "onnxruntime", 40.0, accuracy=dict(worse)),
        variant("fp32", "openvino", 50.0),
        variant("int8", "openvino", 20.0, accuracy=dict(worse), weak=noisy),
    ]
    return bench("p2p", variants, [_worse("onnxruntime"), _worse("openvino")])


@pytest.fixture
def noise() -> Json:
    """What `bench --noise 0.5` adds to a result of points."""
    counts = {"targets": 945, "targets_lost": 1, "targets_gained": 2, "false_alarms_gained": 0}
    changes = dict.fromkeys(("iou", "niou", "ci95_of")) | dict.fromkeys(("pd", "p_value"), 0.0)
    changes |= {"f1_3px": -0.0005, "f1_5px": -0.0005, "fa_per_mpx": 0.02, "position_px": 0.001}
    who = {"variant": "fp32", "runtime": "onnxruntime", "counts": 0.5, "score_error": 0.0037}
    return {**who, **counts, **changes}


def _worse(runtime: str) -> Json:
    targets = [
        target(0, score_candidate=0.91),
        target(1, "lost", score_candidate=0.31),
        target(2, "gained", score_candidate=0.72),
        target(3, "lost", score_candidate=0.12),
    ]
    changes = {"pd": -0.0106, "fa_per_mpx": 0.5, "f1_3px": -0.0021, "f1_5px": -0.0021}
    figures = {"false_alarms_gained": 3, "ci95": [-0.01, 0.004]}
    return drift(targets, runtime, **changes, **figures)


@pytest.fixture
def make_bench(make: SimpleNamespace) -> Make:
    """`make_bench(model, change)`: masks of mshnet, or points of p2p, that INT8 keeps as they are.

    FP32 and INT8 both find 940 of 945 targets; `change` is applied to the bench.
    """

    def made(model: str = "mshnet", change: Change | None = None) -> Json:
        masked = model == "mshnet"
        variants = [
            make.variant("fp32", fps=10.0, accuracy=make.accuracy(**figures(masked))),
            make.variant("int8", fps=29.0, accuracy=make.accuracy(**figures(masked))),
        ]
        targets = [make.target(k, **dict.fromkeys(MATCHED, k < FOUND)) for k in range(TARGETS)]
        areas = dict.fromkeys(("iou", "niou"), 0.0) if masked else {}
        bench: Json = make.bench(model, variants, [make.drift(targets, **areas)])
        if change is not None:
            change(bench)
        return bench

    return made
