"""What the gate reads of a bench.json: checked, typed, and named where it is wrong."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from irstd_edge.benchmarks.accuracy import METRICS
from irstd_edge.benchmarks.schema import SCHEMA
from irstd_edge.edge.types import IrstdError

DIFFERENCES = ("iou", "f1_3px", "fa_per_mpx")
"""The differences of a drift entry that the gate judges."""


@dataclass(frozen=True)
class Accuracy:
    """An `accuracy` object."""

    protocol: str
    images: int
    targets: int
    metrics: Mapping[str, float | None]
    undefined: tuple[str, ...]

    @property
    def found(self) -> int | None:
        """Targets found: Pd is that number over all targets."""
        pd = self.metrics["pd"]
        return None if pd is None else round(pd * self.targets)

    def same_frames(self, other: Accuracy) -> bool:
        """As far as counts tell; the lists of targets tell more."""
        mine = (self.protocol, self.images, self.targets)
        return mine == (other.protocol, other.images, other.targets)


@dataclass(frozen=True)
class Variant:
    """An entry of `variants`."""

    name: str
    runtime: str
    device: str | None
    measured: bool
    fps: float | None
    accuracy: Accuracy | None

    def figure(self, name: str) -> float | None:
        """Its speed, or a figure of its accuracy; None where there is none."""
        if name == "fps":
            return self.fps
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
class Drift:
    """An entry of `drift`."""

    reference: str
    candidate: str
    runtime: str
    changes: Mapping[str, float | None]
    """`DIFFERENCES`, candidate - reference."""
    targets_lost: int
    targets_gained: int
    targets: tuple[TargetRow, ...]


@dataclass(frozen=True)
class Result:
    """One model of a bench."""

    model: str
    variants: tuple[Variant, ...]
    drifts: tuple[Drift, ...]

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

    def same_machine(self, other: Bench) -> bool:
        """Only where both name it."""
        return self.fingerprint is not None and self.fingerprint == other.fingerprint

    def counterpart(self, other: Bench, result: Result) -> Result | None:
        """The result of the same model here; where a bench has several, the one in its place."""
        rank = [each for each in other.results if each.model == result.model].index(result)
        mine = [each for each in self.results if each.model == result.model]
        return mine[rank] if rank < len(mine) else None


def bench_from_json(value: object, what: str = "BENCH.json") -> Bench:
    """Check and type a parsed bench.json; IrstdError names the field that is wrong."""
    root = _Node(value, what)
    schema = root.get("schema").value
    if schema != SCHEMA:
        raise IrstdError(
            f"{what}: schema {schema!r} is not {SCHEMA!r}; give a file that bench --json wrote"
        )
    fingerprint = root.at("machine").get("fingerprint")
    return Bench(
        fingerprint=None if fingerprint.value is None else fingerprint.text(),
        results=tuple(_result(node) for node in root.at("results").items()),
    )


@dataclass(frozen=True)
class _Node:
    """A JSON value and where it stands."""

    value: object
    where: str

    def _wrong(self, kind: str) -> IrstdError:
        return IrstdError(f"{self.where} is not {kind}; write the file anew with bench --json")

    def get(self, key: str) -> _Node:
        """A field, null where it is missing."""
        if not isinstance(self.value, dict):
            raise self._wrong("an object")
        joint = "." if ": " in self.where else ": "
        return _Node(self.value.get(key), f"{self.where}{joint}{key}")

    def at(self, key: str) -> _Node:
        """A field that has to be there."""
        field = self.get(key)
        if isinstance(self.value, dict) and key not in self.value:
            raise IrstdError(f"{field.where} is missing; write the file anew with bench --json")
        return field

    def items(self) -> list[_Node]:
        if not isinstance(self.value, list):
            raise self._wrong("a list")
        return [_Node(item, f"{self.where}[{k}]") for k, item in enumerate(self.value)]

    def text(self) -> str:
        if not isinstance(self.value, str):
            raise self._wrong("a text")
        return self.value

    def number(self) -> float:
        if isinstance(self.value, bool) or not isinstance(self.value, int | float):
            raise self._wrong("a number")
        if not math.isfinite(self.value):
            raise self._wrong("a finite number")
        return self.value

    def count(self) -> int:
        if isinstance(self.value, bool) or not isinstance(self.value, int) or self.value < 0:
            raise self._wrong("a count")
        return self.value

    def flag(self) -> bool:
        if not isinstance(self.value, bool):
            raise self._wrong("true or false")
        return self.value

    def optional_text(self) -> str | None:
        return None if self.value is None else self.text()

    def optional_number(self) -> float | None:
        return None if self.value is None else self.number()

    def optional_flag(self) -> bool | None:
        return None if self.value is None else self.flag()


def _result(node: _Node) -> Result:
    return Result(
        model=node.at("model").text(),
        variants=tuple(_variant(each) for each in node.at("variants").items()),
        drifts=tuple(_drift(each) for each in node.at("drift").items()),
    )


def _variant(node: _Node) -> Variant:
    accuracy = node.at("accuracy")
    return Variant(
        name=node.at("name").text(),
        runtime=node.at("runtime").text(),
        device=node.get("device").optional_text(),
        measured=node.at("measured").flag(),
        fps=node.at("fps").optional_number(),
        accuracy=None if accuracy.value is None else _accuracy(accuracy),
    )


def _accuracy(node: _Node) -> Accuracy:
    return Accuracy(
        protocol=node.at("protocol").text(),
        images=node.at("images").count(),
        targets=node.at("targets").count(),
        metrics={name: node.at(name).optional_number() for name in METRICS},
        undefined=tuple(each.text() for each in node.at("undefined").items()),
    )


def _drift(node: _Node) -> Drift:
    return Drift(
        reference=node.at("reference").text(),
        candidate=node.at("candidate").text(),
        runtime=node.at("runtime").text(),
        changes={name: node.at(name).optional_number() for name in DIFFERENCES},
        targets_lost=node.at("targets_lost").count(),
        targets_gained=node.at("targets_gained").count(),
        targets=tuple(_target(each) for each in node.at("targets").items()),
    )


def _target(node: _Node) -> TargetRow:
    return TargetRow(
        place=(node.at("image").text(), node.at("row").number(), node.at("col").number()),
        area_px=node.get("area_px").optional_number(),
        scr=node.get("scr").optional_number(),
        flip=node.at("flip").optional_text(),
        matched_reference=node.get("matched_reference").optional_flag(),
        matched_candidate=node.get("matched_candidate").optional_flag(),
    )
