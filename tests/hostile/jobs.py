"""The commands that write, made small, and what a look at their output must find afterwards."""

import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

FRAMES = 12


@dataclass(frozen=True)
class Job:
    """A command that replaces the result of an earlier run."""

    old: Callable[[Path], None]
    """Put an earlier result into a folder."""
    work: Callable[[Path], None]
    """Replace it: the command itself."""
    state: Callable[[Path], str]
    """old, new or part of new (each file whole); an assertion or IrstdError where one is half."""


def graph() -> bytes:
    """A p2p of one layer: heatmap = 20 * mean of a 2x2 cell - 10."""
    from onnx import TensorProto, helper, numpy_helper

    weights = {"heatmap": np.full((1, 1, 2, 2), 5), "geometry": np.zeros((3, 1, 2, 2))}
    biases = {"heatmap": [-10], "geometry": [0.25, -0.25, 0.4]}
    nodes, tensors, outputs = [], [], []
    for name, weight in weights.items():
        tensors.append(numpy_helper.from_array(np.float32(weight), f"{name}.w"))
        tensors.append(numpy_helper.from_array(np.float32(biases[name]), f"{name}.b"))
        inputs = ["frame", f"{name}.w", f"{name}.b"]
        nodes.append(helper.make_node("Conv", inputs, [name], name, strides=[2, 2]))
        shape = ["N", len(weight), "h", "w"]
        outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
    frame = helper.make_tensor_value_info("frame", TensorProto.FLOAT, ["N", 1, "H", "W"])
    made = helper.make_graph(nodes, "net", [frame], outputs, tensors)
    opset = [helper.make_opsetid("", 17)]
    return bytes(helper.make_model(made, opset_imports=opset, ir_version=8).SerializeToString())


def write_small_bundle(path: Path, seed: int = 0) -> None:
    """A bundle of that graph under every name, with two golden frames."""
    from irstd_edge.edge.bundle import write_bundle
    from irstd_edge.edge.golden import golden_files
    from irstd_edge.edge.types import (
        DecodeSpec,
        Frame,
        InputSpec,
        Manifest,
        ModelSpec,
        Quantization,
    )

    frames = [Frame(name, np.full((16, 16), 20, np.uint8), 8) for name in ("a", "b")]
    names = ("fp32.onnx", "int8.onnx", "int8.cpu.onnx")
    spec = ModelSpec("p2p", InputSpec(8), DecodeSpec("heatmap"))
    manifest = Manifest(spec, "0" * 64, {}, Quantization("ptq", {"seed": seed}, (), ()), {})
    golden = golden_files(frames, {name: [[], []] for name in names})
    write_bundle(path, manifest, {**dict.fromkeys(names, graph()), **golden})


def command(*arguments: object) -> None:
    """The command line in this process."""
    from irstd_edge.cli import app

    try:
        app([str(argument) for argument in arguments])
    except SystemExit as end:
        assert not end.code, f"exit {end.code}"


def predict(scenes: Path, bundle: Path) -> Job:
    def old(out: Path) -> None:
        (out / "found.jsonl").write_text("old\n")

    def work(out: Path) -> None:
        options = ("--threshold", 0.3, "--overlay", "--out", out / "pictures")
        command("predict", bundle, scenes / "images", *options, "--json", out / "found.jsonl")

    def state(out: Path) -> str:
        import cv2

        for picture in out.glob("pictures/*.png"):
            assert cv2.imread(str(picture)) is not None, picture
        lines = (out / "found.jsonl").read_text().splitlines()
        if lines == ["old"]:
            return "old"
        assert [sorted(json.loads(line)) for line in lines] == [["detections", "frame"]] * FRAMES
        return "new"

    return Job(old, work, state)


def bench(scenes: Path, bundle: Path) -> Job:
    def old(out: Path) -> None:
        (out / "bench.json").write_text("old")

    def work(out: Path) -> None:
        options = ("--runtime", "onnxruntime", "--samples", 10, "--threads", 1)
        command("bench", bundle, "--data", scenes, *options, "--json", out / "bench.json")

    def state(out: Path) -> str:
        from irstd_edge.benchmarks.schema import read_bench

        if (out / "bench.json").read_text() == "old":
            return "old"
        assert len(read_bench(out / "bench.json")["results"]) == 1
        return "new"

    return Job(old, work, state)


def quantize(made: Path | None) -> Job:
    """Its only writing; what comes before takes minutes and touches nothing.

    made: a bundle of the command itself, to be written again; None for a small one.
    """

    def write(path: Path, seed: int) -> None:
        from irstd_edge.edge.bundle import open_bundle, write_bundle

        if made is None:
            return write_small_bundle(path, seed)
        bundle = open_bundle(made)
        files = {name: (made / name).read_bytes() for name in bundle.manifest.files}
        how = replace(bundle.manifest.quantization, recipe={"seed": seed})
        write_bundle(path, replace(bundle.manifest, quantization=how), files)

    def state(out: Path) -> str:
        from irstd_edge.edge.bundle import open_bundle

        recipe = open_bundle(out / "bundle").manifest.quantization.recipe
        return ("old", "new")[recipe["seed"]]

    return Job(lambda out: write(out / "bundle", 0), lambda out: write(out / "bundle", 1), state)


def compile_engine(bundle: Path) -> Job:
    def work(out: Path) -> None:
        os.environ["XDG_DATA_HOME"] = str(out)
        target = ("--backend", "tensorrt-rtx", "--target", "sm_86", "--size", "32x32")
        command("compile", bundle, "--variant", "fp32", *target)

    def state(out: Path) -> str:
        from irstd_edge.edge.engine_store import open_store

        store = open_store(out / "irstd-edge" / "engines")
        (key,) = store.keys()
        assert store.load(key)
        return "old or new"  # they hold the same

    return Job(work, work, state)


def train(scenes: Path) -> Job:
    def work(out: Path) -> None:
        sys.path.insert(0, str(Path(__file__).parents[1] / "models"))
        from training_process import main

        recipe: dict[str, Any] = {"epochs": 3, "batch_size": 4}
        main(model="p2p", data=str(scenes), out=str(out / "run"), recipe=recipe)

    def state(out: Path) -> str:
        import torch

        from irstd_edge.models.weights import load_model

        run = out / "run"
        if (run / "model.safetensors").exists():
            load_model(run / "model.safetensors")
        lines = (run / "metrics.jsonl").read_text() if (run / "metrics.jsonl").exists() else ""
        epochs = [json.loads(line)["epoch"] for line in lines.splitlines()]
        assert epochs == list(range(len(epochs)))
        if not (run / "last.ckpt").exists():
            return "old"
        done = torch.load(run / "last.ckpt", weights_only=True)["epoch"]
        assert len(epochs) in (done, done + 1) and (run / "model.safetensors").exists()
        return "new" if done == 3 else "part of new"

    return Job(lambda out: None, work, state)
