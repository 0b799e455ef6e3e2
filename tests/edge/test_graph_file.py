from contextlib import suppress

import numpy as np
import pytest

from irstd_edge.edge.graph_file import refuse_graph
from irstd_edge.edge.types import IrstdError

onnx = pytest.importorskip("onnx", reason="onnx is in the train extra")


def wrong(path, model):
    path.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
    with pytest.raises(IrstdError) as caught:
        refuse_graph(path)
    assert str(caught.value).startswith(f"{path}: ")
    return str(caught.value)


@pytest.fixture
def model(mask_graph):
    return onnx.load_from_string(mask_graph)


def test_a_graph_of_ours_passes(tmp_path, mask_graph, heatmap_graph):
    for graph in (mask_graph, heatmap_graph):
        (tmp_path / "a.onnx").write_bytes(graph)
        refuse_graph(tmp_path / "a.onnx")


@pytest.mark.parametrize("place", ["../secret", "/etc/passwd", "beside.bin"])
def test_numbers_in_another_file(tmp_path, model, place):
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=place)
    assert "keeps numbers in another file" in wrong(tmp_path / "a.onnx", model)


@pytest.mark.parametrize("dims", [(2**40, 1, 1, 1), (-1, 1, 1, 1), (2, 1, 1, 1), (2**62, 4)])
def test_dimensions_that_are_not_there(tmp_path, model, dims):
    model.graph.initializer[0].ClearField("dims")
    model.graph.initializer[0].dims.extend(dims)
    assert "in 4 bytes, which no graph of ours" in wrong(tmp_path / "a.onnx", model)
    model.graph.initializer[0].ClearField("raw_data")
    model.graph.initializer[0].float_data.append(1.0)
    assert "and stores 1 at most" in wrong(tmp_path / "a.onnx", model)


def test_a_constant_node_that_lies(tmp_path, model):
    tensor = onnx.numpy_helper.from_array(np.zeros(2, np.float32))
    tensor.dims[0] = 2**50
    model.graph.node.append(onnx.helper.make_node("Constant", [], ["c"], value=tensor))
    assert "declares 1125899906842624 numbers" in wrong(tmp_path / "a.onnx", model)


def test_control_flow_functions_and_sparse_tensors(tmp_path, model):
    loop = onnx.ModelProto()
    loop.CopyFrom(model)
    node = onnx.helper.make_node("Loop", ["n"], ["o"], body=model.graph)
    loop.graph.node.append(node)
    assert "a graph within a node" in wrong(tmp_path / "a.onnx", loop)
    function = onnx.ModelProto()
    function.CopyFrom(model)
    function.functions.add(name="twice")
    assert "holds functions" in wrong(tmp_path / "a.onnx", function)
    model.graph.sparse_initializer.add()
    assert "holds sparse tensors" in wrong(tmp_path / "a.onnx", model)


def test_a_file_cut_anywhere_is_refused_unless_it_ends_between_two_fields(tmp_path, mask_graph):
    path, passed = tmp_path / "a.onnx", []
    for end in range(len(mask_graph)):
        path.write_bytes(mask_graph[:end])
        with suppress(IrstdError):
            refuse_graph(path)
            passed.append(end)
    for end in passed:
        onnx.load_from_string(mask_graph[:end])
    assert len(passed) < 3


@pytest.mark.parametrize("data", [b"", b"\xff" * 40, b"\x3a\xff\xff\xff\xff\x0f", b"{}"])
def test_other_files(tmp_path, data):
    assert "is no ONNX graph" in wrong(tmp_path / "a.onnx", data)
