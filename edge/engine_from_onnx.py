"""ONNX graph -> TensorRT engine, through Polygraphy: one way for TensorRT and TensorRT-RTX.

Graphs are explicitly typed: what is INT8 or FP16 is written in them, and nothing else may become
so. TensorRT builds for the GPU it runs on; TensorRT-RTX builds for any it knows, without one.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from irstd_edge.edge.detect import OUTPUTS
from irstd_edge.edge.gpu import this_gpu
from irstd_edge.edge.graph_file import refuse_graph
from irstd_edge.edge.runtimes import INPUT
from irstd_edge.edge.types import IrstdError, MachineError, ModelSpec

BACKENDS = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
"""Name -> the Python module."""
INSTALLS = {
    "tensorrt": "on a Jetson it comes with JetPack (sudo apt install nvidia-jetpack, and a venv "
    "made with --system-site-packages), elsewhere pip install 'irstd-edge[tensorrt]'",
    "tensorrt-rtx": "pip install 'irstd-edge[tensorrt-rtx]'",
}
DRIVER = {"polygraphy": "pip install polygraphy"}
"""What drives both; pure Python."""
OLDEST_TENSORRT = 10
"""Its networks can be typed explicitly; that of JetPack 5 cannot."""
THIS = "this"


@dataclass(frozen=True)
class EnginePlan:
    """What to build."""

    backend: str = "tensorrt"
    target: str = THIS
    """`this` for the GPU here, or a compute capability as in sm_86 (TensorRT-RTX alone)."""
    sizes: tuple[tuple[int, int], ...] = ((256, 256),)
    """(height, width) of frames: the first is tuned for, all between the extremes are taken."""
    batch: int = 1
    """Frames a call: tuned for this many, fewer are taken."""

    def __post_init__(self) -> None:
        if self.backend not in BACKENDS:
            raise IrstdError(f"--backend: {self.backend!r} is not one of {', '.join(BACKENDS)}")
        if self.target != THIS and not re.fullmatch(r"sm_\d{2,3}", self.target):
            raise IrstdError(f"--target: {self.target!r} is neither {THIS} nor like sm_86")
        if self.target != THIS and self.backend == "tensorrt":
            raise IrstdError(
                "--target: tensorrt builds for the GPU it runs on: run it there, or use "
                "--backend tensorrt-rtx"
            )
        if self.batch < 1 or not self.sizes:
            raise IrstdError("--batch, --size: give at least one frame and one size")

    def shapes(self, stride: int) -> tuple[tuple[int, ...], ...]:
        """Smallest, tuned-for and largest (N, 1, H, W), padded to the stride as runners pad."""
        padded = [[-(-extent // stride) * stride for extent in size] for size in self.sizes]
        low = (min(extents) for extents in zip(*padded, strict=True))
        high = (max(extents) for extents in zip(*padded, strict=True))
        return (1, 1, *low), (self.batch, 1, *padded[0]), (self.batch, 1, *high)


@dataclass(frozen=True)
class Engine:
    """A serialized engine and what it took."""

    data: bytes
    version: str
    """Of the backend that built it, which alone can load it."""
    build_s: float


def engine_from_onnx(graph: Path, spec: ModelSpec, plan: EnginePlan) -> Engine:
    """Build an engine of a bundle's graph.

    Raises:
        IrstdError: the backend refuses the graph; the message names the node and the fix.
        MachineError: the backend or the GPU is missing here.
    """
    library = _library(plan)
    refuse_graph(graph)
    with _heard() as messages:
        network = _network(library, graph, spec, messages)
        start = time.perf_counter()
        data = _build(graph, network, spec, plan, messages)
        return Engine(data, library.__version__, time.perf_counter() - start)


def backend_version(plan: EnginePlan) -> str:
    """Of the plan's backend. Raises MachineError where it or the GPU is missing."""
    return str(_library(plan).__version__)


def _library(plan: EnginePlan) -> Any:
    """The backend's module, with Polygraphy set to it."""
    installs = {BACKENDS[plan.backend]: INSTALLS[plan.backend], **DRIVER}
    for module, install in installs.items():
        if find_spec(module) is None:
            raise MachineError(f"{plan.backend}: {module} is not installed: {install}")
    if plan.target == THIS and this_gpu() is None:
        other = (
            "or give another's --target, as in sm_86"
            if plan.backend == "tensorrt-rtx"
            else ("or use --backend tensorrt-rtx with a --target, as in sm_86")
        )
        raise MachineError(
            f"{plan.backend}: no usable NVIDIA GPU here: run it on the device, {other}"
        )
    _choose(plan.backend)
    library = import_module(BACKENDS[plan.backend])
    if plan.backend == "tensorrt" and int(library.__version__.split(".")[0]) < OLDEST_TENSORRT:
        raise MachineError(
            f"tensorrt: version {library.__version__} cannot build typed graphs: use "
            f"{OLDEST_TENSORRT} or newer (JetPack 6 on Orin)"
        )
    return library


def _choose(backend: str) -> None:
    """Tell Polygraphy, which asks once, when it is imported."""
    wants_rtx = backend == "tensorrt-rtx"
    if "polygraphy.config" not in sys.modules:
        os.environ["POLYGRAPHY_USE_TENSORRT_RTX"] = "1" if wants_rtx else "0"
    from polygraphy import config

    if config.USE_TENSORRT_RTX != wants_rtx:
        raise MachineError(f"{backend}: this process has built with the other one: start a new one")


@contextmanager
def _heard() -> Iterator[list[str]]:
    """Collect what the backend says instead of letting it print: warnings and errors."""
    from polygraphy.logger import G_LOGGER

    messages: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            messages.append(" ".join(record.getMessage().split())[4:])  # without "[E] "

    voice, listener = logging.getLogger("Polygraphy"), Listener()
    before = voice.propagate, G_LOGGER.use_python_logging_system, G_LOGGER.colors
    voice.addHandler(listener)
    voice.propagate, G_LOGGER.use_python_logging_system, G_LOGGER.colors = False, True, False
    G_LOGGER.once_logged.clear()  # a warning of an earlier graph is news for this one
    try:
        with G_LOGGER.verbosity(G_LOGGER.WARNING):
            yield messages
    finally:
        voice.removeHandler(listener)
        voice.propagate, G_LOGGER.use_python_logging_system, G_LOGGER.colors = before


def _network(library: Any, graph: Path, spec: ModelSpec, messages: list[str]) -> Any:
    """(builder, network, parser) of a graph that was accepted node by node."""
    from polygraphy.backend.trt import create_network
    from polygraphy.backend.trt.util import get_trt_logger

    builder, network = create_network(strongly_typed=True)
    parser = library.OnnxParser(network, get_trt_logger())
    parsed = parser.parse_from_file(str(graph))
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    if errors:
        raise IrstdError(f"{graph}: {_refusal(errors[0])}")
    if any("UINT8" in message for message in messages):  # taken for INT8, which is another number
        raise IrstdError(f"{graph}: {_unsigned(graph)}")
    names = [network.get_output(index).name for index in range(network.num_outputs)]
    inputs = [network.get_input(index).name for index in range(network.num_inputs)]
    wanted = list(OUTPUTS[spec.decode.kind])
    if not parsed or inputs != [INPUT] or names != wanted:
        raise IrstdError(
            f"{graph}: has inputs {inputs} and outputs {names}, not {[INPUT]} and {wanted}: "
            "quantize again"
        )
    return builder, network, parser


def _refusal(error: Any) -> str:
    """`NODE (OPERATOR): reason: fix`, from the first error of the parser."""
    reason = " ".join(str(error.desc()).split())
    if "zero point" in reason.lower():
        reason, fix = "its zero point is not 0", "make its quantizer symmetric, and quantize again"
    elif "Plugin not found" in reason or str(error.code()).endswith("UNSUPPORTED_NODE"):
        reason, fix = "no such operator there", "export the network without it, and quantize again"
    else:
        fix = "change that node, and quantize again"
    return f"{error.node_name() or 'a node'} ({error.node_operator()}): {reason:.200}: {fix}"


def _unsigned(graph: Path) -> str:
    """The node that holds unsigned integers, if the onnx package is here to look."""
    if find_spec("onnx") is not None:
        import onnx

        from irstd_edge.edge.qdq import lint_int8

        for finding in lint_int8(onnx.load(graph, load_external_data=False)):
            if "uint8" in finding.problem:
                return f"{finding}, and quantize again"
    return "holds uint8, which TensorRT takes for int8: make its quantizers signed, quantize again"


def _build(
    graph: Path, network: Any, spec: ModelSpec, plan: EnginePlan, messages: list[str]
) -> bytes:
    from polygraphy.backend.trt import engine_bytes_from_network
    from polygraphy.exception import PolygraphyException

    try:
        with warnings.catch_warnings():
            # Polygraphy makes calls that newer versions deprecate; none is ours to change.
            warnings.simplefilter("ignore", DeprecationWarning)
            return bytes(engine_bytes_from_network(network, config=_config(spec, plan)))
    except PolygraphyException as error:
        reason = " ".join((messages or [str(error)])[0].split())
        if "Compute capability" in reason:
            raise MachineError(f"--target: {reason} Known are {_known_targets()}") from error
        raise IrstdError(f"{graph}: {plan.backend} cannot build it ({reason:.300})") from error


def _config(spec: ModelSpec, plan: EnginePlan) -> Any:
    """The builder's configuration; precision is no part of it."""
    from polygraphy.backend.trt import CreateConfig, Profile

    profile = Profile().add(INPUT, *plan.shapes(spec.input.stride))
    if plan.backend == "tensorrt":
        return CreateConfig(profiles=[profile])
    from polygraphy.backend.tensorrt_rtx import CreateConfigRTX

    if plan.target == THIS:
        return CreateConfigRTX(profiles=[profile], use_gpu=True)
    digits = plan.target.removeprefix("sm_")
    capability = int(digits[:-1]), int(digits[-1])
    return CreateConfigRTX(profiles=[profile], compute_capabilities=[capability])


def _known_targets() -> str:
    import tensorrt_rtx

    names = tensorrt_rtx.ComputeCapability.__members__
    return ", ".join(f"sm_{name[2:]}" for name in names if name.startswith("SM"))
