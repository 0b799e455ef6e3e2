"""What the gate reads of a bench.json: checked, typed, and named where it is wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from irstd_edge.benchmarks.accuracy import METRICS
from irstd_edge.benchmarks.equal_fa import own_entry
from irstd_edge.benchmarks.lost_by_range import LostByRange, lost_by_range
from irstd_edge.benchmarks.schema import check_bench
from irstd_edge.benchmarks.verdict import named

DIFFERENCES = ("iou", "f1_3px", "fa_per_mpx", "position_px")
"""The differences of a drift entry that the gate judges; earlier files lack the last."""
MEASURED = ("fps", "fps_end_to_end", "memory_mb", "joule_per_frame")
"""Costs that stand in a variant itself."""


@dataclass(frozen=True)
class Accuracy:
    """An `accuracy` object."""

    protocol: str
    images: int
    targets: int
    metrics: Mapping[str, float | None]
    undefined: tuple[str, ...]
    frames: str | None = None
    """SHA-256 of their names, sizes and targets; None in a file without it."""
    threshold: float | None = None
    curve: tuple[tuple[float, float, float | None], ...] = ()
    """(threshold, false alarms per Mpx, Pd); empty in a file without it."""

    @property
    def found(self) -> int | None:
        """Targets found: Pd, or the recall of points, is that number over all targets."""
        pd = self.metrics["pd"]
        share = self.metrics["recall_3px"] if pd is None else pd
        return None if share is None else round(share * self.targets)

    def same_frames(self, other: Accuracy) -> bool:
        """By counts alone where a file does not tell what its frames are."""
        mine = (self.protocol, self.images, self.targets)
        if mine != (other.protocol, other.images, other.targets):
            return False
        return None in (self.frames, other.frames) or self.frames == other.frames


@dataclass(frozen=True)
class Variant:
    """An entry of `variants`."""

    name: str
    runtime: str
    device: str
    measured: bool
    costs: Mapping[str, float | None]
    """By the names of `limits.COSTS`; None where one was not measured."""
    accuracy: Accuracy | None
    infer_ms: tuple[float, ...] = ()
    """Raw times, empty in a file without them; index i of every variant is of the same round."""
    batch: int = 1
    """Frames of each timed call."""
    runtime_version: str | None = None
    """None in a file that does not say."""

    @property
    def fps(self) -> float | None:
        """Frames a second of the inference alone."""
        return self.costs["fps"]

    def figure(self, name: str) -> float | None:
        """What it costs, or a figure of its accuracy; None where there is none."""
        if name in self.costs:
            return self.costs[name]
        if self.accuracy is None or name in self.accuracy.undefined:
            return None
        if name in ("images", "targets"):
            return self.accuracy.images if name == "images" else self.accuracy.targets
        return self.accuracy.metrics[name]


@dataclass(frozen=True)
class TargetRow:
    """An entry of a drift's `targets`."""

    place: tuple[str, float, float]
    """image, row, col"""
    area_px: float | None
    scr: float | None
    flip: str | None
    matched_reference: bool | None
    """None in a file that does not say."""
    matched_candidate: bool | None


@dataclass(frozen=True)
class EqualFa:
    """Pd of both sides at the false alarms that the reference has at its own threshold."""

    fa_per_mpx: float
    pd_reference: float
    pd_candidate: float


@dataclass(frozen=True)
class Drift:
    """An entry of `drift`."""

    reference: str
    candidate: str
    runtime: str
    """Of the candidate."""
    reference_runtime: str
    """The same, but where the bench has no reference on it."""
    changes: Mapping[str, float | None]
    """`DIFFERENCES`, candidate - reference."""
    targets_lost: int
    targets_gained: int
    targets: tuple[TargetRow, ...]
    at_own_fa: EqualFa | None
    """None in a file that does not say."""
    lost: LostByRange

    @property
    def is_across(self) -> bool:
        """Whether the reference ran on another runtime than the candidate."""
        return self.reference_runtime != self.runtime


@dataclass(frozen=True)
class Result:
    """One bundle of a bench."""

    model: str
    variants: tuple[Variant, ...]
    drifts: tuple[Drift, ...]
    input: tuple[float, ...]
    """Shape of the tensor that was timed."""
    place: int | None = None
    """Among the bundles of its model, from 1; None where it is the only one."""
    bundle: str | None = None
    """SHA-256 of the bundle; None in a file that does not say."""

    @property
    def measured(self) -> tuple[Variant, ...]:
        """Its variants, without projections."""
        return tuple(variant for variant in self.variants if variant.measured)

    def find(self, name: str, runtime: str) -> Variant | None:
        """The measured variant of that name, or None."""
        named = (v for v in self.measured if (v.name, v.runtime) == (name, runtime))
        return next(named, None)

    def like(self, other: Variant) -> Variant | None:
        """The measured variant of the same name, runtime and device, or None."""
        wanted = (other.name, other.runtime, other.device)
        return next((v for v in self.measured if (v.name, v.runtime, v.device) == wanted), None)


@dataclass(frozen=True)
class Bench:
    """A bench.json."""

    fingerprint: str | None
    """Of the machine; figures of speed compare only where it is the same."""
    results: tuple[Result, ...]
    clocks_locked: bool | None = None
    """Of a Jetson; None where it does not apply or is not told."""

    def same_machine(self, other: Bench) -> bool:
        """Only where both name it."""
        return self.fingerprint is not None and self.fingerprint == other.fingerprint

    def of(self, model: str) -> list[Result]:
        """Its results of a model, in their order."""
        return [each for each in self.results if each.model == model]


def bench_from_json(value: object, what: str = "BENCH.json") -> Bench:
    """Check and type a parsed bench.json; IrstdError names the field that is wrong."""
    root = check_bench(value, what)
    return Bench(
        fingerprint=root["machine"]["fingerprint"],
        clocks_locked=root["machine"].get("clocks_locked"),
        results=tuple(
            _result(item, _place(root["results"], at)) for at, item in enumerate(root["results"])
        ),
    )


def told_apart(results: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The results of a bench.json, to show: bundles of one model are numbered, as in a verdict."""
    return [
        {**result, "model": named(result["model"], _place(results, at))}
        for at, result in enumerate(results)
    ]


def _place(items: Sequence[Mapping[str, Any]], at: int) -> int | None:
    models = [item["model"] for item in items]
    many = models.count(models[at]) > 1
    return models[: at + 1].count(models[at]) if many else None


def _result(item: Mapping[str, Any], place: int | None) -> Result:
    return Result(
        model=item["model"],
        variants=tuple(_variant(each) for each in item["variants"]),
        drifts=tuple(_drift(each) for each in item["drift"]),
        input=tuple(item["cost"]["input"]),
        place=place,
        bundle=item.get("bundle"),
    )


def _variant(item: Mapping[str, Any]) -> Variant:
    accuracy = item["accuracy"]
    return Variant(
        name=item["name"],
        runtime=item["runtime"],
        device=item["device"],
        measured=item["measured"],
        costs=_costs(item),
        accuracy=None if accuracy is None else _accuracy(accuracy),
        infer_ms=tuple(item.get("infer_ms") or ()),
        batch=item.get("batch") or 1,
        runtime_version=item.get("runtime_version"),
    )


def _costs(item: Mapping[str, Any]) -> dict[str, float | None]:
    return {
        **{name: item[name] for name in MEASURED},
        "p99_ms": (item["latency_ms"] or {}).get("p99"),
        "missed": (item.get("pace") or {}).get("missed"),
    }


def _accuracy(item: Mapping[str, Any]) -> Accuracy:
    return Accuracy(
        protocol=item["protocol"],
        images=item["images"],
        targets=item["targets"],
        metrics={name: item.get(name) for name in METRICS},
        undefined=tuple(item["undefined"]),
        frames=item.get("frames_sha256"),
        threshold=item.get("threshold"),
        curve=_curve(item.get("curve")),
    )


def _curve(item: Mapping[str, Any] | None) -> tuple[tuple[float, float, float | None], ...]:
    names = ("threshold", "fa_per_mpx", "pd")
    return tuple(zip(*(item[name] for name in names), strict=False)) if item else ()


def _drift(item: Mapping[str, Any]) -> Drift:
    return Drift(
        reference=item["reference"],
        candidate=item["candidate"],
        runtime=item["runtime"],
        reference_runtime=item.get("reference_runtime") or item["runtime"],
        changes={name: item.get(name) for name in DIFFERENCES},
        targets_lost=item["targets_lost"],
        targets_gained=item["targets_gained"],
        targets=tuple(_target(each) for each in item["targets"]),
        at_own_fa=_at_own_fa(item),
        lost=lost_by_range(item["targets"]),
    )


def _at_own_fa(item: Mapping[str, Any]) -> EqualFa | None:
    own = own_entry(item)
    if own is None:
        return None
    return EqualFa(own["fa_per_mpx"], own["pd_reference"], own["pd_candidate"])


def _target(item: Mapping[str, Any]) -> TargetRow:
    return TargetRow(
        place=(item["image"], item["row"], item["col"]),
        area_px=item["area_px"],
        scr=item["scr"],
        flip=item["flip"],
        matched_reference=item.get("matched_reference"),
        matched_candidate=item.get("matched_candidate"),
    )
