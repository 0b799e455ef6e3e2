"""Exported networks: equal numbers at any size, equal bytes, nothing of this machine."""

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from irstd_edge.edge.detect import OUTPUTS
from irstd_edge.edge.qdq import MAX_IR_VERSION
from irstd_edge.edge.runners import open_graph, torch_runner
from irstd_edge.models import MODELS, create_model, spec_of
from irstd_edge.models.onnx_from_torch import onnx_from_torch


@pytest.fixture(scope="module", params=MODELS)
def exported(request):
    """(spec, deployed network, its graph's bytes)."""
    torch.manual_seed(0)
    net = create_model(request.param).train()
    channels = 3 if request.param == "mshnet" else 1
    with torch.no_grad():
        for _ in range(10):  # so that batch normalisation is not the identity
            net(torch.rand(2, channels, 32, 32))
    deployed, spec = net.deploy(), spec_of(request.param)
    return spec, deployed, onnx_from_torch(deployed, spec)


@pytest.mark.parametrize("shape", [(1, 1, 32, 32), (2, 1, 48, 96)])
def test_computes_what_torch_does_at_any_size(exported, shape, tmp_path):
    spec, deployed, graph = exported
    path = tmp_path / "fp32.onnx"
    path.write_bytes(graph)
    batch = np.random.default_rng(1).random(shape, np.float32)
    expected = torch_runner(deployed, spec).infer(batch)
    with open_graph(path, spec, "fp32", threads=1) as runner:
        found = runner.infer(batch)
    assert len(found) == len(OUTPUTS[spec.decode.kind])
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
        assert np.abs(one - other).max() < 1e-4 * max(1.0, np.abs(other).max())


def test_has_the_names_and_free_axes_that_runners_expect(exported):
    spec, _, graph = exported
    model = onnx.load_from_string(graph)
    (frame,) = model.graph.input
    dims = frame.type.tensor_type.shape.dim
    assert frame.name == "frame"
    assert [d.dim_param or d.dim_value for d in dims] == ["N", 1, "H", "W"]
    assert tuple(output.name for output in model.graph.output) == OUTPUTS[spec.decode.kind]
    for output in model.graph.output:
        free = [bool(d.dim_param) for d in output.type.tensor_type.shape.dim]
        assert free == [True, False, True, True]


def test_is_a_graph_that_old_runtimes_read(exported):
    model = onnx.load_from_string(exported[2])
    assert model.ir_version <= MAX_IR_VERSION
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 17)]


def test_computes_no_sizes_at_run_time(exported):
    operators = {node.op_type for node in onnx.load_from_string(exported[2]).graph.node}
    assert operators.isdisjoint({"Shape", "Gather", "Constant", "ConstantOfShape", "Identity"})


def test_says_nothing_of_this_machine(exported):
    _, _, graph = exported
    for place in (Path.cwd(), Path.home(), Path(sys.prefix), Path(torch.__file__).parent):
        assert str(place).encode() not in graph or str(place) == "/"
    model = onnx.load_from_string(graph)
    assert not model.metadata_props
    assert not any(node.doc_string or node.metadata_props for node in model.graph.node)


def test_equal_networks_give_equal_bytes(exported):
    spec, deployed, graph = exported
    assert onnx_from_torch(deployed, spec) == graph


def test_a_network_in_training_is_refused(exported):
    spec, _, _ = exported
    with pytest.raises(ValueError, match="eval"):
        onnx_from_torch(create_model(spec.name).train(), spec)
