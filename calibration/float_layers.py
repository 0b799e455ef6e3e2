"""What stays in float, and why. The reasons travel in the bundle's manifest."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from irstd_edge.edge.types import IrstdError

FIRST = "sees the frame: 127 steps of 8 bit would round faint targets away"
GATE = "one value a pixel: INT8 gains nothing, and an error there touches every channel"
ATTENTION = "one value a channel: next to no work, and an error there touches the whole frame"
HEAD = "its output is the decision and the position: next to no work"

FLOAT_LAYERS: dict[str, tuple[tuple[str, str], ...]] = {
    "p2p": (
        ("stem", FIRST),
        ("*.attention.*", ATTENTION),
        ("fuse*.reduce", ATTENTION),
        ("fuse*.expand", ATTENTION),
        ("head.heatmap", HEAD),
        ("head.geometry", HEAD),
    ),
    "mshnet": (
        ("conv_init", FIRST),
        ("*.ca.*", ATTENTION),
        ("*.sa.*", GATE),
        ("encoder_0.0.conv1", FIRST),
        ("encoder_0.0.shortcut", FIRST),
        ("output_?", HEAD),
        ("final", HEAD),
    ),
}
"""Network -> (pattern of layer names, reason)."""

FLOAT_OPERATORS = (
    "add", "amax", "cat", "interpolate", "max_pool2d", "mean", "mul", "pad", "sigmoid",
    "softmax", "stack", "unbind",
)  # fmt: skip
"""NNCF's names of what is left in float besides. On NUDT-SIRST frames, rounding their inputs too
cost p2p 2 to 4 times, MSHNet 10 times the error of logits, and no runtime ran faster for it."""


def float_layers_of(
    model: str, layers: Sequence[str], keep_float: Sequence[str] = ()
) -> tuple[tuple[str, str], ...]:
    """(layer, reason) of each layer to leave in float, in the network's order.

    keep_float: patterns of the user, `decoder_0.*`. Raises IrstdError for one that fits no layer.
    """
    for pattern in keep_float:
        if not any(fnmatchcase(layer, pattern) for layer in layers):
            raise IrstdError(
                f"--keep-float: {pattern!r} fits no layer of {model}; some of them: "
                f"{', '.join(layers[:: max(1, len(layers) // 5)])}"
            )
    rules = (*FLOAT_LAYERS.get(model, ()), *((pattern, "--keep-float") for pattern in keep_float))
    reasons = ((layer, _reason(layer, rules)) for layer in layers)
    return tuple((layer, reason) for layer, reason in reasons if reason is not None)


def _reason(layer: str, rules: Sequence[tuple[str, str]]) -> str | None:
    return next((reason for pattern, reason in rules if fnmatchcase(layer, pattern)), None)
