"""A float network -> TensorRT engine, by Torch-TensorRT's dynamo: an engine that needs no torch.

The weights are those of a bundle's fp32.onnx, so the engine answers for the very graph that
`engine_from_onnx` would build, and the same runner, golden frames and bench serve both.
"""

from __future__ import annotations

import time
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from irstd_edge.edge.engine_from_onnx import INSTALLS, Engine
from irstd_edge.edge.engine_plan import EnginePlan
from irstd_edge.edge.gpu import cuda_refusal, this_gpu
from irstd_edge.edge.runtimes import INPUT
from irstd_edge.edge.types import IrstdError, MachineError, ModelSpec
from irstd_edge.models.mshnet import MSHNet
from irstd_edge.models.weights import network_of

NAME = "torch-tensorrt"
MODULES = ("torch_tensorrt", "tensorrt")
PARAMETERS = (".weight", ".bias", ".gain")
"""How the names of a network's parameters end, in a graph too."""


class Framed(nn.Module):
    """A deployed network whose input has the name that every graph gives it."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, frame: Tensor) -> tuple[Tensor, ...]:
        """(N, 1, H, W) in 0..1 -> the outputs, in the order of `detect.OUTPUTS`."""
        found = self.net(frame)
        return tuple(found) if isinstance(found, tuple | list) else (found,)


def engine_from_torch(
    graph: Path,
    spec: ModelSpec,
    plan: EnginePlan,
    timings: bytes = b"",
    outputs: tuple[str, ...] | None = None,
) -> Engine:
    """Build an engine of a bundle's float network.

    The arguments are those of `engine_from_onnx`; of `outputs` only None is possible.

    Raises:
        IrstdError: the graph holds other weights than its network, or TensorRT refuses a part.
        MachineError: Torch-TensorRT, TensorRT or the GPU is missing here.
    """
    if outputs is not None:
        raise IrstdError("--with-decode: torch-tensorrt builds the network alone: leave it out")
    compiler, version = _library()
    program = exported(module_of(graph, spec).cuda(), plan, spec.input.stride)
    low, best, high = plan.shapes(spec.input.stride)
    with TemporaryDirectory(prefix="irstd-edge-") as folder:
        cache = Path(folder, "timings")
        if timings:
            cache.write_bytes(timings)
        start = time.perf_counter()
        try:
            data = compiler.dynamo.convert_exported_program_to_serialized_trt_engine(
                program,
                arg_inputs=[
                    compiler.Input(
                        min_shape=low, opt_shape=best, max_shape=high, dtype=torch.float32
                    )
                ],
                require_full_compilation=True,
                timing_cache_path=str(cache),
            )
        except Exception as error:  # of many kinds, and this one line is all that they share
            reason = " ".join(str(error).split())
            raise IrstdError(f"{graph}: torch-tensorrt cannot build it ({reason:.300})") from error
        build_s = time.perf_counter() - start
        kept = cache.read_bytes() if cache.is_file() else b""
    return Engine(bytes(data), version, build_s, timings=kept)


def _library() -> tuple[Any, str]:
    """Torch-TensorRT, and the version of TensorRT, which alone can load what it builds."""
    for module in MODULES:
        if find_spec(module) is None:
            raise MachineError(f"{NAME}: {module} is not installed: {INSTALLS[NAME]}")
    if this_gpu() is None:
        none = "no usable NVIDIA GPU here: run it on the device"
        raise MachineError(f"{NAME}: {cuda_refusal() or none}")
    return import_module(MODULES[0]), str(import_module(MODULES[1]).__version__)


def module_of(graph: Path, spec: ModelSpec) -> Framed:
    """The deployed network with the weights of its float graph. Raises IrstdError."""
    import onnx
    from onnx import numpy_helper

    stored = {
        item.name: torch.from_numpy(numpy_helper.to_array(item).copy())
        for item in onnx.load(graph, load_external_data=False).graph.initializer
    }
    net = network_of(spec.name, stored).eval().deploy()
    if isinstance(net, MSHNet) and any(name.endswith(".gain") for name in stored):
        net.free_scales()  # gives it the gains that an equalised graph has
    wanted = net.state_dict()
    wrong = [n for n, t in wanted.items() if n not in stored or stored[n].shape != t.shape]
    if wrong:
        raise IrstdError(f"{graph}: is no graph of {spec.name}: it lacks {wrong[0]}: quantize it")
    more = [n for n in stored if n.endswith(PARAMETERS) and n not in wanted]
    if more:
        raise IrstdError(f"{graph}: is no graph of {spec.name}: it has {more[0]}: quantize it")
    net.load_state_dict({name: stored[name] for name in wanted})
    return Framed(net).eval()


def exported(module: nn.Module, plan: EnginePlan, stride: int) -> torch.export.ExportedProgram:
    """The network as torch.export writes it, for all shapes of the plan."""
    low, best, high = plan.shapes(stride)
    free: dict[int, Any] = {}
    example = list(best)
    if high[0] > 1:  # torch takes an example of 1 for a constant
        free[0], example[0] = torch.export.Dim("N", min=1, max=high[0]), 2
    for axis, name in ((2, "h"), (3, "w")):
        if low[axis] != high[axis]:
            steps = torch.export.Dim(name, min=low[axis] // stride, max=high[axis] // stride)
            free[axis] = stride * steps
    device = next(module.parameters()).device
    frame = torch.zeros(example, device=device)
    with torch.no_grad():
        return torch.export.export(module, (frame,), dynamic_shapes={INPUT: free or None})
