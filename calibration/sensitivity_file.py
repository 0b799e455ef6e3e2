"""What each layer of a bundle costs, kept in a file that a stopped run goes on from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from irstd_edge.benchmarks.schema import SENSITIVITY
from irstd_edge.calibration.sensitivity import LayerError, layer_error_of, sensitivity
from irstd_edge.edge.bundle import VARIANTS, Bundle
from irstd_edge.edge.dataset import digest_of, open_dataset
from irstd_edge.edge.files import read_bytes
from irstd_edge.edge.graph_file import refuse_graph
from irstd_edge.edge.json_files import read_json, write_json
from irstd_edge.edge.types import IrstdError, Progress, Sample, Skip


def sensitivity_to_file(
    bundle: Bundle, data: Path, out: Path, progress: Progress = lambda *_: None
) -> tuple[tuple[LayerError, ...], tuple[Skip, ...]]:
    """Measure every layer on the held-out frames of `data`, and write `out` after each.

    Where `out` holds a part of the same bundle's layers on the same frames, they are not measured
    again. Returns the frames that cannot be used too. Raises IrstdError where `out` holds anything
    else, or no frame is held out.
    """
    held_out = list(open_dataset(data, "val").samples())
    samples = [sample for sample in held_out if isinstance(sample, Sample)]
    skips = tuple(sample for sample in held_out if isinstance(sample, Skip))
    subject = {
        "schema": SENSITIVITY,
        "bundle": bundle.sha256,
        "frames": digest_of(samples),
        "skipped": [asdict(skip) for skip in skips],
    }
    known = {error.layer: error for error in _known(out, subject)}
    done = list(known.values())

    def keep(error: LayerError) -> None:
        done.append(error)
        write_json(out, _record(subject, done))

    errors = sensitivity(
        _graph(bundle, "fp32"),
        _graph(bundle, "int8"),
        bundle.manifest.model,
        samples,
        known=known,
        keep=keep,
        progress=progress,
    )
    write_json(out, _record(subject, errors))
    return errors, skips


def _graph(bundle: Bundle, variant: str) -> bytes:
    path = bundle.path / VARIANTS[variant]
    refuse_graph(path)
    return read_bytes(path)


def _record(subject: Mapping[str, Any], errors: Any) -> dict[str, Any]:
    return {**subject, "layers": [error.record() for error in errors]}


def _known(path: Path, subject: Mapping[str, Any]) -> list[LayerError]:
    if not path.exists():
        return []
    value = read_json(path, "what each layer costs")
    if not isinstance(value, dict) or value.get("schema") != SENSITIVITY:
        raise IrstdError(f"{path}: holds something else: choose another --out")
    for what, words in (("bundle", "another bundle"), ("frames", "other frames")):
        if value.get(what) != subject[what]:
            raise IrstdError(f"{path}: is of {words}: choose another --out")
    try:
        return [layer_error_of(record) for record in value["layers"]]
    except (IrstdError, KeyError, TypeError, ValueError) as error:
        raise IrstdError(f"{path}: its layers cannot be read: remove it to start again") from error
