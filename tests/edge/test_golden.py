import json
from dataclasses import replace

import numpy as np
import pytest

from irstd_edge.edge import golden
from irstd_edge.edge.bundle import open_bundle, write_bundle
from irstd_edge.edge.devices import Machine
from irstd_edge.edge.golden import expected_of, golden_files, self_test
from irstd_edge.edge.runners import Runner, installed_runtimes, open_runner
from irstd_edge.edge.types import Frame, IrstdError, MachineError, Manifest, Quantization

GRAPHS = ("fp32.onnx", "int8.onnx", "int8.cpu.onnx")
WORDS = "int8 on made-up runs, but does not see what it should: in golden frame scene "


def logits_of(gain):
    """A network that works: logits = gain * (frame - 1/2)."""
    return lambda batch: [gain * (batch - np.float32(0.5))]


def runner(spec, infer):
    return Runner(spec, "made-up", "int8", infer)


def bundle_of(path, spec, frames, expected, extra=()):
    files = {**dict.fromkeys(GRAPHS, b"graph"), **golden_files(frames, expected), **dict(extra)}
    quantization = Quantization("ptq", {}, (), ())
    return write_bundle(path, Manifest(spec, "0" * 64, {}, quantization, {}), files)


@pytest.fixture
def bundle(tmp_path, mask_spec, frame):
    detections = runner(mask_spec, logits_of(20.0)).detect(frame)
    assert len(detections) == 2
    return bundle_of(tmp_path / "b", mask_spec, [frame], {g: [detections] for g in GRAPHS})


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_real_runner_sees_what_it_should(
    runtime, tmp_path, mask_spec, heatmap_graph, heatmap_spec, mask_graph, frame
):
    if runtime not in installed_runtimes():
        pytest.skip(f"{runtime} is not installed")
    counts = frame.counts.astype(np.uint16) * 64  # 14 bit, which no picture file can say
    frames = [frame, Frame("deep", counts, 14)]
    detect = runner(mask_spec, logits_of(20.0)).detect
    expected = {name: [detect(f) for f in frames] for name in GRAPHS}
    graphs = dict.fromkeys(GRAPHS, mask_graph)
    path = tmp_path / "b"
    bundle_of(path, mask_spec, frames, expected, extra=graphs)
    with open_runner(path, "int8", runtime, threads=1) as run:
        self_test(run, open_bundle(path))


def test_a_small_difference_passes(bundle, mask_spec):
    self_test(runner(mask_spec, logits_of(20.5)), bundle)


def test_openvino_is_held_against_what_it_gave_itself(tmp_path, mask_spec, frame):
    """It rounds more finely than int8.onnx is written; a bundle made without it lacks the entry."""
    written, own = (runner(mask_spec, logits_of(gain)).detect(frame) for gain in (6.0, 20.0))
    expected = {**{g: [written] for g in GRAPHS}, expected_of("int8.onnx", "openvino"): [own]}
    for name, held in (("with", expected), ("without", {g: [written] for g in GRAPHS})):
        bundle = bundle_of(tmp_path / name, mask_spec, [frame], held)
        finer, coarse = (
            replace_runtime(runner(mask_spec, logits_of(gain))) for gain in (20.0, 6.0)
        )
        good, bad = (finer, coarse) if name == "with" else (coarse, finer)
        self_test(good, bundle)
        with pytest.raises(IrstdError, match="the score at"):
            self_test(bad, bundle)


def replace_runtime(run):
    """The same, as if OpenVINO ran it."""
    return Runner(run.spec, "openvino", run.variant, run._infer)


def shifted(batch):
    return [20 * (np.roll(batch, 1, axis=3) - np.float32(0.5))]


def noisy(batch):
    logits = 20 * (batch - np.float32(0.5))
    logits[0, 0, 25, 3] = 5.0
    return [logits]


@pytest.mark.parametrize(
    ("infer", "wrong"),
    [
        (lambda batch: [np.full_like(batch, -9)], "nothing is found at row 6.5, col 8.5"),
        (shifted, "nothing is found at row 6.5, col 8.5"),
        (noisy, "nothing is expected at row 25.0, col 3.0"),
        (logits_of(6.0), "the score at row 6.5, col 8.5 is 0.918, not 1.000"),
    ],
)
def test_a_difference_is_told_in_words(bundle, mask_spec, infer, wrong):
    with pytest.raises(IrstdError) as caught:
        self_test(runner(mask_spec, infer), bundle)
    assert str(caught.value).startswith(f"{bundle.path}: {WORDS}{wrong}: choose another")


@pytest.mark.parametrize(("grown", "wrong"), [(0.9, False), (0.5, True), (1.2, False), (2.0, True)])
def test_a_mask_that_shrinks_or_grows_is_told(tmp_path, mask_spec, frame, grown, wrong):
    """Its scores are as they were."""
    detect = runner(mask_spec, logits_of(20.0)).detect
    found = [replace(each, area_px=100.0) for each in detect(frame)]
    expected = [[replace(each, area_px=100.0 / grown) for each in found]]
    held = bundle_of(tmp_path / "b", mask_spec, [frame], dict.fromkeys(GRAPHS, expected[0:1]))
    run = runner(mask_spec, logits_of(20.0))
    run.detect = lambda _: found
    if not wrong:
        self_test(run, held)
        return
    with pytest.raises(IrstdError, match=r"the area at row .* is 100 px, not"):
        self_test(run, held)


def test_a_few_pixels_of_a_small_target_may_differ(tmp_path, mask_spec, frame):
    run = runner(mask_spec, logits_of(20.0))
    found = [replace(each, area_px=4.0) for each in run.detect(frame)]
    expected = [[replace(each, area_px=7.0) for each in found]]
    run.detect = lambda _: found
    self_test(run, bundle_of(tmp_path / "b", mask_spec, [frame], dict.fromkeys(GRAPHS, expected)))


def test_areas_of_points_and_of_older_bundles_may_differ(tmp_path, mask_spec, heatmap_spec, frame):
    run = runner(mask_spec, logits_of(20.0))
    found = run.detect(frame)
    expected = dict.fromkeys(GRAPHS, [[replace(each, area_px=999.0) for each in found]])
    run.detect = lambda _: found
    self_test(run, bundle_of(tmp_path / "points", heatmap_spec, [frame], expected))
    files = golden_files([frame], expected)
    golden = json.loads(files["golden/golden.json"])
    del golden["tolerance"]["area"], golden["tolerance"]["area_px"]
    older = {"golden/golden.json": json.dumps(golden).encode()}
    self_test(run, bundle_of(tmp_path / "older", mask_spec, [frame], expected, older))


@pytest.mark.parametrize("kind", [IrstdError, MachineError])
def test_a_golden_frame_that_does_not_run_is_named(bundle, mask_spec, frame, kind):
    run = runner(mask_spec, logits_of(20.0))

    def refuse(_):
        raise kind("int8.onnx: no engine of it takes 1 frames of 32x32")

    run.detect = refuse
    words = rf"golden frame {frame.name}, one of .*: int8.onnx: no eng"
    with pytest.raises(IrstdError, match=words) as caught:
        self_test(run, bundle)
    assert caught.type is kind


@pytest.mark.parametrize(
    ("isa", "reduced", "runtime", "hinted"),
    [
        ("x86_64+avx2", False, "openvino", True),
        ("x86_64+avx2", True, "openvino", False),
        ("x86_64+avx2", False, "tensorrt", False),
        ("x86_64+avx2+avx512_vnni", False, "openvino", False),
    ],
)
def test_a_processor_that_clips_is_told_of_the_range(
    bundle, mask_spec, monkeypatch, isa, reduced, runtime, hinted
):
    machine = Machine("cpu", isa, 2, None, None, None, load=0.5)
    monkeypatch.setattr(golden, "this_machine", lambda: machine)
    recipe = replace(bundle.manifest.quantization, recipe={"reduced_range": reduced})
    made = replace(bundle, manifest=replace(bundle.manifest, quantization=recipe))
    run = Runner(mask_spec, runtime, "int8", logits_of(6.0))
    with pytest.raises(IrstdError) as caught:
        self_test(run, made)
    assert ("clips the sums of INT8: `quantize --reduced-range`" in str(caught.value)) == hinted
    assert str(caught.value).endswith("choose another runtime or variant")


@pytest.mark.parametrize("expected_gain", [0.2, -0.2])
def test_a_score_at_the_threshold_may_come_and_go(tmp_path, mask_spec, frame, expected_gain):
    faint = replace(frame, counts=np.where(frame.counts > 200, 180, frame.counts))
    detections = runner(mask_spec, logits_of(expected_gain)).detect(faint)
    found = runner(mask_spec, logits_of(-expected_gain)).detect(faint)
    assert {len(detections), len(found)} == {2, 1}  # where dark and bright change places
    bundle = bundle_of(tmp_path / "b", mask_spec, [faint], {g: [detections] for g in GRAPHS})
    self_test(runner(mask_spec, logits_of(-expected_gain)), bundle)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v["expected"].pop("int8.onnx"), r"expected\.int8\.onnx is missing"),
        (lambda v: v["expected"]["int8.onnx"].pop("scene"), r"int8\.onnx\.scene is missing"),
        (lambda v: v["frames"][0].update(name="../x"), "which the manifest does not list"),
        (lambda v: v["frames"][0].update(bit_depth=7), "bit_depth is 7, not one of"),
        (lambda v: v.pop("tolerance"), "tolerance is missing"),
        (lambda v: v["expected"]["int8.onnx"]["scene"][0].update(row="1"), r"row is '1'"),
    ],
)
def test_what_does_not_fit_in_golden_json_is_named(bundle, mask_spec, change, message):
    file = bundle.path / "golden/golden.json"
    value = json.loads(file.read_text())
    change(value)
    file.write_text(json.dumps(value))
    with pytest.raises(IrstdError, match=rf"golden\.json: .*{message}"):
        self_test(runner(mask_spec, logits_of(20.0)), bundle)


def test_a_bundle_without_golden_frames(tmp_path, mask_spec):
    quantization = Quantization("ptq", {}, (), ())
    files = dict.fromkeys(GRAPHS, b"graph")
    bundle = write_bundle(
        tmp_path / "b", Manifest(mask_spec, "0" * 64, {}, quantization, {}), files
    )
    with pytest.raises(IrstdError, match=r"golden\.json: not in the bundle: quantize again"):
        self_test(runner(mask_spec, logits_of(20.0)), bundle)
