"""What Torch-TensorRT is given, by the real torch.export; and where there is a GPU, its engine."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from irstd_edge.calibration.equalise import equalise
from irstd_edge.edge.bundle import write_bundle
from irstd_edge.edge.engine_plan import EnginePlan
from irstd_edge.edge.golden import golden_files
from irstd_edge.edge.gpu import Gpu, this_gpu
from irstd_edge.edge.runners import open_graph, open_runner
from irstd_edge.edge.types import IrstdError, MachineError, Manifest, Quantization
from irstd_edge.models import create_model, engine_from_torch, spec_of
from irstd_edge.models.engine_from_torch import Framed, _library, exported, module_of
from irstd_edge.models.mshnet import MSHNet
from irstd_edge.models.onnx_from_torch import onnx_from_torch

BACKEND = "torch-tensorrt"


class Halves(torch.nn.Module):
    """Quick to export: the mean of each cell of 2x2 pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = torch.nn.Conv2d(1, 1, 2, stride=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.pool(x)


def graph_of(kind: str, folder: Path) -> Path:
    torch.manual_seed(0)
    name = kind.split()[0]
    net = MSHNet(head_size=3) if kind.endswith("3x3 heads") else create_model(name)
    deployed = net.eval().deploy()
    if kind.endswith("equalised"):
        deployed = equalise(deployed, [torch.rand(1, 1, 48, 48)])
    path = folder / "fp32.onnx"
    path.write_bytes(onnx_from_torch(deployed, spec_of(name)))
    return path


@pytest.mark.parametrize("kind", ["p2p", "mshnet", "mshnet equalised", "mshnet with 3x3 heads"])
def test_a_graph_gives_its_network_back(kind: str, tmp_path: Path) -> None:
    graph, spec = graph_of(kind, tmp_path), spec_of(kind.split()[0])
    frame = np.random.default_rng(0).random((1, 1, 32, 48), np.float32)
    with torch.no_grad():
        found = module_of(graph, spec)(torch.from_numpy(frame))
    with open_graph(graph, spec, "fp32") as run:
        expected = run.infer(frame)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a.numpy(), b, rtol=1e-3, atol=1e-4)


def test_a_graph_of_another_network_is_refused(tmp_path: Path) -> None:
    graph = graph_of("p2p", tmp_path)
    with pytest.raises(IrstdError, match=r"fp32\.onnx: is no graph of mshnet: it lacks "):
        module_of(graph, spec_of("mshnet"))


def test_a_graph_with_more_than_its_network_is_refused(tmp_path: Path) -> None:
    graph = graph_of("mshnet", tmp_path)
    model = onnx.load(graph)
    ones = onnx.numpy_helper.from_array(np.ones(3, np.float32), "encoder_9.weight")
    model.graph.initializer.append(ones)
    onnx.save(model, graph)
    with pytest.raises(IrstdError, match=r"no graph of mshnet: it has encoder_9\.weight"):
        module_of(graph, spec_of("mshnet"))


def test_one_size_is_exported_as_it_is() -> None:
    program = exported(Framed(Halves()), EnginePlan(BACKEND, sizes=((30, 48),)), stride=4)
    (given,) = [n for n in program.graph.nodes if n.op == "placeholder" and n.name == "frame"]
    assert tuple(given.meta["val"].shape) == (1, 1, 32, 48)


def test_sizes_and_batches_stay_free_between_their_ends() -> None:
    plan = EnginePlan(BACKEND, sizes=((32, 48), (64, 96)), batch=4)
    program = exported(Framed(Halves()), plan, stride=4)
    ends = {(int(r.lower), int(r.upper)) for r in program.range_constraints.values()}
    assert {(1, 4), (32, 64), (48, 96)} <= ends
    for shape in ((1, 1, 32, 48), (4, 1, 64, 96), (3, 1, 48, 52)):
        (found,) = program.module()(torch.ones(shape))
        assert found.shape == (shape[0], 1, shape[2] // 2, shape[3] // 2)


@pytest.mark.slow
def test_a_whole_network_is_exported_and_computes_the_same(tmp_path: Path) -> None:
    module = module_of(graph_of("p2p", tmp_path), spec_of("p2p"))
    program = exported(module, EnginePlan(BACKEND, sizes=((64, 64),)), spec_of("p2p").input.stride)
    frame = torch.rand(1, 1, 64, 64)
    with torch.no_grad():
        for a, b in zip(program.module()(frame), module(frame), strict=True):
            torch.testing.assert_close(a, b)


@pytest.mark.parametrize("missing", ["torch_tensorrt", "tensorrt"])
def test_what_is_missing_is_told(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        engine_from_torch, "find_spec", lambda name: None if name == missing else object()
    )
    with pytest.raises(MachineError, match=f"{missing} is not installed: pip install 'irstd-edge"):
        _library()


def test_without_a_gpu_it_says_where_to_build(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_from_torch, "find_spec", lambda name: object())
    monkeypatch.setattr(engine_from_torch, "this_gpu", lambda: None)
    monkeypatch.setattr(engine_from_torch, "cuda_refusal", lambda: None)
    with pytest.raises(MachineError, match="torch-tensorrt: no usable NVIDIA GPU here"):
        _library()
    monkeypatch.setattr(engine_from_torch, "cuda_refusal", lambda: "cuInit failed (801): join")
    with pytest.raises(MachineError, match=r"^torch-tensorrt: cuInit failed \(801\): join$"):
        _library()
    monkeypatch.setattr(engine_from_torch, "this_gpu", lambda: Gpu("Orin", 87, 8))
    plan = EnginePlan(BACKEND)
    with pytest.raises(IrstdError, match="--with-decode: torch-tensorrt builds the network alone"):
        engine_from_torch.engine_from_torch(Path("x"), spec_of("p2p"), plan, b"", ("targets",))


@pytest.mark.tensorrt
@pytest.mark.skipif(
    find_spec("torch_tensorrt") is None or this_gpu() is None,
    reason="needs Torch-TensorRT and an NVIDIA GPU",
)
@pytest.mark.parametrize("name", ["p2p", "mshnet"])
def test_its_engine_gives_the_numbers_of_onnx_runtime(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from irstd_edge.edge.compiler import compile_engine
    from irstd_edge.edge.engine_store import open_store

    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    manifest = Manifest(spec_of(name), "0" * 64, {}, Quantization("ptq", {}, (), ()), {})
    graph = graph_of(name, tmp_path).read_bytes()
    files = {"fp32.onnx": graph, **golden_files([], {"fp32.onnx": ()})}
    bundle = write_bundle(tmp_path / "bundle", manifest, files)
    plan = EnginePlan(BACKEND, sizes=((64, 96), (64, 64)), batch=2)
    build = engine_from_torch.engine_from_torch
    done = compile_engine(bundle, "fp32", plan, open_store(), build=build)
    assert done.engine.timings
    with (
        open_runner(bundle, "fp32", "onnxruntime") as reference,
        open_runner(bundle, "fp32", BACKEND) as run,
    ):
        for shape in ((1, 1, 64, 96), (2, 1, 64, 64)):
            batch = np.random.default_rng(0).random(shape, np.float32)
            for found, expected in zip(run.infer(batch), reference.infer(batch), strict=True):
                np.testing.assert_allclose(found, expected, atol=0.05)  # TF32
