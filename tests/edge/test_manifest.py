import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from irstd_edge.edge.manifest import is_plain_name, manifest_from_json, manifest_to_json
from irstd_edge.edge.types import (
    BIT_DEPTHS,
    DecodeSpec,
    InputSpec,
    IrstdError,
    Manifest,
    ModelSpec,
    OperatingPoint,
    Quantization,
)

DIGEST = "0123456789abcdef" * 4
TEXT = st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=8)
SHA256 = st.text("0123456789abcdef", min_size=64, max_size=64)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
MANIFESTS = st.builds(
    Manifest,
    model=st.builds(
        ModelSpec,
        TEXT,
        st.builds(InputSpec, st.integers(1, 256), st.sampled_from(BIT_DEPTHS)),
        st.builds(
            DecodeSpec,
            st.sampled_from(["mask", "heatmap"]),
            st.floats(0.001, 0.999),
            st.lists(
                st.builds(OperatingPoint, *[st.floats(0, 1e6)] * 3),
                max_size=3,
            ).map(tuple),
        ),
    ),
    parent_sha256=SHA256,
    files=st.dictionaries(TEXT.filter(is_plain_name), SHA256, max_size=3),
    quantization=st.builds(
        Quantization,
        st.sampled_from(["ptq", "qat"]),
        st.dictionaries(TEXT, JSON, max_size=2),
        st.lists(st.tuples(TEXT, SHA256), max_size=2).map(tuple),
        st.lists(st.tuples(TEXT, TEXT), max_size=2).map(tuple),
    ),
    versions=st.dictionaries(TEXT, TEXT, max_size=2),
    accuracy=st.dictionaries(TEXT, st.dictionaries(TEXT, JSON, max_size=2), max_size=2),
)


def right():
    return {
        "schema": "irstd-edge/bundle/1",
        "model": "p2p",
        "parent_sha256": DIGEST,
        "files": {"fp32.onnx": DIGEST, "golden/a.png": DIGEST},
        "input": {
            "sizes": ["N", 1, "H", "W"],
            "channels": 1,
            "stride": 8,
            "bit_depth": 14,
            "normalisation": "full-scale",
        },
        "decode": {
            "kind": "heatmap",
            "threshold": 0.5,
            "operating_points": [{"threshold": 0.3, "pd": 0.9, "fa_per_mpx": 2.5}],
        },
        "quantization": {
            "method": "ptq",
            "recipe": {"seed": 1},
            "calibration": [{"name": "a", "sha256": DIGEST}],
            "float_layers": [{"layer": "head", "reason": "sub-pixel"}],
        },
        "versions": {"nncf": "3.4.0"},
        "accuracy": {"int8": {"iou": None}},
    }


def test_the_json_of_the_design_is_read():
    manifest = manifest_from_json(right(), "m")
    assert manifest == Manifest(
        model=ModelSpec(
            "p2p",
            InputSpec(8, 14),
            DecodeSpec("heatmap", 0.5, (OperatingPoint(0.3, 0.9, 2.5),)),
        ),
        parent_sha256=DIGEST,
        files={"fp32.onnx": DIGEST, "golden/a.png": DIGEST},
        quantization=Quantization("ptq", {"seed": 1}, (("a", DIGEST),), (("head", "sub-pixel"),)),
        versions={"nncf": "3.4.0"},
        accuracy={"int8": {"iou": None}},
    )
    assert json.loads(json.dumps(manifest_to_json(manifest))) == right()


@given(MANIFESTS)
def test_every_manifest_survives_the_trip_through_text(manifest):
    text = json.dumps(manifest_to_json(manifest), allow_nan=False)
    assert manifest_from_json(json.loads(text), "m") == manifest


@given(JSON)
def test_any_json_is_an_error_of_the_user_not_of_ours(value):
    with pytest.raises(IrstdError, match=r"^m: "):
        manifest_from_json(value, "m")


@given(st.data(), JSON)
def test_any_field_may_be_anything(data, value):
    """Whatever stands in a field, the answer is a manifest or one line of error."""
    root = right()
    place = data.draw(st.sampled_from([root, root["input"], root["decode"], root["quantization"]]))
    place[data.draw(st.sampled_from(list(place)))] = value
    try:
        manifest_from_json(root, "m")
    except IrstdError as error:
        assert str(error).startswith("m: ")
        assert "\n" not in str(error)


FAULTS = [
    (
        (),
        "schema",
        "irstd-edge/bundle/9",
        "schema 'irstd-edge/bundle/9' is not irstd-edge/bundle/1",
    ),
    ((), "schema", None, "schema is missing"),
    ((), "model", 7, "model is 7, not of type str"),
    ((), "model", "p2p\x1b[2J", "model is 'p2p\\x1b[2J', which cannot be printed"),
    ((), "parent_sha256", "abc", "parent_sha256 is 'abc', not 64 hexadecimal"),
    ((), "files", {"fp32.onnx": DIGEST.upper()}, "files.fp32.onnx is"),
    ((), "files", {"../evil": DIGEST}, "files names '../evil', which is not a plain file name"),
    ((), "versions", {"nncf": 3}, "versions.nncf is 3"),
    ((), "versions", {"a\n\x1b": 3}, r"versions.a\n\x1b is 3"),
    ((), "accuracy", {"int8": []}, "accuracy.int8 is"),
    (("decode",), "operating_points", None, "decode.operating_points is missing"),
    (("decode",), "operating_points", [{"pd": 1.0}], "decode.operating_points[0].threshold is"),
    (("input",), "stride", True, "input.stride is True, not of type int"),
    (("input",), "stride", 0, "input.stride is 0, not in 1..256"),
    (("input",), "stride", 10**9, "input.stride is 1000000000"),
    (("input",), "channels", 3, "input.channels is 3, not one of 1"),
    (("input",), "bit_depth", 9, "input.bit_depth is 9, not one of 8, 10"),
    (("input",), "normalisation", "zscore", "input.normalisation is 'zscore'"),
    (("decode",), "kind", "boxes", "decode: kind 'boxes' is not one of mask, heatmap"),
    (("decode",), "threshold", 1.0, "threshold: 1.0 is not between 0 and 1"),
    (("decode",), "threshold", math.inf, "threshold: inf is not between"),
    (("quantization",), "method", "magic", "quantization.method is 'magic', not one of ptq, qat"),
    (("quantization",), "calibration", [3], "quantization.calibration[0]: not a JSON object"),
    (("quantization",), "float_layers", [{}], "quantization.float_layers[0].layer is missing"),
]


@pytest.mark.parametrize(("path", "key", "value", "message"), FAULTS)
def test_a_fault_is_named_with_file_field_and_fix(path, key, value, message):
    root = right()
    place = root
    for step in path:
        place = place[step]
    place[key] = value
    with pytest.raises(IrstdError) as caught:
        manifest_from_json(root, "b/manifest.json")
    assert str(caught.value).startswith(f"b/manifest.json: {message}")


@pytest.mark.parametrize("key", right())
def test_every_field_is_required(key):
    root = right()
    del root[key]
    with pytest.raises(IrstdError, match=f"^m: {key} is missing"):
        manifest_from_json(root, "m")


@pytest.mark.parametrize("name", ["fp32.onnx", "golden/Misc 1.png", "golden/ä.png", "x" * 204])
def test_plain_names(name):
    assert is_plain_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "", "/", "..", "../x", "/etc/passwd", "golden/..", "golden/../x", "golden/", "golden//x",
        "other/x", "golden/a/b", ".hidden", "a\\b", "a\0b", "a\nb", "a\ud800", "x" * 205,
    ],
)  # fmt: skip
def test_names_that_lead_elsewhere(name):
    assert not is_plain_name(name)
