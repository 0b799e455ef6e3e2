"""What TensorRT made of a graph: the precision that each layer runs in, and copies between formats.

Read from the engine inspector, whose words for a type changed with the versions: `Row major Int8
format`, `Channel major FP16 format where channel % 8 == 0`, `Half`, `Float`.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

REFORMAT = "Reformat"
TYPES = (
    ("int8", re.compile("int8", re.IGNORECASE)),
    ("bf16", re.compile("bf16|bfloat16", re.IGNORECASE)),
    ("fp16", re.compile("fp16|half|float16", re.IGNORECASE)),
    ("fp32", re.compile("fp32|float", re.IGNORECASE)),
)
"""In the order of the search: `float` is a part of the others' names."""
UNKNOWN = "other"
"""Indices, shapes, and what the inspector does not tell."""


@dataclass(frozen=True)
class Layer:
    """A step of an engine; TensorRT fuses several nodes of the graph into one."""

    name: str
    kind: str
    """TensorRT's word: CaskConvolution, Reformat, kgen, PointWiseV2, ..."""
    precision: str
    """int8, fp16, fp32, ...: of the weights where it has some, else of what it reads."""

    @property
    def is_reformat(self) -> bool:
        """Whether it only copies a tensor to another layout or type."""
        return self.kind == REFORMAT


def layers_of(text: str) -> tuple[Layer, ...]:
    """Of the inspector's JSON; an engine that was built without details has names alone."""
    layers = json.loads(text).get("Layers", [])
    return tuple(_layer(item) for item in layers)


def report_of(layers: Sequence[Layer]) -> dict[str, Any]:
    """Layers by precision, the copies apart, and each layer: for `compile --json`."""
    work = [layer for layer in layers if not layer.is_reformat]
    return {
        "precisions": dict(Counter(layer.precision for layer in work).most_common()),
        "reformats": len(layers) - len(work),
        "each": [asdict(layer) for layer in layers],
    }


def _layer(item: Mapping[str, Any] | str) -> Layer:
    if isinstance(item, str):
        return Layer(item, "unknown", UNKNOWN)
    return Layer(str(item.get("Name", "")), str(item.get("LayerType", "")), _precision(item))


def _precision(item: Mapping[str, Any]) -> str:
    weights = item.get("Weights")
    told = [str(weights.get("Type", ""))] if isinstance(weights, dict) else []
    told += [_type_of(tensor) for end in ("Inputs", "Outputs") for tensor in item.get(end, [])]
    found = (name for text in told for name, words in TYPES if words.search(text))
    return next(found, UNKNOWN)


def _type_of(tensor: Any) -> str:
    return str(tensor.get("Format/Datatype", "")) if isinstance(tensor, dict) else ""
