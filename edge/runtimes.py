"""How each runtime opens a graph: the file in, a function from batch to outputs out.

A runtime either computes as asked or raises: no other device, provider or precision steps in.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from irstd_edge.edge.openvino_graph import model_for
from irstd_edge.edge.quiet import silence_telemetry
from irstd_edge.edge.types import FloatArray, IrstdError, MachineError

INPUT = "frame"
"""Name of the one input of every graph: (N, 1, H, W) float32 in 0..1."""
ORT_PROVIDER = "CPUExecutionProvider"
OPENVINO_SHAPES = 8
"""Compiled models kept: frames of many sizes must not fill the memory."""
OPENVINO_PRECISION = "f32"
"""Of all that is not INT8. Left to itself, a CPU with bfloat16 computes float32 graphs in it."""

Infer = Callable[[FloatArray], list[FloatArray]]
"""(N, 1, H, W) in 0..1 -> the graph's outputs in the order of `detect.OUTPUTS`."""


def ort_session(
    graph: Path | bytes,
    threads: int = 0,
    *,
    optimized: bool = True,
    profile: Path | None = None,
) -> Any:
    """Open an onnxruntime.InferenceSession on the CPU; it neither prints nor calls home.

    threads: 0 for all. optimized: False leaves every node as it is written. profile: what the names
    of its profiles begin with; None for none. Raises what ONNX Runtime raises, of no base class.
    """
    silence_telemetry()
    import onnxruntime

    levels = onnxruntime.GraphOptimizationLevel
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.graph_optimization_level = (
        levels.ORT_ENABLE_ALL if optimized else levels.ORT_DISABLE_ALL
    )
    options.log_severity_level = 3  # errors, which are raised anyway
    if profile is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile)
    return onnxruntime.InferenceSession(
        graph if isinstance(graph, bytes) else str(graph),
        options,
        providers=[ORT_PROVIDER],
        enable_fallback=0,  # it would print
    )


def openvino_config(threads: int) -> dict[str, Any]:
    """Of a model that is compiled for the CPU: one frame at a time, as fast as can be."""
    return {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": OPENVINO_PRECISION,
    }


def _onnxruntime(graph: Path, outputs: tuple[str, ...], threads: int) -> Infer:
    try:
        session = ort_session(graph, threads)
    except Exception as error:  # its exceptions have no base class of their own
        raise _unreadable(graph, "ONNX Runtime", error) from error
    if session.get_providers() != [ORT_PROVIDER]:
        raise MachineError(
            f"onnxruntime: runs on {session.get_providers()} where {ORT_PROVIDER} was asked: "
            "install onnxruntime in place of its other builds"
        )
    check_names(
        graph,
        [i.name for i in session.get_inputs()],
        [o.name for o in session.get_outputs()],
        outputs,
    )

    def infer(batch: FloatArray) -> list[FloatArray]:
        try:
            result: list[FloatArray] = session.run(outputs, {INPUT: batch})
        except Exception as error:
            raise _failed(graph, "ONNX Runtime", batch, error) from error
        return result

    return infer


def _openvino(graph: Path, outputs: tuple[str, ...], threads: int) -> Infer:
    import openvino

    core = openvino.Core()
    config = openvino_config(threads)
    try:
        model = core.read_model(str(graph))
    except RuntimeError as error:
        raise _unreadable(graph, "OpenVINO", error) from error
    check_names(
        graph, [i.any_name for i in model.inputs], [o.any_name for o in model.outputs], outputs
    )
    requests: OrderedDict[tuple[int, ...], Any] = OrderedDict()

    def request_for(shape: tuple[int, ...]) -> Any:
        """A model per size, so that none pays for another's memory; compiled when first seen."""
        if shape not in requests:
            try:
                fitted = model_for(model, INPUT, shape)
                requests[shape] = _compiled(core, fitted, config).create_infer_request()
            except RuntimeError as error:
                raise _unreadable(graph, "OpenVINO", error) from error
            if len(requests) > OPENVINO_SHAPES:
                requests.popitem(last=False)
        requests.move_to_end(shape)
        return requests[shape]

    def infer(batch: FloatArray) -> list[FloatArray]:
        request = request_for(batch.shape)
        try:
            request.infer({INPUT: batch}, share_inputs=True)
        except RuntimeError as error:
            raise _failed(graph, "OpenVINO", batch, error) from error
        return [np.array(request.get_tensor(name).data) for name in outputs]

    return infer


def _compiled(core: Any, model: Any, config: dict[str, Any]) -> Any:
    compiled = core.compile_model(model, "CPU", config)
    devices = compiled.get_property("EXECUTION_DEVICES")
    precision = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    if devices != ["CPU"] or precision != OPENVINO_PRECISION:
        raise MachineError(
            f"openvino: runs in {precision} on {devices} where {OPENVINO_PRECISION} on CPU was "
            "asked: use --runtime onnxruntime"
        )
    return compiled


def check_names(
    graph: Path, inputs: list[str], outputs: list[str], wanted: tuple[str, ...]
) -> None:
    """Raise IrstdError unless a graph takes and gives what ours do."""
    if inputs != [INPUT] or not set(wanted) <= set(outputs):
        raise IrstdError(
            f"{graph}: has inputs {inputs} and outputs {outputs}, not {[INPUT]} and "
            f"{list(wanted)}: quantize again"
        )


def _unreadable(graph: Path, runtime: str, error: Exception) -> IrstdError:
    return IrstdError(f"{graph}: {runtime} cannot load it ({_reason(error)}): quantize again")


def _failed(graph: Path, runtime: str, batch: FloatArray, error: Exception) -> IrstdError:
    size = f"{batch.shape[-2]}x{batch.shape[-1]}"
    return IrstdError(
        f"{graph}: {runtime} cannot run it on {size} ({_reason(error)}): quantize again, or cut "
        "frames that are too large for the memory by --tile"
    )


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return f"{lines[-1]:.200}"  # the last line names the cause


RUNTIMES: dict[str, Callable[[Path, tuple[str, ...], int], Infer]] = {
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
}
"""Runtime -> how it opens a graph (file, output names, threads). Also its import name."""
PACKAGES = {"onnxruntime": "irstd-edge", "openvino": "irstd-edge[openvino]"}
"""Runtime -> what installs it."""
