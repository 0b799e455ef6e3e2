"""A deployed network as an ONNX graph that every runtime of ours reads."""

from __future__ import annotations

import io
import warnings
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from irstd_edge.edge.detect import OUTPUTS
from irstd_edge.edge.runtimes import INPUT
from irstd_edge.edge.types import ModelSpec
from irstd_edge.models.onnx_fold import fold_constants

if TYPE_CHECKING:
    import onnx

OPSET = 17
"""Read by every TensorRT since 8.6 and every ONNX Runtime since 1.12."""


def onnx_from_torch(module: nn.Module, spec: ModelSpec, opset: int = OPSET) -> bytes:
    """Export what `deploy()` returned; equal modules give equal bytes.

    The graph takes `frame` (N, 1, H, W) float32 in 0..1 with N, H and W free (H and W multiples
    of the stride), and gives `detect.OUTPUTS`. It holds nothing of the machine that wrote it.
    Raises ValueError for a module in training mode: its normalisation would be exported as such.
    """
    import onnx

    if module.training:
        raise ValueError("export: call eval() on the module first")
    model = onnx.load_from_string(_exported(module, spec, opset))
    _strip(model)
    fold_constants(model)
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString(deterministic=True))


def _exported(module: nn.Module, spec: ModelSpec, opset: int) -> bytes:
    outputs = OUTPUTS[spec.decode.kind]
    device = next(module.parameters()).device
    example = torch.zeros(1, 1, 4 * spec.input.stride, 4 * spec.input.stride, device=device)
    file: Any = io.BytesIO()  # which it takes, and its signature does not say
    with warnings.catch_warnings(), torch.no_grad():
        # The newer exporter writes more than the runtimes on a device read; this one says that
        # it will go, and what it does not fold (`fold_constants` does).
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        warnings.filterwarnings("ignore", message="Constant folding")
        torch.onnx.export(
            module,
            (example,),
            file,
            dynamo=False,
            opset_version=opset,
            input_names=[INPUT],
            output_names=list(outputs),
            dynamic_axes={INPUT: _free(""), **{name: _free(f"_{name}") for name in outputs}},
        )
    return bytes(file.getvalue())


def _free(suffix: str) -> dict[int, str]:
    """Names of the axes that a caller chooses; an output's rows and columns follow from them."""
    return {0: "N", 2: f"H{suffix}", 3: f"W{suffix}"}


def _strip(model: onnx.ModelProto) -> None:
    """Remove stack traces and file names, which would differ from machine to machine."""
    model.doc_string = ""
    model.graph.doc_string = ""
    model.graph.name = "irstd-edge"
    del model.metadata_props[:]
    for node in model.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    del model.graph.value_info[:]  # shapes of the example, in part
