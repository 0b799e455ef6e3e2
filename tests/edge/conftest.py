"""Networks of one layer, whose answers can be worked out by hand."""

import ctypes
import math

import numpy as np
import pytest

from irstd_edge.edge.types import DecodeSpec, Frame, InputSpec, ModelSpec

HEATMAP_GEOMETRY = (0.25, -0.25, math.log(1.5))  # dx, dy, log sigma, the same everywhere


def conv_graph(name, weights, biases, stride):
    """ONNX file: one Conv of kernel and stride `stride` per output, free of batch and size."""
    onnx = pytest.importorskip("onnx", reason="onnx is in the train extra")
    helper = onnx.helper
    nodes, constants, outputs = [], [], []
    for output, weight in weights.items():
        tensors = {f"{output}.weight": weight, f"{output}.bias": biases[output]}
        constants += [onnx.numpy_helper.from_array(v, k) for k, v in tensors.items()]
        nodes.append(
            helper.make_node("Conv", ["frame", *tensors], [output], strides=[stride, stride])
        )
        sizes = ["N", len(weight), f"H{stride}", f"W{stride}"]
        outputs.append(helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, sizes))
    frame = helper.make_tensor_value_info("frame", onnx.TensorProto.FLOAT, ["N", 1, "H", "W"])
    graph = helper.make_graph(nodes, name, [frame], outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


@pytest.fixture
def mask_spec():
    return ModelSpec("mshnet", InputSpec(stride=4), DecodeSpec("mask"))


@pytest.fixture
def heatmap_spec():
    return ModelSpec("p2p", InputSpec(stride=4), DecodeSpec("heatmap"))


@pytest.fixture
def mask_graph():
    """logits = 20 * frame - 10: foreground above half of full scale."""
    weight, bias = np.full((1, 1, 1, 1), 20, np.float32), np.float32([-10])
    return conv_graph("mask", {"logits": weight}, {"logits": bias}, stride=1)


@pytest.fixture
def heatmap_graph():
    """heatmap = 20 * mean of the 2x2 cell - 10; geometry constant."""
    weights = {
        "heatmap": np.full((1, 1, 2, 2), 5, np.float32),
        "geometry": np.zeros((3, 1, 2, 2), np.float32),
    }
    biases = {"heatmap": np.float32([-10]), "geometry": np.float32(HEATMAP_GEOMETRY)}
    return conv_graph("heatmap", weights, biases, stride=2)


@pytest.fixture
def frame():
    """30x22, 8 bit: targets of 2x2 at (6, 8) and (20, 14), the second fainter."""
    counts = np.full((30, 22), 20, np.uint8)
    counts[6:8, 8:10] = 230
    counts[20:22, 14:16] = 180
    return Frame("scene", counts, 8)


class FakeDriver:
    """Answers as libcuda does, with a stream that runs on the CPU when it is waited for."""

    def __init__(self):
        self.memory, self.queued, self.recording = {}, [], None
        self.graphs, self.launches, self.calls = [], 0, []
        self.fails = {}  # call -> status

    def __getattr__(self, name):
        """A call without an implementation of its own succeeds."""
        if not name.startswith("cu"):
            raise AttributeError(name)
        return self._called(name, getattr(type(self), f"_{name}", lambda *arguments: 0))

    def _called(self, name, work):
        def call(*arguments):
            self.calls.append(name)
            if name in self.fails:
                return self.fails[name]
            return work(self, *arguments)

        return call

    def queue(self, work):
        """What a kernel launch does: it is recorded or waits its turn."""
        (self.queued if self.recording is None else self.recording).append(work)

    def _allocate(self, pointer, size):
        memory = ctypes.create_string_buffer(size.value)
        pointer._obj.value = ctypes.addressof(memory)
        self.memory[pointer._obj.value] = memory
        return 0

    _cuMemAlloc_v2 = _cuMemAllocHost_v2 = _allocate

    def _free(self, address):
        del self.memory[address.value]
        return 0

    _cuMemFree_v2 = _cuMemFreeHost = _free

    def _copy(self, target, source, size, stream):
        self.queue(lambda: ctypes.memmove(target.value, source.value, size.value))
        return 0

    _cuMemcpyHtoDAsync_v2 = _cuMemcpyDtoHAsync_v2 = _copy

    def _cuStreamCreate(self, stream, flags):
        stream._obj.value = 1
        return 0

    def _cuStreamSynchronize(self, stream):
        while self.queued:
            self.queued.pop(0)()
        return 0

    def _cuStreamBeginCapture_v2(self, stream, mode):
        self.recording = []
        return 0

    def _cuStreamEndCapture(self, stream, graph):
        self.graphs.append(self.recording)
        self.recording = None
        graph._obj.value = len(self.graphs)
        return 0

    def _cuGraphInstantiateWithFlags(self, ready, graph, flags):
        ready._obj.value = graph.value
        return 0

    def _cuGraphLaunch(self, ready, stream):
        self.launches += 1
        self.queued += self.graphs[ready.value - 1]
        return 0

    def _cuGetErrorString(self, status, text):
        text._obj.value = b"out of memory"
        return 0


@pytest.fixture
def driver():
    return FakeDriver()
