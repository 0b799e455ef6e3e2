"""The file of what layers cost, and how a stopped run goes on from it."""

import json
import shutil

import numpy as np
import pytest

from irstd_edge.calibration import sensitivity_file
from irstd_edge.calibration.sensitivity import LayerError
from irstd_edge.calibration.sensitivity_file import sensitivity_to_file
from irstd_edge.edge.bundle import write_bundle
from irstd_edge.edge.dataset import open_dataset
from irstd_edge.edge.frames import png_of
from irstd_edge.edge.types import IrstdError, Manifest, Quantization


def error(layer):
    return LayerError(layer, 10, 30.0, 0.01, None, 1, 0, -0.01)


@pytest.fixture(scope="module")
def bundle(case, tmp_path_factory):
    manifest = Manifest(case.spec, "0" * 64, {}, Quantization("ptq", {}, (), ()), {})
    graphs = {name: case.graphs[name] for name in ("fp32.onnx", "int8.onnx")}
    return write_bundle(tmp_path_factory.mktemp("s") / "bundle", manifest, graphs)


@pytest.fixture
def measured(monkeypatch):
    """In place of the measurement: three layers, of which `measured` collects the new ones."""
    new = []

    def sensitivity(fp32, int8, spec, samples, *, known, keep, progress):
        assert fp32 and int8 and len(samples) > 0
        for layer in ("a", "b", "c"):
            if layer not in known:
                new.append(layer)
                keep(error(layer))
        return tuple(error(layer) for layer in ("a", "b", "c"))

    monkeypatch.setattr(sensitivity_file, "sensitivity", sensitivity)
    return new


def test_it_holds_every_layer_of_the_bundle(bundle, scenes, tmp_path, measured):
    out = tmp_path / "s.json"
    errors, skips = sensitivity_to_file(bundle, scenes, out)
    written = json.loads(out.read_text())
    assert written["bundle"] == bundle.sha256
    assert [layer["layer"] for layer in written["layers"]] == ["a", "b", "c"]
    assert [e.layer for e in errors] == measured == ["a", "b", "c"]
    assert skips == () and written["skipped"] == []


def test_a_held_out_frame_that_cannot_be_used_is_named(bundle, scenes, tmp_path, measured):
    damaged = tmp_path / "d"
    shutil.copytree(scenes, damaged)
    name = open_dataset(damaged, "val").names[0]
    (damaged / "masks" / f"{name}.png").write_bytes(png_of(np.ones((8, 8), bool)))
    _, skips = sensitivity_to_file(bundle, damaged, tmp_path / "s.json")
    assert [skip.name for skip in skips] == [name]
    written = json.loads((tmp_path / "s.json").read_text())
    assert [skip["name"] for skip in written["skipped"]] == [name]


def test_it_goes_on_from_what_is_there(bundle, scenes, tmp_path, measured):
    out = tmp_path / "s.json"
    sensitivity_to_file(bundle, scenes, out)
    whole = json.loads(out.read_text())
    out.write_text(json.dumps({**whole, "layers": whole["layers"][:1]}))
    measured.clear()
    sensitivity_to_file(bundle, scenes, out)
    assert measured == ["b", "c"] and json.loads(out.read_text()) == whole


@pytest.mark.parametrize(
    "change, words",
    [
        ({"schema": "irstd-edge/sensitivity/1"}, "holds something else"),  # of other figures
        ({"bundle": "1" * 64}, "is of another bundle"),
        ({"frames": "1" * 64}, "is of other frames"),
        ({"frames": None}, "is of other frames"),
        ({"layers": [{"layer": "a"}]}, "its layers cannot be read"),
        ({"layers": 7}, "its layers cannot be read"),
    ],
)
def test_a_foreign_file_is_left_alone(bundle, scenes, tmp_path, measured, change, words):
    out = tmp_path / "s.json"
    sensitivity_to_file(bundle, scenes, out)
    text = json.dumps({**json.loads(out.read_text()), **change})
    out.write_text(text)
    with pytest.raises(IrstdError, match=words):
        sensitivity_to_file(bundle, scenes, out)
    assert out.read_text() == text
