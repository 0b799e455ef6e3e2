"""What a bench says of its own time, against a stopwatch in another process."""

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="the graph is written with the train extra")

ROUNDS = 60
CHILD = """
import json, sys
from pathlib import Path
import numpy as np
from irstd_edge.benchmarks.latency import measure
from irstd_edge.edge.runners import open_graph
from irstd_edge.edge.types import DecodeSpec, Frame, InputSpec, ModelSpec

class Timed:
    # Both clocks see the same calls: the frame after a rest, which is not timed, does not run.

    def __init__(self, run):
        self.run, self.rested = run, False

    def detect(self, frame):
        if not self.rested:
            self.run.detect(frame)
        self.rested = False

    def rest(self, seconds):
        self.rested = True

    @property
    def stages_ms(self):
        return self.run.stages_ms

spec = ModelSpec("tiny", InputSpec(stride=16), DecodeSpec("mask"))
frame = Frame("f", np.full((128, 128), 20, np.uint8), 8)
with open_graph(Path(sys.argv[1]), spec, "fp32", threads=1) as run:
    timed = Timed(run)
    times = measure({"fp32": timed}, [frame], warm_up_s=5.0, samples=int(sys.argv[2]),
        sleep=timed.rest,
        progress=lambda done, total: done in (1, total) and print(done, flush=True))["fp32"]
stages = times.pre_ms + times.infer_ms + times.post_ms
print(json.dumps(stages[1:].tolist()))
"""


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    """Some milliseconds of work: 1 -> 32 -> 1 channels by 5x5 windows."""
    shapes = {"w": (32, 1, 5, 5), "v": (1, 32, 5, 5)}
    weights = [
        onnx.numpy_helper.from_array(np.full(shape, -0.01, np.float32), name)
        for name, shape in shapes.items()
    ]
    nodes = [
        onnx.helper.make_node("Conv", ["frame", "w"], ["a"], pads=[2] * 4),
        onnx.helper.make_node("Conv", ["a", "v"], ["b"], pads=[2] * 4),
        onnx.helper.make_node("Neg", ["b"], ["logits"]),
    ]
    free = ["n", 1, "h", "w"]
    ends = [
        [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, free)]
        for name in ("frame", "logits")
    ]
    opset = [onnx.helper.make_opsetid("", 17)]
    body = onnx.helper.make_graph(nodes, "net", *ends, weights)
    path = tmp_path / "net.onnx"
    onnx.save(onnx.helper.make_model(body, opset_imports=opset, ir_version=8), path)
    return path


def test_the_stages_add_up_to_what_a_stopwatch_outside_says(graph: Path) -> None:
    """Both time the very same calls, so that a busy machine slows both."""
    command = [sys.executable, "-c", CHILD, str(graph), str(ROUNDS)]
    ticks, lines = [], []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        for line in child.stdout:
            ticks.append(time.perf_counter())
            lines.append(line)
    assert child.returncode == 0
    assert lines[:2] == ["1\n", f"{ROUNDS}\n"]
    inside_ms = json.loads(lines[2])
    assert len(inside_ms) == ROUNDS - 1
    assert sum(inside_ms) == pytest.approx(1000 * (ticks[1] - ticks[0]), rel=0.05)
