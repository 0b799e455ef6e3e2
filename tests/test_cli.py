"""What a user meets: results on stdout, one line on stderr, the exit code; nothing half-written."""

import json
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from inspect import signature
from pathlib import Path
from shutil import copytree, which
from typing import IO, Any

import cv2
import numpy as np
import pytest

from irstd_edge import __version__, cli
from irstd_edge.benchmarks.plan import Plan
from irstd_edge.benchmarks.scenes import write_dataset
from irstd_edge.edge.bundle import Bundle, open_bundle
from irstd_edge.edge.dataset import open_dataset
from irstd_edge.edge.devices import this_machine
from irstd_edge.edge.doctor import WEIGHTS
from irstd_edge.edge.files import sha256_of
from irstd_edge.edge.frames import png_of, read_frame
from irstd_edge.edge.gpu import this_gpu
from irstd_edge.edge.types import IrstdError, Sample


def as_process(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command line as a user does."""
    return subprocess.run(
        [sys.executable, "-m", "irstd_edge.cli", *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "COLUMNS": "120"},
        capture_output=True,
        text=True,
        timeout=250,
    )


def irstd_edge(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command line in this process, where torch is imported once.

    What is about the process, its pipes and its signals, is run by `as_process`.
    """
    command = [cli.__file__, *map(str, arguments)]
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        with (
            pytest.MonkeyPatch.context() as patch,
            warnings.catch_warnings(),
            written_to(out, 1, "stdout"),
            written_to(err, 2, "stderr"),
            pytest.raises(SystemExit) as end,
        ):
            patch.chdir(cwd or Path.cwd())
            patch.setenv("COLUMNS", "120")
            patch.setattr(sys, "argv", command)
            patch.setattr(sys, "excepthook", sys.excepthook)  # Typer sets its own
            patch.setattr(cli, "talk", cli.new_console(stderr=True))
            patch.setattr(cli, "limit_memory", lambda: None)  # it would hold for what follows
            cli.main()
        for file in (out, err):
            file.seek(0)
        return subprocess.CompletedProcess(command, end.value.code or 0, out.read(), err.read())


@contextmanager
def written_to(file: IO[str], descriptor: int, name: str) -> Iterator[None]:
    """Let stdout or stderr be this file."""
    kept = os.dup(descriptor)
    os.dup2(file.fileno(), descriptor)
    # It is not closed: a library that is imported meanwhile may keep it for its log.
    stream = open(descriptor, "w", closefd=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, name, stream)
        try:
            yield
        finally:
            stream.flush()
            os.dup2(kept, descriptor)
            os.close(kept)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "scenes"
    write_dataset(root, frames=8, size=(64, 96), seed=3)
    return root


@pytest.fixture
def copy(scenes: Path, tmp_path: Path) -> Path:
    """A copy of the scenes to damage."""
    for file in scenes.rglob("*"):
        if file.is_file():
            target = tmp_path / "data" / file.relative_to(scenes)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(file.read_bytes())
    return tmp_path / "data"


def refused(run: subprocess.CompletedProcess[str], *words: str, talk: int = 0) -> None:
    """Exit 2, nothing on stdout, one line on stderr that holds the words, after lines of talk."""
    assert (run.returncode, run.stdout) == (2, ""), run.stderr
    lines = run.stderr.splitlines()
    assert len(lines) == 1 + talk and lines[-1].startswith("irstd-edge: "), run.stderr
    for word in words:
        assert word in lines[-1]


def test_eval_prints_people_and_machines_forms(scenes: Path, tmp_path: Path) -> None:
    run = irstd_edge("eval", "p2p", "--data", scenes, "--json", tmp_path / "a.json")
    assert run.returncode == 0, run.stderr
    assert "F1" in run.stdout
    found = json.loads((tmp_path / "a.json").read_text())
    assert (found["model"], found["runtime"], found["images"]) == ("p2p", "torch", 4)
    assert found["iou"] is None and 0 <= found["f1_3px"] <= 1
    on_stdout = irstd_edge("eval", "p2p", "--data", scenes, "--threads", 1, "--json", "-")
    assert json.loads(on_stdout.stdout) == found


def test_eval_of_masks_at_both_protocols(scenes: Path) -> None:
    for protocol in ("native", "paper256"):
        run = irstd_edge("eval", "mshnet", "--data", scenes, "--protocol", protocol, "--json", "-")
        found = json.loads(run.stdout)
        assert found["protocol"] == protocol and 0 <= found["iou"] <= 1


def test_eval_under_sensor_faults_and_their_picture(scenes: Path, tmp_path: Path) -> None:
    options = ("--data", scenes, "--faults", "--picture", tmp_path / "sheet.png")
    run = irstd_edge("eval", "p2p", *options, "--json", tmp_path / "a.json")
    assert run.returncode == 0, run.stderr
    assert "shutter" in run.stdout and "only false alarms count" in run.stdout
    found = json.loads((tmp_path / "a.json").read_text())
    assert [each["fault"] for each in found["faults"]][:2] == ["none", "hot-pixels"]
    assert found["faults"][0]["f1_3px"] == found["f1_3px"]
    assert (tmp_path / "sheet.png").read_bytes().startswith(b"\x89PNG")
    refused(
        irstd_edge("eval", "p2p", "--data", scenes, "--picture", "x.png"), "--picture", "faults"
    )
    (tmp_path / "file").touch()
    options = ("--data", scenes, "--faults", "--picture", tmp_path / "file" / "x.png")
    refused(irstd_edge("eval", "p2p", *options), "x.png: cannot be written")


@pytest.mark.parametrize(
    "arguments", ["--data loop", "--data DATA --json loop", "--data DATA --json LONG"]
)
def test_places_that_lead_nowhere_are_the_callers_to_mend(
    scenes: Path, tmp_path: Path, arguments: str
) -> None:
    (tmp_path / "loop").symlink_to("loop")
    words = arguments.replace("DATA", str(scenes)).replace("LONG", "x" * 300).split()
    refused(irstd_edge("eval", "p2p", *words, cwd=tmp_path), "check")


def test_a_threshold_is_a_probability(scenes: Path) -> None:
    for threshold, arguments in (
        ("nan", ("eval", "p2p", "--data", scenes)),
        ("1.5", ("predict", "p2p", scenes / "images")),
    ):
        run = irstd_edge(*arguments, "--threshold", threshold, "--json", "-")
        refused(run, f"--threshold: {threshold} is not between 0 and 1")


WITHOUT_TORCH = """
import sys
sys.modules["torch"] = None
from irstd_edge.cli import main
main()
"""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("train", "p2p", "--data", "DATA", "--out", "run"), "train: needs torch: pip install"),
        (
            ("import-weights", "x.tar", "--model", "p2p", "--out", "w"),
            "import-weights: needs torch",
        ),
        (("bench",), "bench: needs torch: pip install 'irstd-edge[train]', or give bundles"),
        (("eval", "p2p", "--data", "DATA"), "p2p: needs torch: pip install"),
        (("demo",), "demo: needs torch"),
    ],
)
def test_a_device_without_torch_says_what_is_missing(
    scenes: Path, tmp_path: Path, arguments: tuple[str, ...], words: str
) -> None:
    given = [str(scenes) if each == "DATA" else each for each in arguments]
    run = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, *given],
        cwd=tmp_path,
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (run.returncode, run.stdout) == (3, ""), run.stderr
    assert words in run.stderr and "fault of ours" not in run.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_pipe_that_closes_is_no_failed_gate() -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "irstd_edge.cli", "doctor", "--json", "-"]
    run = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, timeout=120)
    os.close(write)
    assert run.returncode == 141
    assert "Traceback" not in run.stderr and "fault" not in run.stderr


def test_counts_are_stretched_by_the_policy_that_was_chosen(
    float_bundle: Path, tmp_path: Path
) -> None:
    """300 of 65535 counts are a target to the percentiles, and nothing to the full scale."""
    import numpy as np

    counts = np.rint(np.random.default_rng(4).normal(8000, 9, (64, 64))).astype("<u2")
    counts[30:33, 40:43] += 300
    raw = tmp_path / "flight.raw"
    raw.write_bytes(counts.tobytes())
    frame = (raw, "--raw", "64x64:u16le")
    for policy, targets in ((None, 1), ("full-scale", 0)):
        chosen = () if policy is None else ("--normalise", policy)
        run = irstd_edge("predict", "p2p", *frame, *chosen)
        detections = json.loads(run.stdout)["detections"]
        assert [(round(d["row"]), round(d["col"])) for d in detections] == [(31, 41)] * targets
    refused(irstd_edge("predict", "p2p", *frame, "--normalise", "mean"), "--normalise: 'mean'")
    frozen = irstd_edge("predict", float_bundle, *frame, "--normalise", "percentile")
    refused(frozen, "--normalise", "by-depth", "quantize again")


def test_predict_gives_a_line_a_frame_and_overlays(scenes: Path, tmp_path: Path) -> None:
    out = tmp_path / "found"
    run = irstd_edge("predict", "p2p", scenes / "images", "--overlay", "--out", out)
    assert run.returncode == 0, run.stderr
    lines = [json.loads(line) for line in run.stdout.splitlines()]
    names = sorted(path.stem for path in (scenes / "images").iterdir())
    assert [line["frame"] for line in lines] == names
    for detection in (d for line in lines for d in line["detections"]):
        assert set(detection) == {"row", "col", "score", "area_px"}
        assert 0 <= detection["row"] < 64 and 0 <= detection["col"] < 96
    assert sorted(path.stem for path in out.iterdir()) == names
    drawn_in = {path.stem for path in out.iterdir() if np.ptp(cv2.imread(str(path)), axis=2).any()}
    assert drawn_in == {line["frame"] for line in lines if line["detections"]}
    assert drawn_in


def test_frames_of_one_name_are_not_mixed_up(scenes: Path, tmp_path: Path) -> None:
    images = sorted((scenes / "images").iterdir())
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "0001.png").write_bytes(images[0].read_bytes())
    out = tmp_path / "found"
    run = irstd_edge("predict", "p2p", tmp_path / "a", tmp_path / "b", "--overlay", "--out", out)
    refused(run, str(tmp_path / "b" / "0001.png"), "called 0001", str(tmp_path / "a"))
    assert not out.exists()
    refused(irstd_edge("predict", "p2p", tmp_path / "a", "--out", out), "--out: add --overlay")
    refused(irstd_edge("predict", "p2p", tmp_path / "a", "--overlay"), "--overlay", "add --out")


def test_large_frames_run_by_tiles(scenes: Path) -> None:
    """A tile as large as the frame changes nothing; smaller ones do, and say their size."""
    whole = irstd_edge("predict", "p2p", scenes / "images")
    same = ("--tile", "64x96", "--halo", "16", "--tile-batch", "3")
    assert irstd_edge("predict", "p2p", scenes / "images", *same).stdout == whole.stdout
    options = ("--data", scenes, "--tile", "48x64", "--halo", "16", "--json", "-")
    found = json.loads(irstd_edge("eval", "p2p", *options).stdout)
    assert (found["tile"], found["images"]) == ("48x64", 4) and 0 <= found["f1_3px"] <= 1
    smaller = ("--tile", "48x64", "--halo", "16", "--threshold", "0.01")
    low = ("predict", "p2p", scenes / "images", "--threshold", "0.01")
    assert irstd_edge(*low[:3], *smaller).stdout != irstd_edge(*low).stdout
    refused(irstd_edge("predict", "p2p", scenes, "--tile", "48x64"), "no frames")
    images = scenes / "images"
    refused(irstd_edge("predict", "p2p", images, "--tile", "50x64"), "--tile: 50x64", "56x64")
    refused(irstd_edge("predict", "p2p", images, "--tile", "64"), "--tile: '64'", "256x256")
    refused(irstd_edge("predict", "p2p", images, "--tile", "48x64"), "--tile: 48x64", "72x72")


def test_a_threshold_decides_what_is_found(scenes: Path) -> None:
    found = {}
    for threshold in (0.01, 0.5):
        run = irstd_edge("predict", "p2p", scenes / "images", "--threshold", threshold)
        lines = map(json.loads, run.stdout.splitlines())
        found[threshold] = [each["score"] for line in lines for each in line["detections"]]
        assert found[threshold] and min(found[threshold]) > threshold
    assert len(found[0.5]) < len(found[0.01])


def test_every_option_of_quantize_arrives(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {}

    def quantize(weights: str, data: list[Path], out: Path, **options: Any) -> None:
        given.update(options, weights=weights, data=data, out=out)
        raise IrstdError("enough")

    monkeypatch.setattr("irstd_edge.calibration.to_bundle.quantize_to_bundle", quantize)
    command = ["p2p", "--data", scenes, "--data", tmp_path, "--out", tmp_path / "b"]
    command += ["--method", "qat", "--epochs", 3]
    command += ["--max-drop", 0.2, "--keep-float", "head*", "--keep-float", "stem", "--frames", 5]
    command += ["--ranges", "mse", "--normalise", "percentile", "--seed", 7]
    flags = ("--reduced-range", "--time-layers", "--resume")
    refused(irstd_edge("quantize", *command, *flags), "enough")
    del given["progress"]
    assert given == {
        **{"weights": "p2p", "data": [scenes, tmp_path], "out": tmp_path / "b"},
        **{"method": "qat", "epochs": 3},
        **{"max_drop": 0.2, "keep_float": ("head*", "stem"), "frames": 5, "ranges": "mse"},
        **{"normalise": "percentile", "seed": 7},
        **dict.fromkeys(("reduced_range", "time_layers", "resume"), True),
    }


def test_every_option_of_train_arrives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the frames to train on are not those to judge by."""
    from irstd_edge.benchmarks.operating_point import held_out_scores
    from irstd_edge.edge.runners import torch_runner
    from irstd_edge.models.recipes import Recipe, recipe_of
    from irstd_edge.models.weights import find_weights, load_model, spec_of_card

    data, given = tmp_path / "data", dict[str, Any]()
    write_dataset(data, frames=40, size=(64, 96), seed=3)
    fit, held_out = (list(open_dataset(data, split).samples()) for split in ("train", "val"))

    def train(model: str, samples: list[Sample], out: Path, recipe: Recipe, **options: Any) -> None:
        given.update(options, model=model, out=out, recipe=recipe)
        given["names"] = [sample.frame.name for sample in samples]
        raise IrstdError("enough")

    monkeypatch.setattr("irstd_edge.models.train.train", train)
    command = ["p2p", "--data", data, "--out", tmp_path / "run", "--weights", "p2p", "--epochs", 3]
    command += ["--recipe", "finetune", "--batch-size", 8, "--lr", 1e-4, "--loss", "points"]
    command += ["--keep", "last"]
    command += ["--normalise", "percentile", "--seed", 7, "--device", "cpu", "--resume"]
    refused(irstd_edge("train", *command), "enough", talk=1)
    validate, _, _ = (given.pop(name) for name in ("validate", "progress", "tell"))
    recipe = recipe_of(
        "p2p", "finetune", epochs=3, batch_size=8, lr=1e-4, loss="points", keep="last"
    )
    assert given == {
        **{"model": "p2p", "out": tmp_path / "run", "weights": find_weights("p2p")},
        **{"recipe": recipe, "seed": 7, "device": "cpu", "resume": True},
        **{"normalisation": "percentile", "names": [sample.frame.name for sample in fit]},
    }
    net, model, card = load_model("p2p")
    spec = spec_of_card(model, {**card, "normalisation": "percentile"})
    with torch_runner(net.deploy(), spec) as run:
        assert validate(net) == held_out_scores(run.predict, held_out)
        assert validate(net) != held_out_scores(run.predict, fit)


@pytest.mark.parametrize("command", ["eval", "bench", "report", "compile", "sensitivity"])
def test_a_second_data_set_is_refused_where_one_alone_would_count(
    float_bundle: Path, scenes: Path, command: str
) -> None:
    for second in (("--data", scenes), (f"--data={scenes}",)):
        run = irstd_edge(command, float_bundle, "--data", scenes, *second)
        refused(run, "--data: is given twice: one data set here")


@pytest.mark.parametrize("command", ["eval", "predict"])
def test_a_mistyped_bundle_is_told_as_one(scenes: Path, command: str) -> None:
    rest = ("--data", scenes) if command == "eval" else (scenes / "images",)
    run = irstd_edge(command, "nobundle", *rest)
    refused(run, "nobundle: no such file or folder; give a bundle, a .safetensors file or one of")


def test_the_truth_of_synthetic_scenes_is_not_written_over(tmp_path: Path) -> None:
    write_dataset(tmp_path / "data", frames=8, size=(64, 64), seed=3)
    truth = tmp_path / "data" / "targets.json"
    before = truth.read_bytes()
    refused(irstd_edge("eval", "p2p", "--data", tmp_path / "data", "--json", truth), str(truth))
    assert truth.read_bytes() == before


def test_held_out_frames_that_cannot_be_used_end_a_training_before_it_begins(
    tmp_path: Path,
) -> None:
    data, out = tmp_path / "data", tmp_path / "run"
    write_dataset(data, frames=24, size=(64, 64), seed=3)
    held_out = open_dataset(data, "val").names
    for name in held_out:
        (data / "masks" / f"{name}.png").write_bytes(png_of(np.zeros((32, 32), np.uint8)))
    run = irstd_edge("train", "p2p", "--data", data, "--out", out)
    refused(run, "--data: no held-out frame can be used", talk=len(held_out))
    assert all(f"skipped {name}" in run.stderr for name in held_out)
    assert not out.exists()


@pytest.mark.parametrize(
    ("command", "option"),
    [
        (("train", "p2p", "--data", ".", "--out", "o"), ("--seed", 2**64)),
        (("train", "p2p", "--data", ".", "--out", "o"), ("--epochs", 10**20)),
        (("train", "p2p", "--data", ".", "--out", "o"), ("--batch-size", 10**20)),
        (("train", "p2p", "--data", ".", "--out", "o"), ("--lr", "1e300")),
        (("quantize", "p2p", "--data", ".", "--out", "o"), ("--epochs", 10**20)),
        (("predict", "p2p", "."), ("--threads", 100_000)),
        (("predict", "p2p", ".", "--tile", "32x32"), ("--tile-batch", 10**20)),
    ],
)
def test_a_number_that_is_a_slip_is_refused(command: tuple[str, ...], option: tuple[Any]) -> None:
    run = irstd_edge(*command, *option)
    assert run.returncode == 2 and "fault of ours" not in run.stderr
    assert f"Invalid value for '{option[0]}'" in run.stderr, run.stderr


def test_every_option_of_bench_arrives(
    float_bundle: Path, scenes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plans = []

    def bench(bundles: list[Bundle], plan: Plan) -> None:
        plans.append(plan)
        raise IrstdError(bundles[0].path.name)

    monkeypatch.setattr("irstd_edge.cli._bench", bench)
    command = ["bench", float_bundle, "--data", scenes, "--split", "train", "--strict"]
    command += ["--protocol", "paper256", "--threads", 1, "--size", "128x96", "--samples", 30]
    command += ["--variant", "fp32", "--runtime", "onnxruntime"]
    refused(irstd_edge(*command, "--batch", 2), float_bundle.name)
    refused(irstd_edge(*command, "--rate-hz", 50, "--noise", 0.5), float_bundle.name)
    batched, paced = plans
    asked = Plan(
        runtimes=("onnxruntime",),
        variants=("fp32",),
        data=batched.data,
        protocol="paper256",
        strict=True,
        threads=1,
        size=(128, 96),
        samples=30,
        batch=2,
    )
    assert batched == asked
    assert (paced.batch, paced.rate_hz, paced.noise_counts) == (1, 50, 0.5)
    assert batched.data.names == open_dataset(scenes, "train").names


@pytest.mark.parametrize("options", [(), ("--strict",)])
def test_a_skipped_check_fails_where_that_is_asked_for(
    float_bundle: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    """Speeds of two machines do not compare."""
    bench_at, limits, page = (tmp_path / f for f in ("bench.json", "gate.toml", "report.html"))
    elsewhere = tmp_path / "elsewhere.json"
    command = ("bench", float_bundle, "--variant", "fp32", "--runtime", "onnxruntime")
    run = irstd_edge(*command, "--size", "64x64", "--samples", 10, "--json", bench_at)
    assert run.returncode == 0, run.stderr
    machine = {"machine": {**json.loads(bench_at.read_text())["machine"], "fingerprint": "other"}}
    elsewhere.write_text(json.dumps({**json.loads(bench_at.read_text()), **machine}))
    limits.write_text("[floor]\nfps = 0.001\n[baseline]\nfps_ratio = 0.9\n")
    judged = ("--config", limits, "--baseline", elsewhere, "--json", "-", *options)
    gate = irstd_edge("gate", bench_at, *judged)
    verdict = json.loads(gate.stdout)
    (state,) = {c["state"] for c in verdict["checks"] if c["name"] == "baseline.fps_ratio"}
    assert state == ("failed" if options else "skipped")
    assert gate.returncode == (1 if options else 0)
    assert verdict["passed"] is (not options)
    told = json.loads(irstd_edge("report", bench_at, "--out", page, *judged).stdout)
    assert told["passed"] is (not options)


def test_predict_reads_counts_without_a_header(scenes: Path, tmp_path: Path) -> None:
    from irstd_edge.edge.frames import read_frame

    files = sorted((scenes / "images").iterdir())[:2]
    raw = tmp_path / "flight.raw"
    raw.write_bytes(b"".join(read_frame(file).counts.astype(">u2").tobytes() for file in files))
    run = irstd_edge("predict", "p2p", tmp_path, "--raw", "96x64:u16be", "--bits", 8)
    assert run.returncode == 0, run.stderr
    lines = [json.loads(line) for line in run.stdout.splitlines()]
    assert [line["frame"] for line in lines] == ["flight#0", "flight#1"]
    alone = irstd_edge("predict", "p2p", *files).stdout.splitlines()
    assert [line["detections"] for line in lines] == [json.loads(a)["detections"] for a in alone]
    refused(irstd_edge("predict", "p2p", raw, "--raw", "95x64:u16be"), "flight.raw", "whole frames")
    refused(irstd_edge("predict", "p2p", raw, "--raw", "96x64:f32"), "--raw", "640x512:u16le")


def test_clipped_frames_are_named_once(copy: Path) -> None:
    import cv2
    import numpy as np

    names = (copy / "test.txt").read_text().split()
    for name in names[:2]:
        path = copy / "images" / f"{name}.png"
        counts = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        counts[:3] = np.iinfo(counts.dtype).max  # 3 rows of 64
        cv2.imwrite(str(path), counts)
    files = [copy / "images" / f"{name}.png" for name in names]
    for command in (("predict", "p2p", *files), ("eval", "p2p", "--data", copy)):
        run = irstd_edge(*command)
        assert run.returncode == 0
        assert run.stderr.splitlines() == [
            f"clipped: {names[0]}: 4.7% of its pixels are at full scale of 8 bits",
            "clipped: 2 frames have over 0.1% at full scale",
        ]


def test_a_large_frame_that_is_not_cut_is_told_once(tmp_path: Path) -> None:
    import numpy as np

    for name in ("a", "b"):
        np.save(tmp_path / f"{name}.npy", np.full((512, 520), 9, np.uint8))
    (line,) = irstd_edge("predict", "p2p", tmp_path).stderr.splitlines()
    assert line.startswith("large: a: ") and line.endswith(
        "512x520, which may hide targets: add --tile 320x320"
    )
    assert irstd_edge("predict", "p2p", tmp_path, "--tile", "320x320").stderr == ""
    np.save(tmp_path / "b.npy", np.full((512, 512), 9, np.uint8))
    assert irstd_edge("predict", "p2p", tmp_path / "b.npy").stderr == ""


def default_sigint() -> None:
    """A shell's background job ignores Ctrl-C, and so would its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_ctrl_c_before_the_first_frame_leaves_an_earlier_result(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "found.jsonl"
    out.write_text("old")

    def stopped(frames: Iterator[object], **_: object) -> Iterator[object]:
        yield next(frames)
        raise KeyboardInterrupt

    monkeypatch.setattr("irstd_edge.edge.ahead.read_ahead", stopped)
    (tmp_path / "bad.png").write_bytes(b"no picture")
    good = next((scenes / "images").iterdir())
    run = irstd_edge("predict", "p2p", tmp_path / "bad.png", good, "--json", out)
    assert (run.returncode, run.stdout, out.read_text()) == (130, "", "old")
    (line,) = run.stderr.splitlines()
    assert line.startswith("skipped ") and "bad.png" in line
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("to_file", [False, True])
def test_ctrl_c_keeps_what_is_done(float_bundle: Path, tmp_path: Path, to_file: bool) -> None:
    raw, out = tmp_path / "flight.raw", tmp_path / "found.jsonl"
    raw.write_bytes(bytes(32 * 32 * 100_000))
    json_to = str(out) if to_file else "-"
    command = [*light(float_bundle), str(raw), "--raw", "32x32:u8", "--json", json_to]
    with subprocess.Popen(
        [sys.executable, "-m", "irstd_edge.cli", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=default_sigint,
    ) as run:
        assert run.stdout is not None and run.stderr is not None
        if to_file:
            while not [p for p in tmp_path.glob(".found.jsonl.*") if p.read_text().count("\n") > 1]:
                time.sleep(0.05)
            assert not out.exists()
            first = ""
        else:
            # While the others are still to come: with the second the first is counted as done.
            first = run.stdout.readline() + run.stdout.readline()
        run.send_signal(signal.SIGINT)
        text = out.read_text() if run.wait(60) == 130 and to_file else first + run.stdout.read()
        words = run.stderr.read()
    lines = [json.loads(line) for line in text.splitlines()]
    assert run.returncode == 130
    assert words == "stopped: the lines of the frames done so far are kept\n"
    assert [line["frame"] for line in lines] == [f"flight#{i}" for i in range(len(lines))]
    assert 0 < len(lines) < 100_000
    assert {p.name for p in tmp_path.iterdir()} <= {"flight.raw", "found.jsonl"}


@pytest.mark.parametrize("tail", [0, 100])
def test_stdin_is_a_sensor(float_bundle: Path, tmp_path: Path, tail: int) -> None:
    counts = np.full((3, 64, 64), 8000, "<u2")
    counts += np.random.default_rng(0).integers(0, 60, counts.shape, dtype="<u2")
    for index, frame in enumerate(counts):
        frame[20 + 8 * index : 23 + 8 * index, 30:33] += 900
    (tmp_path / "flight.raw").write_bytes(counts.tobytes())
    out, video = tmp_path / "found.jsonl", tmp_path / "found.avi"
    more = ["--raw", "64x64:u16le", "--bits", "14", "--json", str(out), "--video", str(video)]
    with subprocess.Popen(
        [sys.executable, "-m", "irstd_edge.cli", *light(float_bundle), "-", *more],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as run:
        _, words = run.communicate(counts.tobytes() + bytes(tail))
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["frame"] for line in lines] == ["stdin#0", "stdin#1", "stdin#2"]
    for index, line in enumerate(lines):
        (found,) = line["detections"]
        assert found["row"] == pytest.approx(21 + 8 * index, abs=1)
        assert found["col"] == pytest.approx(31, abs=1)
    assert cv2.VideoCapture(str(video)).get(cv2.CAP_PROP_FRAME_COUNT) == 3
    # A file can be read again; what a sensor sent cannot, so its lines are kept.
    assert run.returncode == (2 if tail else 0)
    ends = b"irstd-edge: stdin: ends after 3 frames of 64x64:u16le and 100 bytes"
    assert words.startswith(ends) if tail else not words


@pytest.mark.parametrize(
    ("paths", "why"),
    [
        (["-"], "-: stdin holds counts without a header; say how, as --raw 640x512:u16le"),
        (["-", "other.raw"], "-: stdin goes alone; give the files in another call"),
    ],
)
def test_stdin_needs_a_layout_and_goes_alone(paths: list[str], why: str) -> None:
    raw = ["--raw", "8x8:u8"] if len(paths) > 1 else []
    refused(irstd_edge("predict", "p2p", *paths, *raw), why)


def test_a_video_that_fails_costs_no_line(float_bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "found.jsonl"
    command = [sys.executable, "-m", "irstd_edge.cli", *light(float_bundle), "-"]
    film = ["--video", str(tmp_path / "found.mp4"), "--video-fps", "66.667"]
    run = subprocess.run(
        [*command, "--raw", "64x64:u8", "--json", str(out), *film],
        input=bytes(64 * 64 * 3),
        capture_output=True,
    )
    assert run.returncode == 2
    assert [json.loads(line)["frame"] for line in out.read_text().splitlines()] == ["stdin#0"]
    (line,) = run.stderr.decode().splitlines()
    assert "cannot hold 512x512 pixels at 66.667 frames/s" in line
    assert [path.name for path in tmp_path.iterdir()] == ["found.jsonl"]


def test_a_process_without_stdin_says_so() -> None:
    command = f"{sys.executable} -m irstd_edge.cli predict p2p - --raw 8x8:u8 <&-"
    run = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    refused(run, "-: this process has no stdin")


def test_a_broken_frame_costs_no_other_frame(scenes: Path, tmp_path: Path) -> None:
    good, other = sorted((scenes / "images").iterdir())[:2]
    bad, out = tmp_path / "bad.png", tmp_path / "found.jsonl"
    bad.write_bytes(good.read_bytes()[:99])
    out.write_text("old")
    refused(irstd_edge("predict", "p2p", bad, "--json", out), "bad.png")
    assert out.read_text() == "old" and len(list(tmp_path.iterdir())) == 2
    run = irstd_edge("predict", "p2p", good, bad, other, "--json", out)
    refused(run, "1 of 3 files could not be read", talk=1)
    assert "bad.png" in run.stderr.splitlines()[0]
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["frame"] for line in lines] == [good.stem, "bad", other.stem]
    assert [set(line) for line in lines][1] == {"frame", "skipped"}
    assert "detections" in lines[0] and "detections" in lines[2]
    first = irstd_edge("predict", "p2p", bad, good)  # to stdout, before any result
    assert first.returncode == 2
    lines = [json.loads(line) for line in first.stdout.splitlines()]
    assert [(line["frame"], "skipped" in line) for line in lines] == [
        *(("bad", True), (good.stem, False)),
    ]


def test_train_writes_a_run_and_goes_on(scenes: Path, tmp_path: Path) -> None:
    options = ("--data", scenes, "--out", tmp_path / "run", "--epochs", 2, "--batch-size", 2)
    run = irstd_edge("train", "p2p", *options, "--weights", "p2p")
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == str(tmp_path / "run/model.safetensors")
    metrics = (tmp_path / "run/metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in metrics] == [0, 1]
    refused(irstd_edge("train", "p2p", *options), "--resume", talk=1)
    again = irstd_edge("train", "p2p", *options, "--weights", "p2p", "--resume", "--json", "-")
    assert again.returncode == 0, again.stderr
    told = json.loads(again.stdout)
    assert told["path"] == run.stdout.strip()
    assert told["epochs"] == [json.loads(line) for line in metrics]


def test_fewer_false_alarms_allowed_raise_the_threshold(scenes: Path) -> None:
    thresholds = [
        json.loads(
            irstd_edge("eval", "p2p", "--data", scenes, "--max-fa", fa, "--json", "-").stdout
        )["threshold"]
        for fa in ("1e6", "1000", "5")
    ]
    assert thresholds == sorted(thresholds) and 0 < thresholds[0] < thresholds[-1] < 1


def test_one_threshold_at_a_time(scenes: Path) -> None:
    both = ("--max-fa", "5", "--threshold", "0.5")
    refused(irstd_edge("eval", "p2p", "--data", scenes, *both), "--max-fa", "give one of them")
    refused(irstd_edge("predict", "p2p", scenes / "images", *both), "--max-fa")


def test_names_are_printed_as_they_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "p2p[/b] [old] :bug:"
    for console in (cli.new_console(), cli.new_console(stderr=True)):
        console.print(name)
    assert capsys.readouterr() == (f"{name}\n", f"{name}\n")
    for variable, value in (("TERM", "xterm"), ("FORCE_COLOR", "1"), ("COLUMNS", "120")):
        monkeypatch.setenv(variable, value)
    monkeypatch.setattr(cli, "talk", cli.new_console(stderr=True))
    with cli._progress() as move:
        move(name, 1, 2)
    assert name in capsys.readouterr().err


def test_where_shipped_bundles_are_cached_is_said_in_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_quantize", stop)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache [old]"))
    run = irstd_edge("bench", "--device", "agx-orin-64gb")
    assert run.returncode == 130
    assert run.stderr.startswith("mshnet: quantizing the shipped weights once, into ")
    assert f"{tmp_path}/cache [old]/irstd-edge/mshnet-" in run.stderr


def test_shipped_bundles_are_made_once(
    float_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []

    def quantize(model: str, data: list[Path], out: Path, **options: Any) -> Bundle:
        (scenes,) = data
        made.append((model, len(open_dataset(scenes, "train").names) > 20, options))
        return open_bundle(copytree(float_bundle, out))

    monkeypatch.setattr(cli, "_quantize", quantize)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for _ in range(2):
        run = irstd_edge("bench", "--device", "agx-orin-64gb", "--json", "-")
        assert len(json.loads(run.stdout)["results"]) == 2
    assert made == [(model, True, {"method": "ptq"}) for model in ("mshnet", "p2p")]


def test_a_model_s_name_is_its_shipped_weights_whatever_lies_here(
    float_bundle: Path, scenes: Path, tmp_path: Path
) -> None:
    frame = scenes / "images" / "00001_cloud.png"
    (tmp_path / "p2p").mkdir()
    run = irstd_edge("predict", "p2p", frame, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    refused(irstd_edge("predict", "./p2p", frame, cwd=tmp_path), "p2p", "manifest.json")
    copytree(float_bundle, tmp_path / "p2p", dirs_exist_ok=True)
    words = "p2p: is the name of shipped weights and of a bundle here: give ./p2p for the bundle"
    for command in (("predict", "p2p", frame), ("eval", "p2p", "--data", scenes)):
        refused(irstd_edge(*command, cwd=tmp_path), words)
    there = irstd_edge("predict", "./p2p", frame, "--variant", "fp32", cwd=tmp_path)
    assert there.returncode == 0
    ours, bundles = (json.loads(done.stdout) for done in (run, there))
    pairs = zip(ours.pop("detections"), bundles.pop("detections"), strict=True)
    assert [one == pytest.approx(other, abs=1e-3) for one, other in pairs] == [True]
    assert ours == bundles == {"frame": "00001_cloud"}


def test_wrong_folder(tmp_path: Path) -> None:
    refused(irstd_edge("eval", "p2p", "--data", tmp_path / "nowhere"), "nowhere", "images/")


def test_empty_list(copy: Path) -> None:
    (copy / "test.txt").write_text("\n")
    refused(irstd_edge("eval", "p2p", "--data", copy), "test.txt", "empty")


def test_missing_mask(copy: Path) -> None:
    name = (copy / "test.txt").read_text().split()[0]
    (copy / "masks" / f"{name}.png").unlink()
    refused(irstd_edge("eval", "p2p", "--data", copy), f"{name}.png", "no such file")


def test_truncated_frame(copy: Path) -> None:
    file = copy / "images" / ((copy / "test.txt").read_text().split()[0] + ".png")
    file.write_bytes(file.read_bytes()[:-200])
    refused(irstd_edge("eval", "p2p", "--data", copy), file.name, "truncated")


def test_mask_of_another_size_is_skipped_by_name_or_refused(copy: Path) -> None:
    import cv2
    import numpy as np

    name = (copy / "test.txt").read_text().split()[0]
    cv2.imwrite(str(copy / "masks" / f"{name}.png"), np.zeros((5, 5), np.uint8))
    found = json.loads(irstd_edge("eval", "p2p", "--data", copy, "--json", "-").stdout)
    assert found["images"] == 3 and found["skipped"][0]["name"] == name
    refused(irstd_edge("eval", "p2p", "--data", copy, "--strict"), name, "5x5")


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.path),)


def test_pickle_with_code_is_not_run(tmp_path: Path) -> None:
    (tmp_path / "bad.pkl").write_bytes(pickle.dumps({"state_dict": Bomb(tmp_path / "ran")}))
    out = tmp_path / "w.safetensors"
    run = as_process("import-weights", tmp_path / "bad.pkl", "--model", "mshnet", "--out", out)
    refused(run, "bad.pkl")
    assert not (tmp_path / "ran").exists() and not out.exists()


def test_unknown_names(scenes: Path, tmp_path: Path) -> None:
    refused(irstd_edge("train", "yolo", "--data", scenes, "--out", tmp_path / "r"), "mshnet, p2p")
    refused(irstd_edge("eval", "yolo", "--data", scenes), "yolo", "mshnet, p2p")
    refused(irstd_edge("eval", "p2p", "--data", scenes, "--split", "x"), "trainval")
    bad = irstd_edge("quantize", "yolo", "--data", scenes, "--out", tmp_path / "b")
    refused(bad, "yolo")
    assert not list(tmp_path.iterdir())


def test_gate_refuses_what_is_no_bench(tmp_path: Path) -> None:
    (tmp_path / "b.json").write_text('{"schema": "something else"}')
    refused(irstd_edge("gate", tmp_path / "b.json"), "b.json")


def test_every_command_gives_its_result_to_programs(tmp_path: Path) -> None:
    for command in cli.app.registered_commands:
        assert command.callback is not None
        assert "json_to" in signature(command.callback).parameters, command.callback.__name__
    run = irstd_edge("synth", tmp_path / "made", "--frames", 2, "--size", "32x48", "--json", "-")
    assert json.loads(run.stdout) == {
        "path": str(tmp_path / "made"),
        "frames": 2,
        "size": [32, 48],
        "bits": 8,
        "seed": 0,
    }
    assert "2 frames of 32x48" in run.stderr
    other = ("--frames", 2, "--size", "32x48", "--bits", 14, "--seed", 5)
    assert irstd_edge("synth", tmp_path / "other", *other).returncode == 0
    write_dataset(tmp_path / "asked", 2, (32, 48), 14, 5)
    asked = sorted(path for path in (tmp_path / "asked").rglob("*") if path.is_file())
    assert len(asked) > 4
    for path in asked:
        twin = tmp_path / "other" / path.relative_to(tmp_path / "asked")
        assert twin.read_bytes() == path.read_bytes()


def test_weights_of_the_authors_become_ours(tmp_path: Path) -> None:
    import torch

    from irstd_edge.models.mshnet import MSHNet
    from irstd_edge.models.weights import load_model

    net, out = MSHNet(), tmp_path / "ours.safetensors"
    torch.save({"net": net.state_dict()}, tmp_path / "weight.tar")
    command = ("import-weights", tmp_path / "weight.tar", "--model", "mshnet", "--out", out)
    told = json.loads(irstd_edge(*command, "--json", "-").stdout)
    assert told == {"path": str(out), "model": "mshnet", "parameters": 4_065_513}
    imported, model, card = load_model(out)
    assert model == "mshnet" and card["imported_from"] == "weight.tar"
    assert torch.equal(imported.state_dict()["final.weight"], net.state_dict()["final.weight"])


def test_wrong_option_keeps_typers_message() -> None:
    run = irstd_edge("synth", "x", "--bogus")
    assert run.returncode == 2 and "No such option" in run.stderr


@pytest.mark.parametrize("device", ["jetson", "orin-nano-8gb-super"])
def test_device_that_is_not_here(device: str) -> None:
    run = irstd_edge("bench", "--device", device, "--require-measured")
    assert (run.returncode, run.stdout) == (3, "")
    assert run.stderr.startswith(f"irstd-edge: --device {device}: this machine is none")


def test_unknown_device() -> None:
    refused(irstd_edge("bench", "--device", "orin"), "orin-nano-8gb-super")


@pytest.fixture(scope="module")
def float_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped p2p without its integer graphs."""
    from irstd_edge.edge.bundle import write_bundle
    from irstd_edge.edge.golden import golden_files
    from irstd_edge.edge.types import Manifest, Quantization
    from irstd_edge.models.onnx_from_torch import onnx_from_torch
    from irstd_edge.models.weights import load_model, spec_of_card

    net, model, card = load_model("p2p")
    spec = spec_of_card(model, card)
    manifest = Manifest(spec, "0" * 64, {}, Quantization("ptq", {}, (), ()), {})
    graph = onnx_from_torch(net.deploy(), spec)
    path = tmp_path_factory.mktemp("float") / "bundle"
    files = {"fp32.onnx": graph, **golden_files([], {"fp32.onnx": ()})}
    return write_bundle(path, manifest, files).path


def light(bundle: Path) -> tuple[str, ...]:
    """A detector for processes of which many are started: it imports no torch."""
    return ("predict", str(bundle), "--variant", "fp32")


def test_a_command_run_here_answers_as_a_process_does(float_bundle: Path, scenes: Path) -> None:
    """Lines as they come; tables and talk; a refusal."""
    for code, *command in (
        (0, "predict", float_bundle, "images", "--variant", "fp32"),
        (0, "bench", float_bundle, "--device", "agx-orin-64gb", "--data", scenes),
        (2, "predict", float_bundle, "images", "--bits", 9),
    ):
        runs = [run(*command, cwd=scenes) for run in (as_process, irstd_edge)]
        there, here = ((run.returncode, run.stdout, run.stderr) for run in runs)
        assert here == there and here[0] == code


def test_what_is_cached_is_benched_without_torch(float_bundle: Path, tmp_path: Path) -> None:
    for weights in WEIGHTS.glob("*.safetensors"):
        name = f"{weights.stem}-{__version__}-{sha256_of(weights)[:12]}"
        copytree(float_bundle, tmp_path / "irstd-edge" / name)
    run = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, "bench", "--device", "agx-orin-64gb"],
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("agx-orin-64gb") == 2


def test_an_engine_that_is_left_unused_is_told(
    float_bundle: Path, scenes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = "irstd_edge.edge.tensorrt_runtime"
    monkeypatch.setattr(f"{module}.is_ready", lambda: True)
    monkeypatch.setattr(f"{module}.engines_of", lambda graph: ("an engine",))
    options = ("--variant", "fp32", "--threads", 1)
    told = "an engine of this bundle is here: --runtime tensorrt uses the GPU\n"
    assert irstd_edge("predict", float_bundle, scenes / "images", *options).stderr == told
    chosen = (*options, "--runtime", "onnxruntime")
    assert irstd_edge("predict", float_bundle, scenes / "images", *chosen).stderr == ""


def test_a_variant_that_serves_in_place_of_a_faster_one_is_told(
    float_bundle: Path, scenes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = "irstd_edge.edge.compiler"
    monkeypatch.setattr(f"{module}.engines_of", lambda graph: graph.stem == "fp32")
    monkeypatch.setattr(f"{module}.best_variant", lambda bundle: "int8-fp16")
    run = irstd_edge("predict", float_bundle, scenes / "images", "--runtime", "tensorrt")
    told = "int8-fp16 has no engine that runs here, so fp32 serves: irstd-edge compile BUNDLE --var"
    assert run.stderr.startswith(told)


@pytest.fixture
def on_a_jetson(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is measured."""
    here = replace(this_machine(), board="NVIDIA Jetson Orin Nano")
    monkeypatch.setattr("irstd_edge.edge.devices.this_machine", lambda threads=None: here)

    def measure(bundles: object, plan: Any, move: object) -> None:
        raise IrstdError(f"would measure {', '.join(plan.runtimes)}{plan.built_only * ' if built'}")

    monkeypatch.setattr("irstd_edge.benchmarks.bench.bench", measure)


@pytest.mark.usefixtures("on_a_jetson")
def test_what_has_no_engine_on_a_jetson_is_told_or_refused(
    float_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("bench", float_bundle, "--device", "jetson")
    run = irstd_edge(*command)
    assert run.stderr.startswith("not measured on the GPU: tensorrt: not installed: on a Jetson it")
    assert "would measure onnxruntime" in run.stderr and "tensorrt\n" not in run.stderr
    run = irstd_edge(*command, "--require-measured")
    assert run.returncode == 3
    assert run.stderr.startswith("irstd-edge: --device jetson: tensorrt: not installed")
    module = "irstd_edge.edge.tensorrt_runtime"
    monkeypatch.setattr(f"{module}.is_ready", lambda: True)
    monkeypatch.setattr(f"{module}.engines_of", lambda graph: ("an engine",))
    asked: list[tuple[str, ...]] = []

    def lacks(bundle: object, variants: tuple[str, ...]) -> str:
        asked.append(tuple(variants))
        return "int8.onnx: its engine is stale"

    monkeypatch.setattr("irstd_edge.edge.compiler.why_not_built", lacks)
    run = irstd_edge(*command, "--variant", "fp32")
    assert run.stderr.startswith("not measured on the GPU: int8.onnx: its engine is stale\n")
    assert run.stderr.rstrip().endswith(", tensorrt if built"), "what has an engine is measured"
    named = irstd_edge(*command, "--runtime", "tensorrt", "--variant", "fp32")
    assert named.stderr.rstrip().endswith("would measure tensorrt")
    assert irstd_edge(*command, "--require-measured").returncode == 3
    assert asked == [("fp32",), ("fp32",), ()]


def test_the_sizes_of_a_data_set_make_the_range_of_an_engine(
    float_bundle: Path, scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "data"
    copytree(scenes, data)
    name, other = (data / "test.txt").read_text().split()[:2]
    for frame, size in ((name, (40, 300)), (other, (90, 80))):
        for folder in ("images", "masks"):
            (data / folder / f"{frame}.png").write_bytes(png_of(np.zeros(size, np.uint8)))
    shape = read_frame(next((scenes / "images").iterdir())).shape

    def compile_engine(bundle: object, variant: str, plan: Any, *_: object) -> None:
        low, tuned, high = plan.shapes(1)
        raise IrstdError(f"would build {low[2:]} {tuned[2:]} {high[2:]}")

    monkeypatch.setattr("irstd_edge.edge.compiler.compile_engine", compile_engine)
    command = ("compile", float_bundle, "--backend", "tensorrt-rtx", "--target", "sm_86")
    run = irstd_edge(*command, "--data", data)
    low, high = (min(40, shape[0]), min(80, shape[1])), (max(90, shape[0]), max(300, shape[1]))
    assert f"would build {low} {shape} {high}" in run.stderr
    run = irstd_edge(*command, "--data", data, "--size", "16x640")
    assert f"would build {(16, low[1])} {(16, 640)} {(high[0], 640)}" in run.stderr
    (data / "trainval.txt").unlink()
    assert "would build" in irstd_edge(*command, "--data", data).stderr


def test_a_jetson_that_is_not_here_is_projected(float_bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "bench.json"
    run = irstd_edge("bench", float_bundle, "--device", "jetson", "--json", out)
    assert run.returncode == 0, run.stderr
    assert "p2p: projection, not measured" in run.stdout and "orin-nano-8gb-super" in run.stdout
    assert "projected" in run.stderr and "engine" not in run.stderr
    variants = json.loads(out.read_text())["results"][0]["variants"]
    assert len(variants) == 13 and not any(variant["measured"] for variant in variants)
    assert all("fitted in two ways" in variant["method"] for variant in variants)
    assert irstd_edge("gate", out).returncode == 1
    one = irstd_edge("bench", float_bundle, "--device", "agx-orin-64gb", "--json", "-")
    assert [v["device"] for v in json.loads(one.stdout)["results"][0]["variants"]] == [
        "agx-orin-64gb"
    ]


@pytest.mark.parametrize("size", ["0x64", "64x8193", "64", "9" * 5000 + "x64", "64x-1"])
@pytest.mark.parametrize("command", ["bench", "compile"])
def test_a_size_that_no_frame_has_is_refused(
    float_bundle: Path, command: str, size: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    refused(irstd_edge(command, float_bundle, "--size", size), "--size")
    assert not any(tmp_path.iterdir())


def test_cuda_is_not_asked_of_what_runs_on_the_processor(float_bundle: Path) -> None:
    run = irstd_edge("bench", float_bundle, "--device", "cuda", "--runtime", "onnxruntime")
    refused(run, "--device cuda", "onnxruntime")


def test_a_variant_that_is_not_there_is_refused_before_anything_is_built(
    float_bundle: Path,
) -> None:
    run = irstd_edge("compile", float_bundle, "--variant", "int4")
    refused(run, "int4")


@pytest.mark.skipif(find_spec("tensorrt_rtx") is None, reason="needs irstd-edge[tensorrt-rtx]")
def test_compile_puts_an_engine_into_the_store(
    float_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    options = ("--backend", "tensorrt-rtx", "--target", "sm_86", "--size", "64x64")
    run = irstd_edge("compile", float_bundle, *options, "--json", "-")
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    engine = Path(found["engine"])
    assert engine.is_relative_to(tmp_path / "irstd-edge" / "engines")
    assert found["bytes"] == engine.stat().st_size and found["variant"] == "fp32"
    assert "built" not in run.stdout and "MB in" in run.stderr


@pytest.mark.skipif(this_gpu() is not None, reason="there is a GPU here")
def test_compile_without_a_gpu_or_tensorrt_says_what_to_do(float_bundle: Path) -> None:
    run = irstd_edge("compile", float_bundle)
    assert (run.returncode, run.stdout) == (3, "")
    assert run.stderr.splitlines()[-1].startswith("irstd-edge: tensorrt: ")


@pytest.mark.skipif(this_gpu() is not None, reason="there is a GPU here")
def test_what_a_dla_leaves_to_the_gpu_is_told_without_a_board(
    float_bundle: Path, tmp_path: Path
) -> None:
    bundle = copytree(float_bundle, tmp_path / "bundle")
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["files"]["fp16.onnx"] = manifest["files"]["fp32.onnx"]
    (bundle / "fp16.onnx").write_bytes((bundle / "fp32.onnx").read_bytes())
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    out = tmp_path / "dla.json"
    run = irstd_edge("compile", bundle, "--dla", "--size", "64x64", "--json", out)
    assert run.returncode == 3 and "irstd-edge: tensorrt: " in run.stderr.splitlines()[-1]
    assert run.stdout.startswith("DLA: takes 0 of ") and "float32 in the graph" in run.stdout
    found = json.loads(out.read_text())
    assert found["engine"] is None and found["not_built"] in run.stderr
    assert len(found["dla"]["fallbacks"]) == found["dla"]["nodes"] > 100
    refused(irstd_edge("compile", bundle, "--dla", "--variant", "fp32"), "--variant", "fp16")


def test_a_graph_with_its_decode_is_exported(float_bundle: Path, tmp_path: Path) -> None:
    import onnxruntime

    out = tmp_path / "detector.onnx"
    told = tmp_path / "told.json"
    run = as_process("export", float_bundle, "--out", out, "--targets", 16, "--json", told)
    assert (run.returncode, run.stdout) == (0, f"{out}\n"), run.stderr
    assert json.loads(told.read_text())["targets"] == 16
    session = onnxruntime.InferenceSession(out, providers=["CPUExecutionProvider"])
    (targets,) = session.run(None, {"frame": np.zeros((1, 1, 64, 64), np.float32)})
    assert targets.shape == (1, 16, 4)
    refused(irstd_edge("export", float_bundle, "--out", out, "--targets", 5000), "--targets")


@pytest.mark.skipif(find_spec("torch_tensorrt") is not None, reason="Torch-TensorRT is here")
def test_torch_tensorrt_that_is_not_here_is_told(float_bundle: Path) -> None:
    run = irstd_edge("compile", float_bundle, "--backend", "torch-tensorrt")
    assert (run.returncode, run.stdout) == (3, "")
    last = run.stderr.splitlines()[-1]
    assert "torch_tensorrt is not installed: pip install 'irstd-edge[train,tensorrt]'" in last


@pytest.mark.skipif(find_spec("cryptography") is None, reason="needs irstd-edge[sign]")
@pytest.mark.skipif(which("ssh-keygen") is None, reason="no ssh-keygen here")
def test_a_signed_bundle_is_told_from_others(
    float_bundle: Path, scenes: Path, tmp_path: Path
) -> None:
    bundle = copytree(float_bundle, tmp_path / "bundle")
    for name in ("mine", "other"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / name)]
        subprocess.run(command, check=True)
    mine, other = ("--public-key", tmp_path / "mine.pub"), ("--public-key", tmp_path / "other.pub")
    places: dict[str, tuple[object, ...]] = {
        "eval": (bundle, "--data", scenes),
        "predict": (bundle, scenes / "images"),
        "compile": (bundle,),
        "bench": (bundle,),
    }
    for command_name, rest in places.items():
        refused(irstd_edge(command_name, *rest, *mine), str(bundle), "is not signed")
    signed = as_process("sign", bundle, "--key", tmp_path / "mine")
    assert (signed.returncode, signed.stderr) == (0, "") and "signed with" in signed.stdout
    for command_name, rest in places.items():
        refused(irstd_edge(command_name, *rest, *other), str(bundle), "was signed with the key")
    found = irstd_edge("bench", bundle, *mine, "--size", "32x32", "--samples", 10, "--threads", 1)
    assert found.returncode == 0, found.stderr
    refused(irstd_edge("bench", *mine), "--public-key")
    refused(irstd_edge("eval", "p2p", "--data", scenes, *mine), "--public-key", "no bundle")


@pytest.mark.skipif(this_gpu() is not None, reason="there is a GPU here")
@pytest.mark.parametrize("command", ["eval", "predict", "bench"])
def test_tensorrt_that_is_not_here_is_told(float_bundle: Path, scenes: Path, command: str) -> None:
    places: dict[str, tuple[object, ...]] = {"predict": (scenes / "images",)}
    rest = places.get(command, ("--data", scenes))
    run = irstd_edge(command, float_bundle, *rest, "--runtime", "tensorrt")
    assert (run.returncode, run.stdout) == (3, "")
    assert run.stderr.startswith("irstd-edge: tensorrt: not installed: ")


def test_doctor_says_what_is_here_and_what_is_missing() -> None:
    run = irstd_edge("doctor", "--json", "-")
    assert run.returncode == 0, run.stderr
    found = {item["name"]: item for item in json.loads(run.stdout)}
    assert found["onnxruntime"]["ok"] and found["onnxruntime"]["fix"] is None
    assert found["shipped weights"]["found"] == "mshnet, p2p"
    assert "onnxruntime" in irstd_edge("doctor").stdout


def test_a_fault_of_ours_is_one_line_and_a_traceback_on_request(tmp_path: Path) -> None:
    code = (
        "import sys; import irstd_edge.benchmarks.scenes as s\n"
        "def broken(*a): raise KeyError('inner')\n"
        "s.write_dataset = broken\n"
        "from irstd_edge.cli import main; main()"
    )
    command = [sys.executable, "-c", code, "synth", str(tmp_path / "x")]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 70 and run.stderr.count("\n") == 1 and "KeyError" in run.stderr
    traced = subprocess.run([*command, "--debug"], capture_output=True, text=True)
    assert "Traceback" in traced.stderr


def test_report_wants_the_frames_and_the_bundle_for_pictures(tmp_path: Path) -> None:
    bench = tmp_path / "bench.json"
    machine = {"fingerprint": None}
    bench.write_text(
        json.dumps({"schema": "irstd-edge/bench/1", "machine": machine, "results": []})
    )
    refused(irstd_edge("report", bench, "--data", tmp_path, "--out", tmp_path / "r"), "--bundle:")
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--variant int4", "--variant: 'int4' is not one of fp32"),
        ("--size typo", "--size: 'typo' is not HEIGHTxWIDTH"),
        ("--runtime typo", "--runtime: 'typo' is not one of onnxruntime"),
        ("--data DATA --protocol typo", "--protocol: 'typo' is not one of native, paper256"),
        ("--data DATA --protocol typo --host board", "--protocol: 'typo' is not one of native"),
    ],
)
def test_bench_refuses_wrong_names_before_it_makes_anything(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: str, words: str
) -> None:
    monkeypatch.setattr(cli, "_shipped_bundles", lambda: pytest.fail("bundles are made"))
    given = (str(scenes) if each == "DATA" else each for each in arguments.split())
    refused(irstd_edge("bench", *given, cwd=tmp_path), words)


def test_eval_refuses_a_wrong_protocol_before_it_opens_anything(scenes: Path) -> None:
    run = irstd_edge("eval", "no-such-file", "--data", scenes, "--protocol", "typo")
    refused(run, "--protocol: 'typo' is not one of native, paper256")


@pytest.mark.parametrize("rate", ["0", "-5", "nan"])
def test_a_rate_that_is_none_is_refused(rate: str) -> None:
    refused(irstd_edge("bench", "--rate-hz", rate), "--rate-hz")


@pytest.mark.parametrize("counts", ["0", "0.1", "-0.5", "nan", "inf", "70000"])
def test_noise_that_is_none_is_refused(counts: str, scenes: Path) -> None:
    refused(irstd_edge("bench", "--data", scenes, "--noise", counts), "--noise")


def snapshot(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def bench_json(tmp_path: Path) -> Path:
    """A bench in which nothing was measured."""
    path = tmp_path / "bench.json"
    bench = {"schema": "irstd-edge/bench/1", "machine": {"fingerprint": None}, "results": []}
    path.write_text(json.dumps(bench))
    return path


@pytest.mark.parametrize(
    "arguments",
    [
        "predict p2p images --overlay --out images",
        "predict p2p images/FRAME.png --video images/FRAME.png",
        "predict p2p images --json images/FRAME.png",
        "eval p2p --data . --json test.txt",
        "eval p2p --data . --faults --picture masks/sheet.png",
        "train p2p --data . --out run --json points.json",
        "quantize key --data . --out made --json key",
        "quantize p2p --data . --out made --json trainval.txt",
        "bench bundle --json bundle/manifest.json",
        "predict p2p images --overlay --out masks",
        "predict p2p images --overlay --out images/found",
        "predict p2p images/FRAME.png --overlay --out found --json found/FRAME.png",
        "predict p2p images --json test.txt",
        "predict p2p images --json points.json",
        "demo --out .",
        "sensitivity bundle --data . --out bundle/layers.json",
        "export bundle --out bundle/fp32.onnx",
        "sign bundle --key key --json key",
        "import-weights key --model p2p --out key",
        "gate bench.json --json bench.json",
        "train p2p --data . --out run --json run/model.safetensors",
        "train p2p --data . --out run --json run/last.ckpt",
        "train p2p --data . --out run --json run",
        "quantize p2p --data . --out made --json made/manifest.json",
        "quantize p2p --data . --out made --json made.qat/last.ckpt",
        "synth made --json made",
        "synth made --json made/dataset.json",
        "demo --out made --json made/bench.json",
        "demo --out made --json made/bundle/own.json",
        "gate bench.json --baseline test.txt --junit test.txt",
        "gate bench.json --markdown bench.json",
        "gate bench.json --markdown verdict --junit verdict",
        "report bench.json --out bench.json",
        "report bench.json --data . --bundle bundle --out bundle/report.html",
    ],
)
def test_no_result_replaces_what_it_is_made_of(
    copy: Path, float_bundle: Path, bench_json: Path, arguments: str
) -> None:
    copytree(float_bundle, copy / "bundle")
    bench_json.rename(copy / "bench.json")
    (copy / "key").touch()
    before = snapshot(copy)
    frame = (copy / "test.txt").read_text().split()[0]
    run = irstd_edge(*arguments.replace("FRAME", frame).split(), cwd=copy)
    refused(run, arguments.split()[-2], "choose another place")
    assert snapshot(copy) == before


@pytest.mark.parametrize(
    "arguments",
    [
        "predict p2p images --overlay --out FILE",
        "predict p2p images --video FILE/x.avi",
        "export no-bundle --out FILE/x.onnx",
        "import-weights no-file --model p2p --out FILE/x",
        "gate bench.json --markdown verdict.md --junit FILE/x --json a.json",
        "report bench.json --out FILE/x",
    ],
)
def test_a_place_that_cannot_be_written_is_told_before_the_work(
    copy: Path, bench_json: Path, arguments: str
) -> None:
    bench_json.rename(copy / "bench.json")
    (copy / "FILE").touch()
    before = snapshot(copy)
    refused(irstd_edge(*arguments.split(), cwd=copy), "FILE", "cannot be written")
    assert snapshot(copy) == before


@pytest.mark.parametrize(("stdout", "code"), [("closed", 141), ("/dev/full", 2)])
def test_results_are_kept_where_stdout_fails(bench_json: Path, stdout: str, code: int) -> None:
    command = "gate bench.json --json a.json --junit a.xml --markdown a.md".split()
    if stdout == "closed":
        read, write = os.pipe()
        os.close(read)
    else:
        write = os.open(stdout, os.O_WRONLY)
    run = subprocess.run(
        [sys.executable, "-m", "irstd_edge.cli", *command],
        cwd=bench_json.parent,
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
        timeout=120,
    )
    os.close(write)
    assert run.returncode == code and "Traceback" not in run.stderr, run.stderr
    made = {path.name for path in bench_json.parent.iterdir()}
    assert made == {"a.json", "a.md", "a.xml", "bench.json"}


def test_a_result_is_said_in_any_encoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    run = as_process("synth", "wärme", "--frames", 2, "--size", "32x32", cwd=tmp_path)
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout == "w?rme: 2 frames of 32x32, 8 bits\n"


def test_ctrl_c_before_a_command_has_begun_is_no_traceback() -> None:
    code = (
        "import irstd_edge.cli as cli\n"
        "def stopped(arguments): raise KeyboardInterrupt\n"
        "cli.app = stopped\n"
        "cli.main()"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (run.returncode, run.stdout, run.stderr) == (130, "", "")


@pytest.mark.parametrize("bits", [0, -3, 9])
def test_bits_that_no_sensor_has_are_refused(scenes: Path, bits: int) -> None:
    run = irstd_edge("predict", "p2p", scenes / "images", "--bits", bits)
    refused(run, f"--bits: {bits} is not one of (8, 10, 12, 14, 16)")


def test_the_bits_of_a_data_set_hold_for_its_images_alone(copy: Path, tmp_path: Path) -> None:
    file = sorted((copy / "images").iterdir())[0]
    refused(irstd_edge("predict", "p2p", file, "--bits", 14), file.name, "8 bits, not of 14")
    (copy / "dataset.json").write_text('{"bit_depth": 14}')
    refused(irstd_edge("eval", "p2p", "--data", copy), "8 bits, not of 14")
    counts = cv2.imread(str(file), cv2.IMREAD_UNCHANGED).astype(np.uint16)
    counts[30:33, 40:43] = 16383
    for path in (copy / "images" / "deep.png", tmp_path / "deep.png"):
        cv2.imwrite(str(path), counts)
    words = "clipped: deep: "
    found = irstd_edge("predict", "p2p", copy / "images" / "deep.png")
    assert found.stderr.startswith(words) and found.stderr.endswith("full scale of 14 bits\n")
    mixed = irstd_edge("predict", "p2p", "images", cwd=copy)
    assert mixed.returncode == 2 and mixed.stderr.count("8 bits, not of 14") == 8
    assert irstd_edge("predict", "p2p", tmp_path / "deep.png").stderr == ""
    whole = irstd_edge("predict", "p2p", copy / "images" / "deep.png", "--bits", 16)
    assert (whole.returncode, whole.stderr) == (0, "")


PROJECTED = "bench bundle --device agx-orin-64gb"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (f"{PROJECTED} --batch 8", "a projection"),
        (f"{PROJECTED} --rate-hz 50", "a projection"),
        (f"{PROJECTED} --data . --noise 0.5", "a projection"),
        ("bench bundle --noise 0.5", "without --data"),
        (f"{PROJECTED} --threads 1", "a projection"),
        (f"{PROJECTED} --samples 100", "a projection"),
        (f"{PROJECTED} --data . --split val", "a projection"),
        (f"{PROJECTED} --data . --protocol native", "a projection"),
        (f"{PROJECTED} --variant int8", "a projection"),
        (f"{PROJECTED} --runtime tensorrt", "a projection"),
        (f"{PROJECTED} --remote-python python", "a projection"),
        (f"{PROJECTED} --data . --strict", "a projection"),
        ("bench bundle --protocol native", "without --data"),
        ("bench bundle --remote-python python", "without --host"),
        ("eval p2p --data . --halo 32", "without --tile"),
        ("predict p2p images --tile-batch 2", "without --tile"),
        ("predict p2p images --video-fps 25", "without --video"),
        ("compile bundle --targets 64", "without --with-decode"),
    ],
)
def test_an_option_that_changes_nothing_is_refused(
    tmp_path: Path, arguments: str, words: str
) -> None:
    given = [word for word in arguments.split() if word.startswith("--")]
    run = irstd_edge(*arguments.split(), cwd=tmp_path)
    refused(run, f"irstd-edge: {given[-1]}: means nothing", words)


def test_a_projection_takes_the_size_of_the_frames(float_bundle: Path, scenes: Path) -> None:
    run = irstd_edge("bench", float_bundle, "--device", "agx-orin-64gb", "--data", scenes)
    assert run.returncode == 0, run.stderr
    assert run.stdout.endswith("no accuracy is projected: --data gives the size of its frames\n")


def test_report_refuses_layers_of_a_bundle_that_was_not_measured(bench_json: Path) -> None:
    layers, out = bench_json.with_name("layers.json"), bench_json.with_name("report.html")
    value = {"schema": "irstd-edge/sensitivity/2", "bundle": "a" * 64, "layers": []}
    layers.write_text(json.dumps(value))
    run = irstd_edge("report", bench_json, "--sensitivity", layers, "--out", out)
    refused(run, "--sensitivity", str(layers), "of the bundle aaaaaaaaaaaa, which is in none")
    assert not out.exists()


def test_benches_of_one_report_are_held_against_a_baseline_together(bench_json: Path) -> None:
    cost = {**dict.fromkeys(("params", "macs", "gflops")), "input": [1, 1, 64, 64]}
    bench = json.loads(bench_json.read_text())
    for file, models in (("a", "a"), ("b", "b"), ("old", "abc")):
        each = {"cost": cost, "variants": [], "drift": []}
        value = {**bench, "results": [{"model": model, **each} for model in models]}
        bench_json.with_name(f"{file}.json").write_text(json.dumps(value))
    command = "report a.json b.json --baseline old.json --out report.html --json -"
    run = irstd_edge(*command.split(), cwd=bench_json.parent)
    assert run.returncode == 0, run.stderr
    checks = [c for c in json.loads(run.stdout)["checks"] if c["name"] == "baseline.entry"]
    assert [check["model"] for check in checks] == ["c"]
