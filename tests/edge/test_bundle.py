import hashlib
import json
import os

import pytest

from irstd_edge.edge.bundle import (
    VARIANTS,
    Bundle,
    graph_name,
    open_bundle,
    read_manifest,
    write_bundle,
)
from irstd_edge.edge.policy import MAX_TEXT_BYTES
from irstd_edge.edge.types import IrstdError, Manifest, Quantization

FILES = {"fp32.onnx": b"float", "int8.onnx": b"signed", "golden/a.png": b"picture"}


@pytest.fixture
def manifest(mask_spec):
    return Manifest(mask_spec, "0" * 64, {}, Quantization("ptq", {"seed": 1}, (), ()), {"a": "1"})


@pytest.fixture
def bundle(tmp_path, manifest):
    return write_bundle(tmp_path / "b", manifest, FILES)


def test_what_is_written_is_read_back(bundle, manifest):
    opened = open_bundle(bundle.path)
    assert opened == bundle
    assert opened.manifest.model == manifest.model
    assert opened.manifest.files == {n: hashlib.sha256(d).hexdigest() for n, d in FILES.items()}
    assert {name: (bundle.path / name).read_bytes() for name in FILES} == FILES
    assert opened.sha256 == hashlib.sha256((bundle.path / "manifest.json").read_bytes()).hexdigest()


def test_a_bundle_replaces_a_bundle_whole(bundle, manifest):
    write_bundle(bundle.path, manifest, {"fp16.onnx": b"half"})
    names = {str(f.relative_to(bundle.path)) for f in bundle.path.rglob("*") if f.is_file()}
    assert names == {"manifest.json", "fp16.onnx"}


def test_a_failed_write_leaves_the_old_one(bundle, manifest, tmp_path):
    with pytest.raises(TypeError):
        write_bundle(bundle.path, manifest, {"fp32.onnx": b"x", "int8.onnx": None})
    unwritable = Manifest(**{**vars(manifest), "accuracy": {"int8": {"iou": float("nan")}}})
    with pytest.raises(ValueError, match="JSON"):
        write_bundle(bundle.path, unwritable, {"fp32.onnx": b"x"})
    assert open_bundle(bundle.path) == bundle
    assert os.listdir(tmp_path) == ["b"]


@pytest.mark.parametrize("name", ["../x", "manifest.json", "/x", "other/x"])
def test_a_name_with_a_path_is_not_written(name, tmp_path, manifest):
    with pytest.raises(ValueError, match="cannot be the name"):
        write_bundle(tmp_path / "b", manifest, {name: b"x"})
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino", "tensorrt"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_variant_is_one_file_but_for_onnxruntimes_int8(variant, runtime):
    own = (variant, runtime) == ("int8", "onnxruntime")
    assert graph_name(variant, runtime) == ("int8.cpu.onnx" if own else f"{variant}.onnx")


def test_a_graph_is_found_by_variant_and_runtime(bundle):
    assert bundle.graph("int8", "openvino") == bundle.path / "int8.onnx"
    assert bundle.variants("openvino") == ("fp32", "int8")
    assert bundle.variants("onnxruntime") == ("fp32",)
    with pytest.raises(IrstdError, match=r"no int8\.cpu\.onnx; variants for onnxruntime are: fp32"):
        bundle.graph("int8", "onnxruntime")
    with pytest.raises(IrstdError, match="'int4' is not one of fp32, fp16, int8, int8-fp16"):
        bundle.graph("int4", "openvino")


def test_a_folder_that_is_no_bundle(tmp_path):
    with pytest.raises(IrstdError, match=r"not a bundle, it has no manifest\.json"):
        read_manifest(tmp_path)
    with pytest.raises(IrstdError, match="not a bundle"):
        read_manifest(tmp_path / "absent")


def remove(bundle: Bundle) -> None:
    (bundle.path / "int8.onnx").unlink()


def alter(bundle: Bundle) -> None:
    (bundle.path / "int8.onnx").write_bytes(b"singed")


def link(bundle: Bundle) -> None:
    target = bundle.path / "int8.onnx"
    target.rename(bundle.path / "elsewhere")
    target.symlink_to(bundle.path / "elsewhere")


def pipe(bundle: Bundle) -> None:
    (bundle.path / "int8.onnx").unlink()
    os.mkfifo(bundle.path / "int8.onnx")


def folder(bundle: Bundle) -> None:
    (bundle.path / "int8.onnx").unlink()
    (bundle.path / "int8.onnx").mkdir()


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (remove, "missing from the bundle"),
        (alter, "was altered"),
        (link, "not a plain file"),
        (pipe, "not a plain file"),
        (folder, "not a plain file"),
    ],
)
def test_damage_is_named_with_the_file(bundle, damage, reason):
    damage(bundle)
    with pytest.raises(IrstdError, match=rf"b/int8\.onnx: .*{reason}.*: copy the bundle again"):
        open_bundle(bundle.path)


def test_a_link_in_place_of_the_golden_folder(bundle, tmp_path):
    (bundle.path / "golden").rename(tmp_path / "outside")
    (bundle.path / "golden").symlink_to(tmp_path / "outside")
    with pytest.raises(IrstdError, match="golden: is a link"):
        open_bundle(bundle.path)


def test_a_manifest_that_is_not_ours(bundle):
    file = bundle.path / "manifest.json"
    value = json.loads(file.read_text())
    for text, message in (
        ("{", "not the JSON of a bundle's manifest"),
        ('{"schema": NaN}', "NaN is not JSON"),
        ("[" * 100_000, "not the JSON"),
        (
            json.dumps({**value, "schema": "irstd-edge/bundle/2"}),
            "install the irstd-edge that wrote",
        ),
        (json.dumps({**value, "files": {"../../etc/passwd": "0" * 64}}), "not a plain file name"),
        (" " * (MAX_TEXT_BYTES + 1), "more than the"),
    ):
        file.write_text(text)
        with pytest.raises(IrstdError, match=message):
            open_bundle(bundle.path)


def test_only_a_bundle_that_holds_nothing_else_is_replaced(bundle, manifest, tmp_path):
    note = bundle.path / "notes.txt"
    note.write_text("what we saw on the range")
    with pytest.raises(IrstdError, match=r"not empty \(notes\.txt\): remove it or choose"):
        write_bundle(bundle.path, manifest, {"fp16.onnx": b"half"})
    assert note.exists() and (bundle.path / "fp32.onnx").exists()
    other = tmp_path / "app"
    (other / "images").mkdir(parents=True)
    (other / "manifest.json").write_text('{"collected": "2024-05"}')
    with pytest.raises(IrstdError, match=r"may be no bundle of ours \(.*manifest\.json"):
        write_bundle(other, manifest, {"fp16.onnx": b"half"})
    assert sorted(os.listdir(other)) == ["images", "manifest.json"]
    with pytest.raises(IrstdError, match=r"cannot be written .*: check path"):
        write_bundle(tmp_path / ("x" * 300), manifest, {"fp16.onnx": b"half"})


def test_a_bundle_is_named_as_it_was_when_it_was_opened(bundle):
    before = bundle.sha256
    (bundle.path / "manifest.json").write_text("{}")
    assert bundle.sha256 == before
