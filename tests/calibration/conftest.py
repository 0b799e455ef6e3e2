"""A p2p with random weights, quantized once for all tests that only look at it."""

import copy
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from irstd_edge.benchmarks.scenes import write_dataset
from irstd_edge.calibration import qat
from irstd_edge.calibration.export import exports_of, graphs_of
from irstd_edge.calibration.quantize import Quantized, quantize
from irstd_edge.calibration.subset import CalibrationFrame
from irstd_edge.edge.devices import this_machine
from irstd_edge.edge.types import ModelSpec
from irstd_edge.models import create_model, spec_of
from irstd_edge.models.recipes import CLOSE
from irstd_edge.models.weights import save_weights


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Sums are taken in one order, and a process with one thread may fork."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True, scope="module")
def small_crops():
    """Those of a training are of 256x256, which the tests' frames would fill with their borders."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(qat, "CLOSE", replace(CLOSE, size_px=64))
        yield


def lively_model(name):
    """Random weights whose normalisations have seen frames, so that signals live."""
    torch.manual_seed(0)
    net = create_model(name).train()
    generator = torch.Generator().manual_seed(1)
    channels = 3 if name == "mshnet" else 1
    with torch.no_grad():
        for _ in range(30):
            net(torch.rand(2, channels, 64, 64, generator=generator))
    return net.eval()


@dataclass(frozen=True)
class Case:
    """Everything that comes of one network."""

    float_net: torch.nn.Module
    spec: ModelSpec
    batches: list[np.ndarray]
    """To calibrate on, (1, 1, H, W) in 0..1, of two sizes."""
    quantized: Quantized
    graphs: dict[str, bytes]

    def shown(self) -> list[CalibrationFrame]:
        """The frames to calibrate on, without a target."""
        return [
            CalibrationFrame(torch.from_numpy(b), torch.zeros(b.shape[2:]) > 0)
            for b in self.batches
        ]


@pytest.fixture(scope="session")
def p2p_net():
    return lively_model("p2p")


@pytest.fixture(scope="session")
def mshnet_net():
    return lively_model("mshnet")


def made_of(p2p_net, reduced_range):
    float_net, spec = p2p_net.deploy(), spec_of("p2p")
    rng = np.random.default_rng(0)
    sizes = [(64, 64), (64, 64), (48, 72)]
    batches = [rng.random((1, 1, *size), np.float32) for size in sizes]
    calibrate = [torch.from_numpy(b) for b in batches]
    quantized = quantize(float_net, "p2p", calibrate, reduced_range=reduced_range)
    case = Case(float_net, spec, batches, quantized, {})
    exports = exports_of(float_net, quantized.module, spec)
    return replace(case, graphs=graphs_of(exports, spec, case.shown()))


@pytest.fixture(scope="session")
def case(p2p_net):
    return made_of(p2p_net, reduced_range=False)


@pytest.fixture(scope="session")
def exact_case(p2p_net, case):
    """That which this processor computes without clipping."""
    return made_of(p2p_net, reduced_range=True) if this_machine().saturates else case


@pytest.fixture(scope="session")
def reduced(case):
    """The network of `case`, its weights rounded to 7 bits."""
    batches = [torch.from_numpy(case.batches[0])]
    return quantize(case.float_net, "p2p", batches, reduced_range=True).module


@pytest.fixture(scope="session")
def scenes(tmp_path_factory) -> Path:
    """40 synthetic frames of 64x64, half of them trainval."""
    root = tmp_path_factory.mktemp("data") / "scenes"
    write_dataset(root, frames=40, size=(64, 64), seed=3)
    return root


@pytest.fixture(scope="session")
def p2p_weights(p2p_net, tmp_path_factory) -> Path:
    """The network as a file, its heatmap stretched until random weights see something."""
    net = copy.deepcopy(p2p_net)
    with torch.no_grad():
        net.head.heatmap.weight *= 10
        net.head.heatmap.bias.zero_()
    path = tmp_path_factory.mktemp("weights") / "p2p.safetensors"
    save_weights(path, "p2p", net, {"threshold": 0.4})
    return path
