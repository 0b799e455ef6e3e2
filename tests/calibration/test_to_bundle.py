"""Weights and frames to a bundle, end to end on synthetic scenes."""

import copy
import json
import os
import pickle
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from shutil import copy as copy_file
from shutil import copytree, rmtree

import cv2
import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, numpy_helper

from irstd_edge.benchmarks.faults import FAULTS
from irstd_edge.benchmarks.scenes import write_dataset
from irstd_edge.calibration import export, qat, refusals, sensitivity, to_bundle
from irstd_edge.calibration.export import graphs_of
from irstd_edge.calibration.fake_quantize import FakeQuantize
from irstd_edge.calibration.judge import judge as to_judge
from irstd_edge.calibration.layer_gain import Choice
from irstd_edge.calibration.layouts import rounded_layers
from irstd_edge.calibration.qat import QatRecipe
from irstd_edge.calibration.quantize import quantize
from irstd_edge.calibration.to_bundle import quantize_to_bundle
from irstd_edge.edge import dataset
from irstd_edge.edge.bundle import VARIANTS, graph_name, open_bundle
from irstd_edge.edge.dataset import fingerprint, open_dataset
from irstd_edge.edge.devices import this_machine
from irstd_edge.edge.files import sha256_of
from irstd_edge.edge.first_step import first_step
from irstd_edge.edge.frames import read_frame
from irstd_edge.edge.golden import self_test
from irstd_edge.edge.runners import installed_runtimes, open_runner
from irstd_edge.edge.types import IrstdError, Sample
from irstd_edge.models import create_model
from irstd_edge.models.onnx_from_torch import onnx_from_torch

OPTIONS = {"frames": 6, "keep_float": ["high2.*"]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("bundles")


@pytest.fixture(scope="module", autouse=True)
def quantized_once():
    """The same network, frames and options are given to NNCF once: they give the same again."""
    known = {}

    def remembered(net, model, batches, *options):
        weights = {name: value.numpy() for name, value in net.state_dict().items()}
        # By their numbers: a pickled tensor holds its address.
        key = pickle.dumps((weights, model, [batch.numpy() for batch in batches], options))
        if key not in known:
            known[key] = quantize(net, model, batches, *options)
        return copy.deepcopy(known[key])

    def exported_once(net, spec, *options):
        weights = {name: value.numpy() for name, value in net.state_dict().items()}
        # Of a quantizer some are no weights: its bits, its sign.
        plain = [
            [(name, value) for name, value in vars(part).items() if isinstance(value, int | str)]
            for part in net.modules()
        ]
        key = pickle.dumps((weights, plain, spec, options))
        if key not in known:
            known[key] = onnx_from_torch(net, spec, *options)
        return known[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(to_bundle, "quantize", remembered)
        patch.setattr(export, "onnx_from_torch", exported_once)
        yield


@pytest.fixture(scope="module")
def ptq(p2p_weights, scenes, folder):
    quantize_to_bundle(p2p_weights, [scenes], folder / "ptq", method="ptq", **OPTIONS)
    return open_bundle(folder / "ptq")


def test_it_holds_every_form(ptq):
    runtimes = ("onnxruntime", "openvino", "tensorrt")
    assert {graph_name(v, r) for v in VARIANTS for r in runtimes} <= set(ptq.manifest.files)


def test_its_int8_is_held_against_fp32_under_sensor_faults(ptq, scenes, tmp_path):
    picture, out = tmp_path / "sheet.png", tmp_path / "found.json"
    arguments = ("--data", scenes, "--faults", "--picture", picture, "--json", out)
    command = [sys.executable, "-m", "irstd_edge.cli", "eval", ptq.path, *arguments]
    run = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    found = json.loads(out.read_text())
    none, *spoilt = found["faults"]
    assert [record["fault"] for record in spoilt] == list(FAULTS)
    assert none["f1_3px"] == found["f1_3px"] and none["targets"] == found["targets"]
    for record in (none, *spoilt):
        assert record["reference"]["variant"] == "fp32"
        flips = [target["flip"] for target in record["drift"]["flipped"]]
        assert flips.count("lost") == record["drift"]["targets_lost"]
        assert flips.count("gained") == record["drift"]["targets_gained"]
        assert record["fault"] in run.stdout
    assert read_frame(picture).shape == (3 * (512 + 28), 3 * 512)


def test_what_each_layer_costs_is_told_on_the_command_line(ptq, scenes, tmp_path):
    out = tmp_path / "layers.json"
    command = ("sensitivity", ptq.path, "--data", scenes, "--out", out, "--json", "-")
    command = [sys.executable, "-m", "irstd_edge.cli", *map(str, command)]
    wide = {**os.environ, "COLUMNS": "160"}
    run = subprocess.run(command, env=wide, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    layers = json.loads(run.stdout)
    rounded = rounded_layers(onnx.load(ptq.graph("int8", "openvino")))
    assert {layer["layer"] for layer in layers} == set(rounded)
    kept = json.loads(out.read_text())
    assert (kept["bundle"], kept["layers"]) == (ptq.sha256, layers)
    assert all(name in run.stderr for name in rounded)


def test_its_manifest_says_what_a_step_is_in_counts(ptq):
    step = ptq.manifest.quantization.recipe["sensor_step"]
    assert (step["bit_depth"], step["counts_per_unit"]) == (8, 255)
    assert step["int8_input"] == pytest.approx(255 / 127)
    again = first_step(ptq.graph("int8", "openvino"), ptq.manifest.model.input.stride)
    assert step["first_activation"] == pytest.approx(255 * again.of_input)
    assert step["tensor"] == again.tensor


def test_a_step_in_counts_is_told_of_every_int8_graph(ptq):
    """Unsigned steps, of ONNX Runtime's own form, are half as large."""
    step = ptq.manifest.quantization.recipe["sensor_step"]["first_activation"]
    for graph, share in (("int8.onnx", 1), ("int8-fp16.onnx", 1), ("int8.cpu.onnx", 0.5)):
        again = first_step(ptq.path / graph, ptq.manifest.model.input.stride)
        assert 255 * again.of_input == pytest.approx(share * step, rel=0.01), graph


def test_a_bundle_freezes_the_policy_that_was_asked_for(local, p2p_weights, scenes, folder):
    assert local.manifest.model.input.normalisation == "local-contrast"
    with open_runner(local.path) as run:
        self_test(run, local)
        assert run.spec.input.normalisation == "local-contrast"
    with pytest.raises(IrstdError, match="--normalise: 'z-score' is not known"):
        quantize_to_bundle(p2p_weights, [scenes], folder / "no", normalise="z-score")


def test_its_manifest_says_where_where_it_comes_from(ptq, p2p_weights, scenes):
    manifest = ptq.manifest
    assert manifest.parent_sha256 == sha256_of(p2p_weights)
    assert manifest.model.name == "p2p"
    assert manifest.model.decode.threshold == 0.4
    assert manifest.quantization.method == "ptq"
    assert manifest.quantization.recipe["seed"] == 0
    assert "equalised" not in manifest.quantization.recipe, "p2p has no maps of free scale"
    assert ("high2.conv1", "--keep-float") in manifest.quantization.float_layers
    assert {"irstd-edge", "torch", "nncf", "onnx", "python"} <= set(manifest.versions)
    names = [name for name, _ in manifest.quantization.calibration]
    assert len(names) == 6
    assert set(names) <= set(open_dataset(scenes, "train").names)


def test_several_data_sets_are_calibrated_and_judged_on_together(
    p2p_weights, scenes, folder, tmp_path
):
    """Though their frames have the same names."""
    other = tmp_path / "other"
    write_dataset(other, frames=40, size=(96, 64), seed=8)
    both = quantize_to_bundle(
        p2p_weights, [scenes, other], folder / "of-two", method="ptq", **OPTIONS
    )
    known = [
        {fingerprint(frame) for frame in map(data.frame, data.names)}
        for data in (open_dataset(root, "train") for root in (scenes, other))
    ]
    calibration = set(both.manifest.quantization.calibration)
    assert calibration == calibration & (known[0] | known[1])
    assert calibration & known[0] and calibration & known[1]
    held_out = [len(open_dataset(root, "val").names) for root in (scenes, other)]
    assert all(each["images"] == sum(held_out) for each in both.manifest.accuracy.values())


def test_data_sets_of_two_bit_depths_are_refused(p2p_weights, scenes, folder, tmp_path):
    deep = tmp_path / "deep"
    write_dataset(deep, frames=40, size=(64, 64), seed=8, bits=14)
    words = f"--data: {deep}: .* has 14 bits, .* has 8: a bundle is for one depth"
    with pytest.raises(IrstdError, match=words):
        quantize_to_bundle(p2p_weights, [scenes, deep], folder / "never", method="ptq")
    assert not (folder / "never").exists()


def test_masks_and_points_do_not_judge_one_network_together(scenes, folder, tmp_path):
    points = tmp_path / "points"
    copytree(scenes, points)
    truth = open_dataset(points, None)
    found = {s.frame.name: s.points.tolist() for s in truth.samples() if isinstance(s, Sample)}
    rmtree(points / "masks")
    (points / "points.json").write_text(json.dumps(found))
    with pytest.raises(IrstdError, match=f"--data: {points} has points alone, another set has"):
        quantize_to_bundle("mshnet", [scenes, points], folder / "never", method="ptq")
    assert not (folder / "never").exists()


def test_what_float16_cannot_hold_is_refused_before_any_training(
    p2p_weights, scenes, folder, monkeypatch
):
    monkeypatch.setattr(to_bundle, "train_quantized", None)
    monkeypatch.setattr(refusals, "LARGEST", 1e-3)
    for words in (
        f"{p2p_weights}: .* reaches .*, and float16 ends at",
        "these weights give values",
    ):
        with pytest.raises(IrstdError, match=words):
            quantize_to_bundle(p2p_weights, [scenes], folder / "never", **OPTIONS)
        monkeypatch.setattr(to_bundle, "refuse_large", lambda path, net: None)
    assert not list(folder.glob("never*"))


def test_where_float16_ends():
    net = create_model("p2p").deploy()
    refusals.refuse_large(Path("w.safetensors"), net)
    refusals.refuse_wide(FakeQuantize(torch.tensor(60_000.0)))
    with pytest.raises(IrstdError, match="values up to 7.* on the calibration frames, and float16"):
        refusals.refuse_wide(FakeQuantize(torch.tensor(70_000.0)))
    next(net.parameters()).data[0] = 1e5
    with pytest.raises(IrstdError, match=r"w\.safetensors: stem.* reaches 100000, and float16"):
        refusals.refuse_large(Path("w.safetensors"), net)


def test_it_was_judged_on_the_held_out_part_alone(ptq, scenes):
    held_out = open_dataset(scenes, "val").names
    accuracy = ptq.manifest.accuracy
    assert set(accuracy) == {"fp32", "fp16", "int8", "int8-fp16", "int8.cpu"}
    assert all(result["images"] == len(held_out) for result in accuracy.values())


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_device_sees_in_it_what_it_should(ptq, runtime, variant):
    if runtime not in installed_runtimes():
        pytest.skip(f"{runtime} is not installed")
    if (runtime, variant) == ("onnxruntime", "int8-fp16"):
        pytest.skip("ONNX Runtime's optimizer overflows a bias of float16")
    if variant == "int8-fp16" and this_machine().saturates:  # random weights are clipped often
        with pytest.raises(IrstdError, match="no VNNI and clips .*quantize --reduced-range"):
            open_runner(ptq, variant, runtime, threads=1)
        return
    with open_runner(ptq, variant, runtime, threads=1) as runner:
        self_test(runner, ptq)


def test_there_is_something_to_see(ptq):
    expected = json.loads((ptq.path / "golden/golden.json").read_text())["expected"]
    for graph, frames in expected.items():
        scores = [found["score"] for detections in frames.values() for found in detections]
        assert max(scores) > 0.5, f"{graph}: nothing above what the self test may overlook"


JUDGED = []
"""What was asked whether training gained."""


@contextmanager
def quick_training(gains):
    """One pass of large steps, said to gain or not, in place of the default's of small ones."""

    def judged(after, before, reference):
        JUDGED.append({"fp32": reference, "ptq": before, "qat": after})
        return gains

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(to_bundle, "QatRecipe", lambda: QatRecipe(epochs=1, lr=1e-3))
        patch.setattr(to_bundle, "is_better", judged)
        patch.setattr(qat, "STEPS_KEPT", 1)
        yield


@pytest.fixture(scope="module")
def trained(p2p_weights, scenes, folder):
    with quick_training(gains=True):
        return quantize_to_bundle(p2p_weights, [scenes], folder / "qat", **OPTIONS)


def test_training_is_kept_where_it_gains(ptq, trained):
    check_training(trained, gains=True)
    assert trained.manifest.files["int8.onnx"] != ptq.manifest.files["int8.onnx"]


def test_training_in_vain_gives_the_graphs_of_none_and_the_test_list_is_never_read(
    p2p_weights, scenes, folder, ptq, monkeypatch
):
    opened = []

    def spy(root, split="test"):
        opened.append(split)
        return open_dataset(root, split)

    monkeypatch.setattr(dataset, "open_dataset", spy)
    monkeypatch.setattr(to_bundle, "quantize", quantize)  # once more: it gives the same again
    with quick_training(gains=False):
        in_vain = quantize_to_bundle(p2p_weights, [scenes], folder / "in-vain", **OPTIONS)
    check_training(in_vain, gains=False)
    assert in_vain.manifest.files == ptq.manifest.files
    assert sorted(opened) == ["train", "val"]


def check_training(bundle, gains):
    record = bundle.manifest.quantization.recipe["qat"]
    assert bundle.manifest.quantization.method == ("qat" if gains else "ptq")
    assert record["kept"] is gains
    assert record["held_out"] in JUDGED
    of_graph = bundle.manifest.accuracy["fp32"]["f1_3px"]
    assert record["held_out"]["fp32"]["f1_3px"] == pytest.approx(of_graph)
    json.dumps(bundle.manifest.quantization.recipe, allow_nan=False)


def test_a_training_that_was_killed_goes_on(p2p_weights, scenes, folder, trained):
    out, kept = folder / "stopped", folder / "stopped.qat" / "last.ckpt"
    steps = []

    def quantized(stop_at=None, **options):
        def progress(what, done, total):
            if what == "training on":
                steps.append(done)
                if done == stop_at:
                    os._exit(9)

        with quick_training(gains=True):
            return quantize_to_bundle(
                p2p_weights, [scenes], out, **OPTIONS, **options, progress=progress
            )

    pid = os.fork()
    if not pid:  # a child that dies in its third step, without a word
        try:
            quantized(stop_at=3)
        finally:  # or it would go on as pytest
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9
    assert kept.exists() and not out.exists()
    with pytest.raises(IrstdError, match="add --resume to go on"):
        quantized()
    assert kept.exists() and not out.exists()
    resumed = quantized(resume=True)
    assert steps[0] == 3
    assert resumed.manifest.files == trained.manifest.files
    assert not kept.parent.exists() and not (folder / "qat.qat").exists()


def test_ranges_go_by_the_rule_that_was_asked_for(ptq, p2p_weights, scenes, folder):
    options = {**OPTIONS, "method": "ptq", "ranges": "min-max"}
    whole = quantize_to_bundle(p2p_weights, [scenes], folder / "min-max", **options)
    assert whole.manifest.quantization.recipe["ranges"] == "min-max"
    assert ptq.manifest.quantization.recipe["ranges"] == "percentile"
    steps = [activation_steps(bundle.path / "int8.onnx") for bundle in (whole, ptq)]
    assert steps[0].keys() == steps[1].keys()
    ends = [activation_steps(bundle.path / "int8.cpu.onnx") for bundle in (whole, ptq)]
    assert any(ends[1][name] < 0.97 * ends[0][name] for name in ends[0].keys() - steps[0].keys())
    assert any(steps[1][name] < 0.97 * steps[0][name] for name in steps[0])


def test_weights_of_7_bits_and_layers_by_the_clock(ptq, p2p_weights, scenes, folder, monkeypatch):
    whole = rounded_layers(onnx.load(ptq.path / "int8.cpu.onnx"))
    some = dict(list(whole.items())[:3])
    choice = Choice(frozenset(some.values()), {"rounded": list(some)})
    monkeypatch.setattr(to_bundle, "fastest_layers", lambda *_: choice)
    options = {**OPTIONS, "method": "ptq", "reduced_range": True, "time_layers": True}
    made = quantize_to_bundle(p2p_weights, [scenes], folder / "reduced", **options)
    recipe = made.manifest.quantization.recipe
    assert recipe["reduced_range"] and recipe["time_layers"] == {"rounded": list(some)}
    assert rounded_layers(onnx.load(made.path / "int8.cpu.onnx")) == some
    for bundle, most in ((ptq, 127), (made, 63)):
        stored = onnx.load(bundle.path / "int8.onnx").graph.initializer
        weights = [
            numpy_helper.to_array(each) for each in stored if each.data_type == TensorProto.INT8
        ]
        assert max(np.abs(w.astype(int)).max() for w in weights if w.ndim == 4) == most


def activation_steps(path):
    """Tensor -> its scale, of every QuantizeLinear."""
    model = onnx.load(path)
    constants = {c.name: numpy_helper.to_array(c) for c in model.graph.initializer}
    return {
        node.input[0]: float(constants[node.input[1]])
        for node in model.graph.node
        if node.op_type == "QuantizeLinear"
    }


def test_what_loses_too_much_is_not_written(ptq, p2p_weights, scenes, folder, monkeypatch):
    def refuse(judged, reference, max_drop, fix):
        raise IrstdError(f"--max-drop: {reference} {max_drop} {fix}")

    names = [name for name in ptq.manifest.files if name.endswith(".onnx")]
    graphs = {name: (ptq.path / name).read_bytes() for name in names}  # of the same arguments
    monkeypatch.setattr(to_bundle, "graphs_of", lambda *_, **options: graphs)
    monkeypatch.setattr(to_bundle, "refuse_drop", refuse)
    with pytest.raises(IrstdError, match=r"fp32\.onnx 100 try --method qat, or --keep-float"):
        quantize_to_bundle(
            p2p_weights, [scenes], folder / "lossy", method="ptq", max_drop=100, **OPTIONS
        )
    assert not (folder / "lossy").exists()


NEEDED = {"high1.conv1", "enhance"}
"""Layers of which each loses a point of F1 when it is rounded, in `local`."""


@pytest.fixture(scope="module")
def released():
    """The layers that were left in float, as often as the graphs were made."""
    return []


@pytest.fixture(scope="module")
def judged():
    """The graphs that were judged each time."""
    return []


@pytest.fixture(scope="module")
def local(p2p_weights, scenes, folder, released, judged):
    """A bundle of another policy, of which --max-drop left layers in float; of six, for speed."""
    made = {}

    def drop(judged, reference):
        return "int8.onnx", float(len(NEEDED - released[-1])), "F1"

    def graphs(exports, spec, frames, layers=(), **options):
        released.append(set(layers))
        key = NEEDED == set(layers)  # the others are not looked at: for speed
        if key not in made:
            made[key] = graphs_of(exports, spec, frames, layers, **options)
        return made[key]

    def judge(runners, *given):
        judged.append(set(runners))
        return to_judge(runners, *given)

    def some_layers(model):
        layers = rounded_layers(model)
        return {n: layers[n] for n in layers if n in NEEDED or n in list(layers)[:5]}

    options = {"method": "ptq", "frames": 2, "max_drop": 0.5, "normalise": "local-contrast"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sensitivity, "rounded_layers", some_layers)
        patch.setattr(to_bundle, "worst_drop", drop)
        patch.setattr(to_bundle, "judge", judge)
        patch.setattr(to_bundle, "graphs_of", graphs)
        patch.setattr(to_bundle, "refuse_drop", lambda *_: None)
        return quantize_to_bundle(p2p_weights, [scenes], folder / "local", **options)


def test_layers_stay_in_float_until_the_drop_holds(local, released):
    kept = {n: why for n, why in local.manifest.quantization.float_layers if "--max-drop" in why}
    assert NEEDED == set(kept) == released[-1]
    assert all("--max-drop 0.5: rounded alone, it moves" in why for why in kept.values())
    measured = local.manifest.quantization.recipe["sensitivity"]
    assert set(kept) <= {record["layer"] for record in measured}
    for name in ("int8.onnx", "int8.cpu.onnx", "int8-fp16.onnx"):
        rounded = rounded_layers(onnx.load(local.path / name))
        assert rounded and not set(kept) & set(rounded)


def test_float_graphs_are_judged_once(local, judged):
    floats = {"fp32.onnx", "fp16.onnx"}
    assert judged[0] > floats and len(judged) > 2
    assert all(later == judged[0] - floats for later in judged[1:])
    assert set(local.manifest.accuracy) == {name.removesuffix(".onnx") for name in judged[0]}


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("file", "file: is a file: remove it or choose another name"),
        (".", r"the folder is not empty \(file\): remove it or choose another name"),
        ("file/bundle", "cannot be written"),
    ],
)
@pytest.mark.parametrize("method", ["ptq", "qat"])
def test_an_out_that_cannot_be_is_refused_before_the_work(
    scenes, tmp_path, monkeypatch, place, words, method
):
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    monkeypatch.setattr(to_bundle, "load_model", None)  # no work
    with pytest.raises(IrstdError, match=words):
        quantize_to_bundle("p2p", [scenes], Path(place), method=method)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_held_out_frames_without_targets_judge_nothing(p2p_weights, tmp_path):
    root = tmp_path / "empty"
    write_dataset(root, frames=40, size=(64, 64), seed=3)
    held_out = set(open_dataset(root, "val").names)
    for mask in (root / "masks").iterdir():
        if mask.stem in held_out:
            cv2.imwrite(str(mask), np.zeros((64, 64), np.uint8))
    for options, words in (
        ({}, "--method: the held-out frames have no targets to judge by: take --method ptq"),
        ({"method": "ptq", "max_drop": 0.1}, "--max-drop: the held-out frames have no targets"),
    ):
        with pytest.raises(IrstdError, match=words):
            quantize_to_bundle(p2p_weights, [root], tmp_path / "never", frames=2, **options)
    assert not list(tmp_path.glob("never*"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"method": "ptq", "epochs": 2}, "--epochs: ptq trains nothing"),
        ({"method": "ptq", "resume": True}, "--resume: ptq trains nothing"),
        ({"resume": True}, "never.qat/last.ckpt: no such file, nothing to resume"),
        ({"method": "ptq", "frames": 2, "keep_float": ["*"]}, "--keep-float: leaves no layer to"),
        ({"ranges": "entropy"}, "--ranges: 'entropy' is not one of min-max, percentile, mse"),
        ({"max_drop": -1.0}, "--max-drop: -1 is no drop"),
        ({"max_drop": float("nan")}, "--max-drop: nan is no drop"),
    ],
)
def test_options_that_mean_nothing_are_refused_at_once(scenes, folder, options, words):
    with pytest.raises(IrstdError, match=words):
        quantize_to_bundle("p2p", [scenes], folder / "never", **options)
    assert not (folder / "never").exists()


def test_a_wrong_method_is_refused_at_once(p2p_weights, scenes, folder):
    with pytest.raises(IrstdError, match="--method: 'qta' is not one of ptq, qat"):
        quantize_to_bundle(p2p_weights, [scenes], folder / "x", method="qta")


def test_a_folder_that_is_not_a_bundle_is_refused_at_once(p2p_weights, scenes, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(IrstdError, match="the folder is not empty"):
        quantize_to_bundle(p2p_weights, [scenes], tmp_path)
    assert os.listdir(tmp_path) == ["thesis.tex"]


@pytest.mark.slow
@pytest.mark.real_data
def test_real_frames_of_every_size_and_mode(real_data, p2p_weights, folder, tmp_path):
    some = []
    for part in ("images", "masks"):
        (tmp_path / part).mkdir()
    for data in (real_data / "NUDT-SIRST", real_data / "NUAA-SIRST"):
        names = open_dataset(data, "trainval").names
        # A tenth of them is judged, node by node.
        some += names[:: len(names) // 20]
        for name in names[:: len(names) // 20]:
            for part in ("images", "masks"):
                copy_file(data / part / f"{name}.png", tmp_path / part)
    (tmp_path / "trainval.txt").write_text("\n".join(some))
    bundle = quantize_to_bundle(p2p_weights, [tmp_path], folder / "both", method="ptq", frames=4)
    assert bundle.manifest.accuracy["int8"]["images"] > 2
