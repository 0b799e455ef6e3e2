"""FP32 -> INT8 by NNCF: where to round, and over what range.

NNCF places a quantizer in front of every convolution and calibrates it. Each is then replaced by a
`FakeQuantize`: signed, zero point 0, which exports as the pair of operators that TensorRT and
OpenVINO take, trains without NNCF's extensions, and stays one where several places share it.
"""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from irstd_edge.calibration.fake_quantize import LEVELS, FakeQuantize
from irstd_edge.calibration.float_layers import FLOAT_OPERATORS, float_layers_of
from irstd_edge.edge.quiet import silence_telemetry
from irstd_edge.edge.types import IrstdError

if TYPE_CHECKING:
    from nncf.torch.quantization.layers import SymmetricQuantizer

RECIPE = {
    "tool": "nncf.quantize, preset performance",
    "placement": "convolutions",
    "activations": "int8, zero point 0, a scale per tensor",
    "weights": "int8, zero point 0, a scale per output channel",
    "bias_correction": "fast",
}
"""What every bundle's manifest says of how it was made."""

REDUCED_LEVELS = 63
"""Of weights, for processors that add two products of 8 bit in 16: 2 * 255 * 63 fits, 127 not."""


@dataclass(frozen=True)
class Quantized:
    """A network that rounds as its INT8 graph does."""

    module: nn.Module
    """In evaluation mode; takes and returns what the float network does."""
    float_layers: tuple[tuple[str, str], ...]
    """(layer, reason) of each convolution left in float."""


def quantize(
    module: nn.Module,
    model: str,
    batches: Sequence[Tensor],
    keep_float: Sequence[str] = (),
    reduced_range: bool = False,
) -> Quantized:
    """Quantize a deployed network after training; the one that was given stays as it is.

    batches: (1, 1, H, W) in 0..1 each, on the CPU, of any size. keep_float: patterns of more layers
    to leave in float. reduced_range: round weights to -63..63. Raises IrstdError for a pattern that
    fits no layer, and where none is left.
    """
    module = copy.deepcopy(module).cpu().eval()
    with _quiet_nncf() as nncf:
        nodes = _convolutions(module, batches[0])
        float_layers = float_layers_of(model, list(nodes), keep_float)
        if len(float_layers) == len(nodes):
            raise IrstdError("--keep-float: leaves no layer to quantize; keep fewer in float")
        quantized: nn.Module = nncf.quantize(
            module,
            nncf.Dataset(list(batches)),
            preset=nncf.QuantizationPreset.PERFORMANCE,
            subset_size=len(batches),
            ignored_scope=nncf.IgnoredScope(
                names=[name for layer, _ in float_layers for name in nodes[layer]],
                types=list(FLOAT_OPERATORS),
                validate=False,  # not every network has every operator
            ),
            advanced_parameters=_parameters(nncf),
        )
        _replace_quantizers(quantized, REDUCED_LEVELS if reduced_range else LEVELS)
    return Quantized(quantized.eval(), float_layers)


@contextlib.contextmanager
def _quiet_nncf() -> Iterator[Any]:
    """NNCF without telemetry, without its talk on stdout, and without a compiler."""
    silence_telemetry()
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore", DeprecationWarning)  # of what it uses of torch
        import nncf
        from nncf.torch.quantization import extensions

        nncf.set_log_level(logging.ERROR)
        # In place of the C++ extension that it would compile on first use, which takes a
        # compiler and a minute; calibration calls it a few hundred times.
        extensions.QuantizedFunctionsCPU._loaded_namespace = _PlainFunctions
        yield nncf


class _PlainFunctions:
    """What NNCF's extension for the CPU does, of the functions that calibration calls."""

    @staticmethod
    def Quantize_forward(x: Tensor, low: Tensor, span: Tensor, levels: int) -> Tensor:  # noqa: N802
        """Round to `levels` values, `low` to `low + span`, of which one is zero."""
        scale = (levels - 1) / span
        zero = (-low * scale).round()
        steps = ((x.clamp(low, low + span) - low) * scale - zero).round()
        return steps / scale


def _convolutions(module: nn.Module, example: Tensor) -> dict[str, list[str]]:
    """Layer -> NNCF's name of each place where it is called; layers in the order of the calls."""
    from nncf.torch.function_hook import wrap_model
    from nncf.torch.function_hook.nncf_graph.nncf_graph_builder import build_nncf_graph

    graph = build_nncf_graph(wrap_model(copy.deepcopy(module)), example)
    nodes: dict[str, list[str]] = {}
    for node in graph.get_all_nodes():
        if node.node_type == "conv2d":
            sources = [source.node_name for source in graph.get_previous_nodes(node)]
            weight = next(name for name in sources if name.endswith(".weight"))
            nodes.setdefault(weight.removesuffix(".weight"), []).append(node.node_name)
    return nodes


def _parameters(nncf: Any) -> Any:
    from nncf.quantization import advanced_parameters, range_estimator

    return advanced_parameters.AdvancedQuantizationParameters(
        overflow_fix=advanced_parameters.OverflowFix.DISABLE,
        # A scale per channel of an activation, its choice for depthwise, is TensorRT's refusal.
        activations_quantization_params=advanced_parameters.QuantizationParameters(
            per_channel=False
        ),
        # Its choice, the mean over frames, clips what stands out: the targets.
        activations_range_estimator_params=range_estimator.RangeEstimatorParametersSet.MINMAX,
    )


def _replace_quantizers(module: nn.Module, weight_levels: int) -> None:
    """Put a `FakeQuantize` into every slot, one for all slots that share a quantizer."""
    from nncf.torch.quantization.layers import SymmetricQuantizer

    made: dict[SymmetricQuantizer, FakeQuantize] = {}
    slots = [slot for slot in module.modules() if isinstance(slot, nn.ModuleDict)]
    for slot in slots:
        for key, quantizer in slot.items():
            if isinstance(quantizer, SymmetricQuantizer):
                if quantizer not in made:
                    made[quantizer] = _fake_quantize(quantizer, weight_levels)
                slot[key] = made[quantizer]


def _fake_quantize(quantizer: SymmetricQuantizer, weight_levels: int) -> FakeQuantize:
    """Of NNCF's scale, which is the end of the range, signed whatever it was."""
    limit = quantizer.scale
    if not quantizer.per_channel:
        return FakeQuantize(limit.reshape(()), never_negative=not quantizer.signed)
    axis = max(range(limit.ndim), key=lambda index: limit.shape[index])
    # Weights alone have a scale per channel.
    return FakeQuantize(limit.reshape(-1), axis, levels=weight_levels)
