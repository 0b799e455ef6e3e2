"""The command line: each command parses, makes its call, prints and exits.

stdout carries the result, stderr the talk. Exit codes: 0 done or passed, 1 a gate failed, 2 the
user can fix it, 3 this machine cannot do it, 70 a fault of ours.
"""

from __future__ import annotations

import io
import json
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, NoReturn

import typer
from rich.console import Console

from irstd_edge import __version__
from irstd_edge.edge.errors import UNREACHABLE, UNWRITABLE, IrstdError, MachineError
from irstd_edge.edge.policy import MAX_SIDE_PX, limit_memory, printable

if TYPE_CHECKING:
    from irstd_edge.edge.bundle import Bundle
    from irstd_edge.edge.runners import Runner
    from irstd_edge.edge.tiles import Tiling
    from irstd_edge.edge.types import Detection, Frame, ModelSpec, Prediction, Skip

app = typer.Typer(
    name="irstd-edge",
    help="Infrared small-target detectors in INT8 on the edge, and what that cost.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


def new_console(stderr: bool = False) -> Console:
    """What prints text as it is: names of files and frames may hold [brackets] and :colons:."""
    return Console(stderr=stderr, highlight=False, markup=False, emoji=False)


talk = new_console(stderr=True)

PIPE_CLOSED = 141
"""Exit code when the reader of stdout has closed it: 128 + SIGPIPE."""

STOPPED = 130
"""Exit code after Ctrl-C: 128 + SIGINT."""

RUNTIME_HELP = "onnxruntime, openvino, tensorrt, torch-tensorrt; torch for W."

Data = Annotated[Path, typer.Option(help="Data set: images/, masks/, trainval.txt, test.txt.")]
DataSets = Annotated[list[Path], typer.Option(help="Data set; may be given several times.")]


def _check_outputs(
    places: Mapping[str, Path | str | None],
    inputs: Iterable[Path | None],
    data: Iterable[Path] = (),
    made: Iterable[Path] = (),
) -> None:
    """Refuse now, not after the work, a result that would replace another file or is unwritable.

    places: flag -> file. inputs: what is read. data: data sets, in which new files may be made.
    made: other files that the command writes, and folders that it puts in place as a whole.
    """
    from irstd_edge.edge.dataset import places_of
    from irstd_edge.edge.files import refuse_clash, refuse_unwritable

    outputs = [(flag, Path(place)) for flag, place in places.items() if place not in (None, "-")]
    read = [path for path in inputs if path is not None and path.exists()]
    refuse_clash(outputs, [*read, *places_of(data)], made)
    for _, place in outputs:
        refuse_unwritable(place)


def _refuse_given(context: typer.Context, names: Sequence[str], why: str) -> None:
    """Raise IrstdError for the first of these options that was given. why: it means nothing so."""
    for option in context.command.params:
        source = context.get_parameter_source(option.name or "")
        if option.name in names and source is not None and source.name == "COMMANDLINE":
            raise IrstdError(f"{option.opts[0]}: {why}")


TILE_ALONE = "means nothing without --tile: add it, or leave this out"

JsonOut = Annotated[
    str | None,
    typer.Option("--json", metavar="FILE|-", help="Also as JSON; - for stdout."),
]
MOST = 10**6
"""Of what nobody asks so much of but by a slip."""
Seed = Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Same seed, same result.")]
Threads = Annotated[int | None, typer.Option(min=1, max=1024, help="CPU threads; all by default.")]
Source = Annotated[str, typer.Argument(metavar="W|BUNDLE", help="mshnet, p2p, a file, a bundle.")]
PublicKey = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Refuse a bundle that this key did not sign.")
]
Variant = Annotated[
    str | None, typer.Option(help="Bundle variant: int8 (default), fp32, fp16 or int8-fp16.")
]
Threshold = Annotated[
    float | None, typer.Option(help="Lowest probability of a detection, instead of the model's.")
]
MaxFa = Annotated[
    float | None,
    typer.Option(
        min=0, help="A threshold that kept to so many false alarms per Mpx on held-out frames."
    ),
]
Normalise = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="full-scale, percentile, local-contrast or by-depth: how counts become 0..1.",
    ),
]
Tile = Annotated[
    str | None, typer.Option(metavar="HxW", help="Run larger frames by tiles of this size.")
]
Halo = Annotated[int, typer.Option(min=0, help="Pixels of context on each side of a tile.")]
TileBatch = Annotated[int, typer.Option("--tile-batch", min=1, max=1024, help="Tiles a call.")]


def main() -> None:
    """Run the command line and turn errors into one line and an exit code."""
    debug = "--debug" in sys.argv
    arguments = [a for a in sys.argv[1:] if a != "--debug"]
    if not debug:
        warnings.simplefilter("ignore")  # of libraries, to their callers: not to our users
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # what its encoding lacks costs no result
    limit_memory()
    try:
        _refuse_second_data(arguments)
        app(arguments)
    except KeyboardInterrupt:
        sys.exit(STOPPED)
    except Exception as error:
        if debug:
            raise
        _fail(error)
    except SystemExit as end:
        if isinstance(end.__context__, BrokenPipeError):  # Typer ends with 1, as a failed gate does
            sys.exit(PIPE_CLOSED)
        _flush()
        raise


def _refuse_second_data(arguments: Sequence[str]) -> None:
    """Click takes the last of several: the figures would be of other frames than is thought."""
    given = [a for a in arguments if a == "--data" or a.startswith("--data=")]
    if len(given) > 1 and arguments[0] not in ("train", "quantize"):
        raise IrstdError("--data: is given twice: one data set here; run the command for each")


def _fail(error: Exception) -> NoReturn:
    code, note = _exit_code(error)
    print(f"irstd-edge: {_one_line(error)}{note}", file=sys.stderr)
    sys.exit(code)


def _flush() -> None:
    """Find out now whether stdout took the result: at its end Python can but print a traceback."""
    try:
        sys.stdout.flush()
    except OSError as error:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            sys.exit(PIPE_CLOSED)
        _fail(error)


def _exit_code(error: Exception) -> tuple[int, str]:
    if isinstance(error, MachineError):
        return 3, ""
    if isinstance(error, IrstdError):
        return 2, ""
    if isinstance(error, MemoryError):
        gap = ": " if str(error) else ""
        return 2, f"{gap}out of memory: give smaller frames, or --tile HxW"
    if isinstance(error, OSError) and error.errno in UNWRITABLE:
        return 2, ": make space, or choose another place"
    loops = isinstance(error, RuntimeError) and str(error).startswith("Symlink loop")  # of pathlib
    if loops or (isinstance(error, OSError) and error.errno in UNREACHABLE):
        return 2, ": check the path and its rights"
    return 70, f" ({type(error).__name__}: a fault of ours; --debug shows where)"


def _one_line(error: Exception) -> str:
    return printable(" ".join(str(error).split()))


def _say(text: str) -> None:
    """Talk that holds names of files and frames."""
    talk.print(printable(text), soft_wrap=True)


@contextmanager
def _needs_train_extra(what: str, instead: str = "") -> Iterator[None]:
    """Turn a missing package of the `train` extra into a MachineError.

    It says what needs it, how to install it and what to use `instead`.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise MachineError(
            f"{what}: needs {error.name}: pip install 'irstd-edge[train]'{instead}"
        ) from error


@contextmanager
def _progress() -> Iterator[Callable[[str, float, float | None], None]]:
    """Yield a function (what, done, total) that moves a bar on a terminal, and nothing else."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    words = TextColumn("{task.description}", markup=False)
    columns = (words, BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=talk, disable=not talk.is_terminal, transient=True) as bars:
        tasks: dict[str, Any] = {}

        def update(what: str, done: float, total: float | None) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done, total=total)

        yield update


def _results(json_to: str | None) -> Console:
    """Where people's form of the result goes: beside the JSON when that takes stdout."""
    return talk if json_to == "-" else new_console()


def _emit(value: Any, json_to: str | None) -> None:
    """Write the machine's form of a result where `--json` says; before people's, which may fail."""
    from irstd_edge.edge.json_files import write_json

    if json_to == "-":
        print(json.dumps(value, indent=2, allow_nan=False))
    elif json_to is not None:
        write_json(Path(json_to), value)


def _tell(words: str, value: dict[str, Any], json_to: str | None) -> None:
    """Say a short result to people, and give it to programs where `--json` says."""
    _emit(value, json_to)
    print(words, file=sys.stderr if json_to == "-" else sys.stdout)


def _version(show: bool) -> None:
    if show:
        print(f"irstd-edge {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Options of every command."""


@app.command()
def synth(
    out: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to make.")],
    frames: Annotated[int, typer.Option(help="Number of frames.")] = 200,
    size: Annotated[str, typer.Option(metavar="HxW", help="Frame size in pixels.")] = "256x256",
    bits: Annotated[int, typer.Option(help="8, 14 or 16 per pixel.")] = 8,
    seed: Seed = 0,
    json_to: JsonOut = None,
) -> None:
    """Write a labelled data set of synthetic infrared scenes."""
    from irstd_edge.benchmarks.scenes import write_dataset

    _check_outputs({"--json": json_to}, [], made=[out])
    with _progress() as move:
        shape = _size(size)
        write_dataset(out, frames, shape, bits, seed, lambda n, total: move("scenes", n, total))
    made = {"path": str(out), "frames": frames, "size": shape, "bits": bits, "seed": seed}
    _tell(f"{out}: {frames} frames of {size}, {bits} bits", made, json_to)


def _size(text: str, flag: str = "--size") -> tuple[int, int]:
    sides = re.fullmatch("([0-9]{1,5})x([0-9]{1,5})", text)
    if sides is None:
        raise IrstdError(f"{flag}: {text!r:.60} is not HEIGHTxWIDTH; write it like 256x256")
    height, width = map(int, sides.groups())
    if not (0 < height <= MAX_SIDE_PX and 0 < width <= MAX_SIDE_PX):
        raise IrstdError(f"{flag}: {text} has a side that is not 1 to {MAX_SIDE_PX}; correct it")
    return height, width


@app.command()
def train(
    model: Annotated[str, typer.Argument(metavar="{mshnet,p2p}")],
    data: DataSets,
    out: Annotated[Path, typer.Option(metavar="RUN", help="Folder of the run.")],
    weights: Annotated[str | None, typer.Option(metavar="W", help="Start from these.")] = None,
    epochs: Annotated[int | None, typer.Option(max=MOST, help="Passes over the frames.")] = None,
    batch_size: Annotated[
        int | None, typer.Option(max=MOST, help="Crops a step, of all processes.")
    ] = None,
    lr: Annotated[
        float | None,
        typer.Option(max=MOST, help="Highest learning rate. [the recipe's, by the batch size]"),
    ] = None,
    loss: Annotated[str | None, typer.Option(help="sls, soft-iou, dice, bce, ...")] = None,
    recipe: Annotated[
        str,
        typer.Option(
            help="default or finetune; mshnet: paper, turned, large-frames, noisy; "
            "p2p: whole-frames."
        ),
    ] = "default",
    keep: Annotated[
        str | None,
        typer.Option(metavar="{best,last}", help="Of validated epochs. [the recipe's]"),
    ] = None,
    normalise: Normalise = None,
    seed: Seed = 0,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    resume: Annotated[bool, typer.Option("--resume", help="Go on from RUN/last.ckpt.")] = False,
    json_to: JsonOut = None,
) -> None:
    """Train a detector; the epoch that is best on the held-out tenth is kept, or the last."""
    with _needs_train_extra("train"):
        from irstd_edge.models.recipes import recipe_of
        from irstd_edge.models.train import CHECKPOINT, METRICS, WEIGHTS, Epoch
        from irstd_edge.models.train import train as train_model
        from irstd_edge.models.weights import find_weights, spec_to_train

    chosen = recipe_of(
        model, recipe, epochs=epochs, batch_size=batch_size, lr=lr, loss=loss, keep=keep
    )
    start = None if weights is None else find_weights(weights)
    spec = spec_to_train(model, start, normalise)
    metrics = out / METRICS
    made = [out / WEIGHTS, out / CHECKPOINT, metrics]
    _check_outputs({"--json": json_to}, [start], data, made)
    fit, held_out = _samples(data, "train"), _samples(data, "val")
    if not held_out:  # now, not when the first epochs are to be judged
        raise IrstdError("--data: no held-out frame can be used; list more frames in trainval.txt")
    first = os.environ.get("RANK", "0") == "0"  # of several processes under torchrun
    if first:
        talk.print(f"{len(fit)} frames to train on, {len(held_out)} held out")
    with _progress() as move:

        def show(done: Epoch) -> None:
            move(f"training {model}", done.epoch + 1, chosen.epochs)
            known = {k: v for k, v in done.scores.items() if isinstance(v, float)}
            scores = "".join(f", {k} {v:.4f}" for k, v in known.items())
            speed = f"{done.frames_per_s:.0f} frames/s"
            talk.print(f"epoch {done.epoch + 1}: loss {done.loss:.4f}, {speed}{scores}")

        path = train_model(
            model,
            fit,
            out,
            chosen,
            seed=seed,
            device=device,
            weights=start,
            normalisation=normalise,
            resume=resume,
            validate=_validation(spec, held_out),
            progress=show,
            tell=_say if first else lambda words: None,
        )
    if first:
        lines = metrics.read_text().splitlines()
        done = {"path": str(path), "epochs": [json.loads(line) for line in lines]}
        _tell(str(path), done, json_to)


def _samples(folders: list[Path], split: str) -> list[Any]:
    """Decode the usable frames of several data sets; say which are left out."""
    from irstd_edge.edge.dataset import open_datasets, samples_of
    from irstd_edge.edge.types import Skip

    samples = []
    for _, sample in samples_of(open_datasets(folders, split)):
        if isinstance(sample, Skip):
            _say(f"skipped {sample.name}: {sample.reason}")
        else:
            samples.append(sample)
    return samples


def _validation(spec: ModelSpec, held_out: list[Any]) -> Callable[[Any], dict[str, Any]]:
    from irstd_edge.benchmarks.operating_point import held_out_scores
    from irstd_edge.edge.runners import torch_runner

    def validate(net: Any) -> dict[str, Any]:
        with torch_runner(net.deploy(), spec) as run:
            return held_out_scores(run.predict, held_out)

    return validate


@app.command("import-weights")
def import_weights(
    file: Annotated[Path, typer.Argument(help="The authors' .tar, .pkl, .pth or .safetensors.")],
    model: Annotated[str, typer.Option(help="mshnet or p2p.")],
    out: Annotated[Path, typer.Option(metavar="W.safetensors", help="File to write.")],
    json_to: JsonOut = None,
) -> None:
    """Turn the authors' weights into a file of ours, without running what they may hold."""
    with _needs_train_extra("import-weights"):
        from irstd_edge.models.weights import import_weights as read_weights
        from irstd_edge.models.weights import save_weights

    _check_outputs({"--out": out, "--json": json_to}, [file])
    net, card = read_weights(file, model)
    save_weights(out, model, net, card)
    count = sum(p.numel() for p in net.parameters())
    made = {"path": str(out), "model": model, "parameters": count}
    _tell(f"{out}: {model}, {count:,} parameters", made, json_to)


@contextmanager
def _runner(
    source: str,
    runtime: str | None,
    variant: str | None,
    public_key: Path | None,
    normalise: str | None,
    threads: int | None,
) -> Iterator[Runner]:
    """Open weights (with torch) or a bundle, and check a bundle before it serves."""
    from irstd_edge.edge.bundle import open_bundle
    from irstd_edge.edge.compiler import TORCH_VARIANT, best_variant, variant_to_run
    from irstd_edge.edge.runners import open_runner
    from irstd_edge.edge.tensorrt_runtime import TENSORRT, TORCH_TENSORRT

    if _is_bundle(source):
        bundle = open_bundle(Path(source), public_key)
        if normalise is not None:
            frozen = bundle.manifest.model.input.normalisation
            raise IrstdError(f"--normalise: {source} was made for {frozen}: quantize again with it")
        chosen = variant or (TORCH_VARIANT if runtime == TORCH_TENSORRT else "int8")
        if runtime == TENSORRT and variant is None:
            chosen, best = variant_to_run(bundle), best_variant(bundle)
            if chosen != best:
                talk.print(
                    f"{best} has no engine that runs here, so {chosen} serves: irstd-edge compile "
                    f"BUNDLE --variant {best}",
                    soft_wrap=True,
                )
        if runtime is None:
            _tell_of_engines(bundle)
        with open_runner(bundle, chosen, runtime or "onnxruntime", threads=threads) as run:
            yield run
        return
    if public_key is not None:
        raise IrstdError(f"--public-key: {source} is no bundle, and only bundles are signed")
    if runtime not in (None, "torch") or variant not in (None, "fp32"):
        raise IrstdError(f"{source}: weights run as fp32 with torch; give a bundle instead")
    with _weights_runner(source, normalise, threads) as run:
        yield run


def _is_bundle(source: str) -> bool:
    """Whether W|BUNDLE is a folder; the name of shipped weights is theirs, whatever lies here.

    Raises IrstdError for a name that is also that of a bundle here, and for nothing at all.
    """
    from irstd_edge.edge.doctor import WEIGHTS

    shipped = sorted(weights.stem for weights in WEIGHTS.glob("*.safetensors"))
    if source not in shipped:
        if not Path(source).exists():
            raise IrstdError(
                f"{source}: no such file or folder; give a bundle, a .safetensors file or one of "
                f"{', '.join(shipped)}"
            )
        return Path(source).is_dir()
    if (Path(source) / "manifest.json").is_file():
        raise IrstdError(
            f"{source}: is the name of shipped weights and of a bundle here: give ./{source} for "
            "the bundle, or rename it for the weights"
        )
    return False


def _tell_of_engines(bundle: Bundle) -> None:
    """Say so where the processor is about to be used beside a GPU that has an engine of this."""
    from irstd_edge.edge.tensorrt_runtime import TENSORRT, engines_of, is_ready

    graphs = [bundle.graph(variant, TENSORRT) for variant in bundle.variants(TENSORRT)]
    with suppress(Exception):  # a hint is no reason to fail
        if not is_ready() or not any(map(engines_of, graphs)):
            return
        talk.print(f"an engine of this bundle is here: --runtime {TENSORRT} uses the GPU")


def _weights_runner(source: str, normalise: str | None, threads: int | None) -> Runner:
    from irstd_edge.edge.normalisation import with_normalisation
    from irstd_edge.edge.runners import torch_runner

    with _needs_train_extra(source, ", or give a bundle"):
        import torch

        from irstd_edge.models.weights import load_model, spec_of_card
    if threads is not None:
        torch.set_num_threads(threads)
    net, model, card = load_model(source)
    spec = with_normalisation(spec_of_card(model, card), normalise)
    return torch_runner(net.deploy(), spec)


@app.command("eval")
def evaluate(
    context: typer.Context,
    source: Source,
    data: Data,
    split: Annotated[str, typer.Option(help="test, val, train or trainval.")] = "test",
    protocol: Annotated[str, typer.Option(help="native or paper256.")] = "native",
    runtime: Annotated[str | None, typer.Option(help=RUNTIME_HELP)] = None,
    variant: Variant = None,
    threads: Threads = None,
    threshold: Threshold = None,
    max_fa: MaxFa = None,
    normalise: Normalise = None,
    tile: Tile = None,
    halo: Halo = 32,
    tile_batch: TileBatch = 1,
    faults: Annotated[
        bool, typer.Option("--faults", help="Also under sensor faults; a bundle against its fp32.")
    ] = False,
    picture: Annotated[
        Path | None, typer.Option(metavar="FILE.png", help="With --faults: one frame under each.")
    ] = None,
    public_key: PublicKey = None,
    strict: Annotated[bool, typer.Option("--strict", help="A skipped frame is an error.")] = False,
    json_to: JsonOut = None,
) -> None:
    """Measure the accuracy of weights or a bundle on labelled frames."""
    from functools import partial

    from irstd_edge.benchmarks.accuracy import evaluate as run_evaluation
    from irstd_edge.benchmarks.buckets import buckets
    from irstd_edge.benchmarks.curves import threshold_to_predict
    from irstd_edge.benchmarks.table import print_accuracy, print_faults
    from irstd_edge.edge.dataset import check_protocol, open_dataset

    if tile is None:
        _refuse_given(context, ("halo", "tile_batch"), TILE_ALONE)
    if picture is not None and not faults:
        raise IrstdError("--picture: shows sensor faults; add --faults")
    inputs = [Path(source), public_key]
    _check_outputs({"--picture": picture, "--json": json_to}, inputs, [data])
    check_protocol(protocol)
    chosen = open_dataset(data, split)
    spoilt: dict[str, Any] = {}
    with (
        _progress() as move,
        _runner(source, runtime, variant, public_key, normalise, threads) as run,
        _fp32_beside(run, source if faults else None, threads) as fp32,
        _checking(tile) as check,
    ):
        threshold = _threshold(run, threshold, max_fa)
        low = threshold_to_predict(run.spec.decode.kind, threshold)
        predict_one = _predict_by(run, tile, halo, tile_batch, low)

        def checked(frame: Frame) -> Prediction:
            check(frame)
            return predict_one(frame)

        samples, total = chosen.samples(strict, protocol), len(chosen.names)
        result = run_evaluation(
            samples, checked, protocol, threshold, lambda done: move(run.name, done, total)
        )
        if faults:
            predict_of = partial(
                _predict_by, tile=tile, halo=halo, batch=tile_batch, threshold=threshold
            )
            reread = partial(chosen.samples, strict, protocol)
            spoilt = {"faults": _faults(run, fp32, reread, predict_of, protocol, picture, move)}
    found = {
        "model": run.spec.name,
        "variant": run.variant,
        "runtime": run.runtime,
        "tile": tile,
        **result.accuracy(),
        **buckets(result),
        **spoilt,
    }
    _emit(found, json_to)
    print_accuracy(found, _results(json_to))
    if faults:
        print_faults(found["faults"], _results(json_to))


@contextmanager
def _fp32_beside(run: Runner, bundle: str | None, threads: int | None) -> Iterator[Runner | None]:
    """Yield the bundle's FP32 on the same runtime; None for weights, for FP32, and for None."""
    from irstd_edge.edge.runners import open_runner

    if bundle is None or run.runtime == "torch" or run.variant == "fp32":
        yield None
        return
    with open_runner(Path(bundle), "fp32", run.runtime, threads=threads) as fp32:
        yield fp32


def _faults(
    run: Runner,
    fp32: Runner | None,
    samples: Callable[[], Iterator[Any]],
    predict_of: Callable[[Runner], Callable[[Frame], Prediction]],
    protocol: str,
    picture: Path | None,
    move: Any,
) -> list[dict[str, Any]]:
    """Judge a runner under every sensor fault, beside `fp32` if there is one; draw the picture."""
    import cv2

    from irstd_edge.benchmarks.fault_eval import Detector, example_of, faults_of, sheet_of
    from irstd_edge.edge.files import write_atomic

    reference = None if fp32 is None else ("fp32", predict_of(fp32))
    detector = Detector(run.variant, predict_of(run), run.runtime, reference)
    records = faults_of(samples, detector, protocol, move)
    example = None if picture is None else example_of(samples(), predict_of(run))
    if picture is not None and example is not None:
        sheet = sheet_of(example, predict_of(run))
        write_atomic(picture, cv2.imencode(".png", sheet)[1].tobytes())
    return records


def _threshold(run: Runner, given: float | None, max_fa: float | None) -> float:
    """The threshold asked for in either way, else the model's own."""
    if given is not None and not 0 < given < 1:
        raise IrstdError(f"--threshold: {given:g} is not between 0 and 1; give a probability")
    if max_fa is None:
        return run.spec.decode.threshold if given is None else given
    if given is not None:
        raise IrstdError("--max-fa: chooses a threshold, and --threshold is one; give one of them")
    point = run.spec.decode.point_at(max_fa)
    alarms = "false-alarm pixels" if run.spec.decode.kind == "mask" else "false alarms"
    talk.print(
        f"threshold {point.threshold:g}: on held-out frames it finds {point.pd:.1%} of the "
        f"targets, at {point.fa_per_mpx:.2f} {alarms} per Mpx",
        soft_wrap=True,
    )
    return point.threshold


def _predict_by(
    run: Runner, tile: str | None, halo: int, batch: int, threshold: float
) -> Callable[[Frame], Prediction]:
    """Frame -> prediction: of the whole frame, or by tiles."""
    from irstd_edge.edge.tiles import predict_tiled

    tiling = _tiling(run, tile, halo, batch)
    if tiling is None:
        return lambda frame: run.predict(frame, threshold)
    return lambda frame: predict_tiled(run, frame, tiling, threshold)


def _tiling(run: Runner, tile: str | None, halo: int, batch: int) -> Tiling | None:
    from irstd_edge.edge.tiles import Tiling

    if tile is None:
        return None
    return Tiling(_size(tile, "--tile"), run.spec.input.stride, halo, batch)


@app.command()
def predict(
    context: typer.Context,
    source: Source,
    paths: Annotated[
        list[Path],
        typer.Argument(metavar="PATH...", help="Frames, videos, stacks, folders; - for stdin."),
    ],
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="For overlays.")] = None,
    draw: Annotated[bool, typer.Option("--overlay", help="Write pictures to --out.")] = False,
    video: Annotated[
        Path | None, typer.Option(metavar="FILE.avi|FILE.mp4", help="Overlays as a video.")
    ] = None,
    video_fps: Annotated[
        float, typer.Option(metavar="HZ", min=0.1, max=1000, help="Frames/s of --video.")
    ] = 25.0,
    bits: Annotated[
        int | None,
        typer.Option(
            help="Bit depth of the sensor, if lower than the file's. [of images/: dataset.json's]"
        ),
    ] = None,
    raw: Annotated[
        str | None,
        typer.Option(metavar="WxH:u16le|u16be|u8", help="PATHs are counts without a header."),
    ] = None,
    runtime: Annotated[str | None, typer.Option(help=RUNTIME_HELP)] = None,
    variant: Variant = None,
    threads: Threads = None,
    threshold: Threshold = None,
    max_fa: MaxFa = None,
    normalise: Normalise = None,
    tile: Tile = None,
    halo: Halo = 32,
    tile_batch: TileBatch = 1,
    public_key: PublicKey = None,
    json_to: JsonOut = None,
) -> None:
    """Detect targets in frames: one JSON object a line, as it comes.

    The lines so far are kept on Ctrl-C (exit 130) and on an error, as of a sensor that stops in
    mid-frame (exit 2). A file that cannot be read gets a line that says why, and the others are
    gone through (exit 2).
    """
    from dataclasses import asdict

    from irstd_edge.edge.ahead import read_ahead
    from irstd_edge.edge.dataset import places_of, sets_around
    from irstd_edge.edge.files import refuse_clash
    from irstd_edge.edge.tiles import detect_tiled
    from irstd_edge.edge.types import Skip

    if tile is None:
        _refuse_given(context, ("halo", "tile_batch"), TILE_ALONE)
    if video is None:
        _refuse_given(context, ("video_fps",), "means nothing without --video: add it")
    if draw != (out is not None):
        missing = "has nowhere to write; add --out DIR" if draw else "add --overlay to fill it"
        raise IrstdError(f"{'--overlay' if draw else '--out'}: {missing}")
    come = _frames_to_come(paths, raw, bits)
    pictures = [] if out is None else [out / f"{file.stem}.png" for file in come.files]
    sets = sets_around(come.files)
    refuse_clash((("--out", picture) for picture in pictures), [*come.files, *places_of(sets)])
    _check_outputs(
        {"--out": out and out / "frame.png", "--video": video, "--json": json_to},
        [Path(source), public_key, *come.files],
        sets,
    )
    if out is not None and json_to is not None and Path(json_to).suffix.lower() == ".png":
        if Path(json_to).resolve().parent == out.resolve():
            raise IrstdError(f"--json: {json_to} is the place of a picture: choose another place")
    end: Exception | None = None
    done = 0
    unread: list[Skip] = []
    with (
        _progress() as move,
        _runner(source, runtime, variant, public_key, normalise, threads) as run,
        _checking(tile) as check,
        _drawing(out if draw else None, video, video_fps) as show,
        _lines(json_to) as write,  # kept first: a video that fails costs no line
    ):
        tiling = _tiling(run, tile, halo, tile_batch)
        threshold = _threshold(run, threshold, max_fa)
        try:
            for number, frame in read_ahead(come.frames, leave=come.leave):
                if isinstance(frame, Skip):
                    unread.append(frame)
                    if done:
                        _skip(frame, write)
                    continue
                if not done:  # until then nothing is written, and a call for nothing leaves nothing
                    for skip in unread:
                        _skip(skip, write)
                if tiling is None:
                    detections = run.predict(frame, threshold).detections
                else:
                    detections = detect_tiled(run, frame, tiling, threshold)
                write({"frame": frame.name, "detections": [asdict(d) for d in detections]})
                done += 1
                check(frame)
                show(frame, detections)
                move(run.name, number, come.total)
            if unread and not done:
                raise IrstdError(unread[0].reason)
        except KeyboardInterrupt:  # what is done is a result
            if not done:
                for skip in unread:
                    _say(f"skipped {skip.reason}")
                raise
            talk.print("stopped: the lines of the frames done so far are kept")
            end = typer.Exit(STOPPED)
        except (IrstdError, MemoryError) as error:
            if not done:
                raise
            end = error  # and here too
    if end is not None:
        raise end
    if unread:
        raise IrstdError(
            f"PATH: {len(unread)} of {come.total} files could not be read to their end, see above; "
            "what the others gave is kept"
        )


def _skip(skip: Skip, write: Callable[[Any], object]) -> None:
    """Say and write why a file gave no frame."""
    _say(f"skipped {skip.reason}")
    write({"frame": skip.name, "skipped": skip.reason})


class _FrameSource(NamedTuple):
    """The frames that are asked for."""

    frames: Iterator[tuple[int, Frame | Skip]]
    """Each with the number of its file; of stdin with its own. A Skip is a file that broke."""
    files: Sequence[Path]
    """None of stdin."""
    total: int | None
    """Of the files; nobody knows how many frames stdin will have."""
    leave: Callable[[], None]
    """Waits for no more of them."""


def _frames_to_come(paths: list[Path], raw: str | None, bits: int | None) -> _FrameSource:
    from irstd_edge.edge.counts import checked_bit_depth
    from irstd_edge.edge.dataset import bit_depths_of
    from irstd_edge.edge.sequences import extensions, frames_in, frames_of, raw_format
    from irstd_edge.edge.stream import RawStream
    from irstd_edge.edge.types import Skip

    bits = None if bits is None else checked_bit_depth("--bits:", bits)
    layout = None if raw is None else raw_format(raw)
    if Path("-") not in paths:
        files = frames_in(paths, extensions(layout))
        depths = dict.fromkeys(files, bits)
        if bits is None and layout is None:
            depths = bit_depths_of(files)

        def read(file: Path) -> Iterator[Frame | Skip]:
            try:
                yield from frames_of(file, depths[file], layout)
            except IrstdError as error:
                yield Skip(file.stem, str(error))

        frames = ((number, f) for number, file in enumerate(files, 1) for f in read(file))
        return _FrameSource(frames, files, len(files), lambda: None)
    if len(paths) > 1:
        raise IrstdError("-: stdin goes alone; give the files in another call")
    if layout is None:
        raise IrstdError("-: stdin holds counts without a header; say how, as --raw 640x512:u16le")
    if sys.stdin is None:
        raise IrstdError("-: this process has no stdin; give files, or start it with a pipe")
    stream = RawStream(sys.stdin.fileno(), layout, bits)
    return _FrameSource(enumerate(stream, 1), (), None, stream.leave)


@contextmanager
def _drawing(
    folder: Path | None, video: Path | None, fps: float
) -> Iterator[Callable[[Frame, Sequence[Detection]], None]]:
    """Yield what draws a frame's detections into a picture of `folder`, and into the video."""
    import cv2

    from irstd_edge.edge.files import write_atomic
    from irstd_edge.edge.overlay import open_video, overlay

    with nullcontext() if video is None else open_video(video, fps) as add:

        def show(frame: Frame, detections: Sequence[Detection]) -> None:
            if folder is None and add is None:
                return
            picture = overlay(frame, detections)
            if folder is not None:
                data = cv2.imencode(".png", picture)[1].tobytes()
                write_atomic(folder / f"{frame.name}.png", data)
            if add is not None:
                add(frame.name, picture)

        yield show


@contextmanager
def _lines(json_to: str | None) -> Iterator[Callable[[Any], object]]:
    """Yield what writes a value as a line: to stdout at once, or to a file kept at the end."""
    from irstd_edge.edge.files import open_atomic

    if json_to in (None, "-"):
        yield lambda value: print(json.dumps(value), flush=True)
        return
    with open_atomic(Path(json_to)) as file:
        yield lambda value: file.write(f"{json.dumps(value)}\n".encode())


@contextmanager
def _checking(tile: str | None) -> Iterator[Callable[[Frame], None]]:
    """Yield what looks for clipped frames, and for large ones that are not cut into tiles.

    The first of either is named, at the end the clipped ones are counted.
    """
    from irstd_edge.edge.counts import CLIPPED_SHARE, clipped_share
    from irstd_edge.edge.tiles import LARGE_PX, TILE_PX

    clipped, large = 0, False

    def check(frame: Frame) -> None:
        nonlocal clipped, large
        if tile is None and not large and frame.counts.size > LARGE_PX:
            large = True
            size = "x".join(map(str, frame.shape))
            words = (
                f"large: {frame.name}: the networks were trained on 256x256 and pool over all of "
            )
            _say(f"{words}{size}, which may hide targets: add --tile {TILE_PX}x{TILE_PX}")
        share = clipped_share(frame)
        clipped += share > CLIPPED_SHARE
        if share > CLIPPED_SHARE and clipped == 1:
            words = f"clipped: {frame.name}: {share:.1%} of its pixels are at full scale of "
            _say(f"{words}{frame.bit_depth} bits")

    yield check
    if clipped > 1:
        talk.print(f"clipped: {clipped} frames have over {CLIPPED_SHARE:.1%} at full scale")


@app.command()
def quantize(
    weights: Annotated[str, typer.Argument(metavar="W", help="mshnet, p2p or a file.")],
    data: DataSets,
    out: Annotated[Path, typer.Option(metavar="BUNDLE", help="Folder to make.")],
    method: Annotated[str, typer.Option(help="ptq or qat.")] = "qat",
    epochs: Annotated[
        int | None, typer.Option(max=MOST, help="Training epochs (QAT only).")
    ] = None,
    max_drop: Annotated[
        float | None,
        typer.Option(
            help="Points of F1, and of masks' IoU, that INT8 may lose on held-out frames."
        ),
    ] = None,
    keep_float: Annotated[
        list[str] | None, typer.Option(metavar="PATTERN", help="Layers to leave in float.")
    ] = None,
    reduced_range: Annotated[
        bool, typer.Option("--reduced-range", help="7-bit weights, for CPUs without VNNI.")
    ] = False,
    ranges: Annotated[
        str | None,
        typer.Option(help="Activation ranges: min-max, percentile or mse. [the network's]"),
    ] = None,
    time_layers: Annotated[
        bool, typer.Option("--time-layers", help="Choose ONNX Runtime's INT8 layers by this clock.")
    ] = False,
    frames: Annotated[int, typer.Option(min=1, help="To calibrate on.")] = 64,
    normalise: Normalise = None,
    seed: Seed = 0,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the training in BUNDLE.qat.")
    ] = False,
    json_to: JsonOut = None,
) -> None:
    """Turn weights into a bundle of FP32 and INT8 graphs; the test list is never seen."""
    with _needs_train_extra("quantize"):
        from irstd_edge.calibration.outcome import outcome_words
        from irstd_edge.calibration.qat_checkpoint import ENDING
    from irstd_edge.edge.manifest import manifest_to_json

    training = Path(f"{out.resolve()}{ENDING}")
    _check_outputs({"--json": json_to}, [Path(weights)], data, made=[out, training])
    bundle = _quantize(
        weights,
        data,
        out,
        method=method,
        epochs=epochs,
        max_drop=max_drop,
        keep_float=tuple(keep_float or ()),
        reduced_range=reduced_range,
        ranges=ranges,
        time_layers=time_layers,
        frames=frames,
        seed=seed,
        normalise=normalise,
        resume=resume,
    )
    for line in outcome_words(bundle.manifest):
        _say(line)
    made = {"path": str(bundle.path), "bundle": bundle.sha256, **manifest_to_json(bundle.manifest)}
    _tell(str(bundle.path), made, json_to)


def _quantize(weights: str, data: Sequence[Path], out: Path, **options: Any) -> Bundle:
    with _needs_train_extra("quantize"):
        from irstd_edge.calibration.to_bundle import quantize_to_bundle
    with _progress() as move:
        return quantize_to_bundle(weights, data, out, progress=move, **options)


@app.command()
def sensitivity(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE")],
    data: Data,
    out: Annotated[Path, typer.Option(metavar="FILE.json", help="Goes on from what it holds.")],
    json_to: JsonOut = None,
) -> None:
    """Round one layer at a time and say what it costs on held-out frames."""
    from irstd_edge.benchmarks.table import print_layers
    from irstd_edge.edge.bundle import open_bundle

    with _needs_train_extra("sensitivity"):
        from irstd_edge.calibration.sensitivity_file import sensitivity_to_file
    _check_outputs({"--out": out, "--json": json_to}, [bundle], [data])
    with _progress() as move:
        errors, skips = sensitivity_to_file(open_bundle(bundle), data, out, move)
    for skip in skips:
        _say(f"skipped {skip.name}: {skip.reason}")
    layers = [error.record() for error in errors]
    _emit(layers, json_to)
    print_layers(layers, _results(json_to))


Targets = Annotated[
    int, typer.Option(min=1, help="Most targets of a frame, where the decode is of points.")
]


@app.command("compile")
def compile_bundle(
    context: typer.Context,
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE")],
    variant: Annotated[str | None, typer.Option(help="The fastest there by default.")] = None,
    target: Annotated[
        str, typer.Option(metavar="this|sm_86|...", help="The GPU here, or a compute capability.")
    ] = "this",
    backend: Annotated[
        str, typer.Option(help="tensorrt, tensorrt-rtx or torch-tensorrt.")
    ] = "tensorrt",
    dla: Annotated[
        bool, typer.Option("--dla", help="On a Jetson's DLA, and say what falls back to its GPU.")
    ] = False,
    size: Annotated[
        list[str] | None,
        typer.Option(metavar="HxW", help="Frame size; several give a range. [the golden frames']"),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="Data set: the sizes of all its frames are taken, and the golden ones."),
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Most frames a call.")] = 1,
    with_decode: Annotated[
        bool, typer.Option("--with-decode", help="Targets come out of the engine, not maps.")
    ] = False,
    targets: Targets = 64,
    public_key: PublicKey = None,
    json_to: JsonOut = None,
) -> None:
    """Build an engine and keep it in this machine's store."""
    from irstd_edge.edge.bundle import open_bundle
    from irstd_edge.edge.compiler import best_variant, check_variant, compile_engine
    from irstd_edge.edge.dataset import open_dataset
    from irstd_edge.edge.engine_plan import EnginePlan
    from irstd_edge.edge.engine_store import open_store
    from irstd_edge.edge.golden import golden_sizes
    from irstd_edge.edge.tensorrt_runtime import TENSORRT, TENSORRT_RUNTIMES

    if not with_decode:
        _refuse_given(context, ("targets",), "means nothing without --with-decode: add it")
    _check_outputs({"--json": json_to}, [bundle, public_key], [data] if data else [])
    given = tuple(_size(text) for text in size or ())
    opened = open_bundle(bundle, public_key)
    golden = golden_sizes(opened)
    listed = (*open_dataset(data, None).sizes(), *golden) if data else ()
    sizes = (*given, *listed) or golden or ((256, 256),)
    plan = EnginePlan(backend, target, sizes, batch, dla)
    chosen = variant or best_variant(opened, plan)
    check_variant(chosen, plan)
    opened.graph(chosen, TENSORRT)  # one that is not there is told before anything is done
    placed = _placement(opened, chosen, plan, json_to) if dla else None
    talk.print(f"building {chosen} with {backend}")
    decode = targets if with_decode else None
    try:
        done = compile_engine(opened, chosen, plan, open_store(), decode, _builder(backend))
    except MachineError as error:
        if placed is not None:  # it is true of the graph, board or no board
            _emit({"engine": None, "not_built": str(error), "dla": placed}, json_to)
        raise
    _emit({**done.record(), "dla": placed}, json_to)
    _print_engine(done, _results(json_to))
    stride = opened.manifest.model.input.stride
    missing = [f"--size {h}x{w}" for h, w in golden if not plan.takes((h, w), stride)]
    if missing and backend in TENSORRT_RUNTIMES and not with_decode:  # the others serve elsewhere
        talk.print(
            "the golden frames have other sizes, and a bundle serves once it was tried on them: "
            f"add {' '.join(missing)}, or build another engine for them"
        )


def _builder(backend: str) -> Callable[..., Any] | None:
    """What builds, where it is not `engine_from_onnx`."""
    if backend != "torch-tensorrt":
        return None
    try:
        from irstd_edge.models.engine_from_torch import engine_from_torch
    except ModuleNotFoundError as error:
        from irstd_edge.edge.engine_from_onnx import INSTALLS

        raise MachineError(f"{backend}: needs {error.name}: {INSTALLS[backend]}") from error
    return engine_from_torch


def _placement(bundle: Bundle, variant: str, plan: Any, json_to: str | None) -> dict[str, Any]:
    """Print which nodes a DLA leaves to the GPU, and why; the same for `--json`."""
    from irstd_edge.edge.dla import placement_of, reasons
    from irstd_edge.edge.tensorrt_runtime import TENSORRT

    shape = plan.shapes(bundle.manifest.model.input.stride)[1]
    try:
        placed = placement_of(bundle.graph(variant, TENSORRT), shape)
    except MachineError as error:  # a board without onnx: TensorRT tells it while it builds
        talk.print(str(error))
        return {"not_looked_at": str(error)}
    out = _results(json_to)
    out.print(f"DLA: takes {placed.on_dla} of {placed.nodes} nodes; the GPU gets")
    for operator, reason, count in reasons(placed):
        out.print(f"  {count:4d} {operator}: {reason}", soft_wrap=True)
    return placed.record()


def _print_engine(done: Any, out: Console) -> None:
    made = f"{done.key.backend} {done.key.version}, {done.key.target}"
    size = f"{done.size_bytes / 1e6:.2f} MB in {done.build_s:.1f} s"
    out.print(f"{done.path}: {done.variant}, {made}, {size}", soft_wrap=True)
    layers = done.record()["layers"]
    if layers is not None:
        precisions = ", ".join(f"{n} {name}" for name, n in layers["precisions"].items())
        out.print(f"layers: {precisions}; {layers['reformats']} copies between formats")
    for line in done.engine.said:
        talk.print(line, soft_wrap=True)


@app.command()
def export(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE")],
    out: Annotated[Path, typer.Option(metavar="FILE.onnx")],
    variant: Annotated[str | None, typer.Option(help="The fastest there by default.")] = None,
    targets: Targets = 64,
    public_key: PublicKey = None,
    json_to: JsonOut = None,
) -> None:
    """Write a graph with the decode in it, for a program of your own; see docs/jetson.md."""
    from irstd_edge.edge.bundle import open_bundle
    from irstd_edge.edge.compiler import best_variant, export_graph

    _check_outputs({"--out": out, "--json": json_to}, [bundle, public_key])
    opened = open_bundle(bundle, public_key)
    chosen = variant or best_variant(opened)
    path = export_graph(opened, chosen, out, targets)
    most = targets if opened.manifest.model.decode.kind == "heatmap" else None
    _tell(str(path), {"path": str(path), "variant": chosen, "targets": most}, json_to)


@app.command()
def sign(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE")],
    key: Annotated[Path, typer.Option(metavar="FILE", help="Private Ed25519 key.")],
    json_to: JsonOut = None,
) -> None:
    """Sign a bundle, so that --public-key can tell who made it."""
    from irstd_edge.edge.bundle import open_bundle
    from irstd_edge.edge.signing import sign as sign_bundle

    _check_outputs({"--json": json_to}, [bundle, key])
    opened = open_bundle(bundle)
    named = sign_bundle(opened.path, key)
    made = {"path": str(bundle), "bundle": opened.sha256, "key": named}
    _tell(f"{bundle}: signed with the key {named}", made, json_to)


@app.command()
def doctor(json_to: JsonOut = None) -> None:
    """Say what this machine can do, and what is missing for the rest."""
    from rich.table import Table
    from rich.text import Text

    from irstd_edge.edge.doctor import examine

    _check_outputs({"--json": json_to}, [])
    findings = examine()
    table = Table(box=None, pad_edge=False)
    for heading in ("", "what", "for", "found, or the command that brings it"):
        table.add_column(heading, overflow="fold")
    for finding in findings:
        answer = finding.found or finding.fix or "not on this machine"
        cells = ("yes" if finding.ok else "no", finding.name, finding.what_for, answer)
        table.add_row(*map(Text, cells))
    _emit([finding.record() for finding in findings], json_to)
    _results(json_to).print(table)


@app.command()
def bench(
    context: typer.Context,
    bundles: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[BUNDLE...]", help="Both shipped models by default."),
    ] = None,
    device: Annotated[
        str, typer.Option(metavar="cpu|cuda|jetson|PROFILE", help="A Jetson not here is projected.")
    ] = "cpu",
    require_measured: Annotated[
        bool, typer.Option("--require-measured", help="Exit 3 instead of projecting.")
    ] = False,
    host: Annotated[
        str | None, typer.Option(metavar="USER@HOST", help="Measure there, over SSH.")
    ] = None,
    remote_python: Annotated[
        str | None,
        typer.Option(metavar="PYTHON", help="The one there that has irstd-edge. [python3]"),
    ] = None,
    runtime: Annotated[
        list[str] | None,
        typer.Option(
            help="onnxruntime, openvino, tensorrt, torch-tensorrt; all that fit by default."
        ),
    ] = None,
    variant: Annotated[
        list[str] | None, typer.Option(help="fp32 and int8 by default; also fp16, int8-fp16.")
    ] = None,
    threads: Threads = None,
    size: Annotated[
        str | None, typer.Option(metavar="HxW", help="Size of the timed frames.")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Data set; its test list is scored.")] = None,
    split: Annotated[str, typer.Option(help="test, val, train or trainval.")] = "test",
    protocol: Annotated[str, typer.Option(help="native or paper256.")] = "native",
    strict: Annotated[bool, typer.Option("--strict", help="A skipped frame is an error.")] = False,
    samples: Annotated[int, typer.Option(min=10, help="Timed calls of each variant.")] = 100,
    batch: Annotated[int, typer.Option(min=1, max=1024, help="Frames of a timed call.")] = 1,
    rate_hz: Annotated[
        float | None,
        typer.Option(
            metavar="HZ", help="Frame rate of the sensor: late and dropped frames are counted."
        ),
    ] = None,
    noise: Annotated[
        float | None,
        typer.Option(
            metavar="COUNTS", help="Also what so much noise in the frames does to fp32, for scale."
        ),
    ] = None,
    public_key: PublicKey = None,
    json_to: JsonOut = None,
) -> None:
    """Measure accuracy, drift, latency and cost of every variant, side by side."""
    from dataclasses import replace

    from irstd_edge.benchmarks.plan import Plan
    from irstd_edge.benchmarks.projection import conclusions, devices_to_project
    from irstd_edge.benchmarks.schema import write_bench
    from irstd_edge.benchmarks.table import print_table
    from irstd_edge.edge.bundle import open_bundle
    from irstd_edge.edge.dataset import check_protocol, open_dataset
    from irstd_edge.edge.devices import this_machine
    from irstd_edge.edge.runners import check_runtime

    if rate_hz is not None and not 0.01 <= rate_hz <= 100_000:
        raise IrstdError(f"--rate-hz: {rate_hz:g} is no rate of a sensor; give frames a second")
    if rate_hz is not None and batch > 1:
        raise IrstdError("--rate-hz: a sensor's frames come one by one; leave --batch out")
    if noise is not None and not LEAST_NOISE <= noise <= MOST_NOISE:
        small = ", and frames of whole counts swallow one so small" if noise > 0 else ""
        raise IrstdError(
            f"--noise: {noise:g} is no noise of a sensor{small}; give its standard deviation in "
            f"counts, {LEAST_NOISE} or more"
        )
    _check_outputs({"--json": json_to}, [*(bundles or ()), public_key], [data] if data else [])
    profiles: tuple[Any, ...] = ()
    if host is None or device not in ("cpu", "cuda", "jetson"):
        only = require_measured or host is not None
        profiles = devices_to_project(device, this_machine(), only)
    _refuse_meaningless(context, profiles, data, host)
    for name in runtime or ():
        check_runtime(name)
    check_protocol(protocol)
    variants, timed_size = _variants_to_bench(variant), None if size is None else _size(size)
    chosen = None if data is None else open_dataset(data, split)
    if public_key is not None and not bundles:
        raise IrstdError("--public-key: no bundle is given, and those made here are not signed")
    opened = [open_bundle(p, public_key) for p in bundles] if bundles else _shipped_bundles()
    measured_here = host is None and not profiles
    plan = Plan(
        **(_runtimes(runtime, device, opened, variant, require_measured) if measured_here else {}),
        variants=variants,
        data=chosen,
        protocol=protocol,
        strict=strict,
        threads=threads,
        size=timed_size,
        samples=samples,
        batch=batch,
        rate_hz=rate_hz,
        noise_counts=noise,
    )
    if host is not None:
        there = replace(plan, runtimes=tuple(runtime or ()))
        found = _bench_there(host, remote_python, opened, there, device)
    else:
        found = _project(opened, plan, profiles) if profiles else _bench(opened, plan)
    if json_to in (None, "-"):
        _emit(found, json_to)
    else:
        write_bench(Path(json_to), found)
    print_table(found, _results(json_to))
    if not profiles:
        _print_sentences(found, _results(json_to))
    for sentence in conclusions(found) if profiles else ():
        _results(json_to).print(sentence, soft_wrap=True)
    if profiles and data is not None:
        _results(json_to).print("no accuracy is projected: --data gives the size of its frames")


LEAST_NOISE, MOST_NOISE = 0.3, 2**16
"""Counts: full scale of any sensor."""

MEASURED_ALONE = (
    "remote_python",
    "runtime",
    "variant",
    "threads",
    "split",
    "protocol",
    "strict",
    "samples",
    "batch",
    "rate_hz",
    "noise",
)
"""Options of `bench` that a projection has no use for."""


def _refuse_meaningless(
    context: typer.Context, profiles: Sequence[Any], data: Path | None, host: str | None
) -> None:
    """Refuse the options of `bench` that change nothing about what it is asked to do."""
    if profiles:
        why = "means nothing to a projection: leave it out, or measure on the board"
        _refuse_given(context, MEASURED_ALONE, why)
    if host is None:
        _refuse_given(context, ("remote_python",), "means nothing without --host: add it")
    if data is None:
        scored = ("split", "protocol", "strict", "noise")
        _refuse_given(context, scored, "means nothing without --data: add it")


def _print_sentences(found: dict[str, Any], results: Console) -> None:
    """What to ship, by the limits that hold without a gate.toml."""
    from rich.text import Text

    from irstd_edge.benchmarks.gate import judge
    from irstd_edge.benchmarks.limits import Limits
    from irstd_edge.benchmarks.summary import summaries

    for sentence in summaries(found, judge(found, Limits())):
        results.print(Text(sentence), soft_wrap=True)


def _project(bundles: list[Bundle], plan: Any, profiles: tuple[Any, ...]) -> dict[str, Any]:
    from irstd_edge.benchmarks.plan import frame_size
    from irstd_edge.benchmarks.projection import project

    talk.print("not measured: no such board here, so its speed is projected")
    with _progress() as move:
        return project(bundles, profiles, frame_size(plan), move)


def _runtimes(
    names: list[str] | None,
    device: str = "cpu",
    bundles: Sequence[Bundle] = (),
    variants: list[str] | None = None,
    require_measured: bool = False,
) -> dict[str, Any]:
    """Of a plan: those asked for, else those here for the device; engines count once they exist.

    Where a bundle's INT8, or a variant that was asked for, has no engine for the GPU, that is said,
    or refused where a measurement is required; on a Jetson the processor is measured as well.
    """
    from irstd_edge.edge.compiler import why_not_built
    from irstd_edge.edge.runners import RUNTIMES, installed_runtimes
    from irstd_edge.edge.tensorrt_runtime import TENSORRT, engines_of, is_ready

    elsewhere = [name for name in names or () if name in RUNTIMES]
    if device == "cuda" and elsewhere:
        raise IrstdError(
            f"--device cuda: {elsewhere[0]} runs on the CPU here; leave --runtime out, or take "
            "tensorrt or torch-tensorrt"
        )
    runtimes = tuple(names or ((TENSORRT,) if device == "cuda" else installed_runtimes()))
    if device == "cpu" or (names and TENSORRT not in names):
        return {"runtimes": runtimes}
    lacks = list(filter(None, (why_not_built(bundle, variants or ()) for bundle in bundles)))
    if lacks and require_measured:
        other = "" if device == "cuda" else "; --runtime onnxruntime measures the processor alone"
        raise MachineError(f"--device {device}: {lacks[0]}{other}")
    graphs = [b.graph(v, TENSORRT) for b in bundles for v in b.variants(TENSORRT)]
    usable = is_ready() and any(map(engines_of, graphs))
    for lack in dict.fromkeys(lacks):
        if usable or TENSORRT not in runtimes:  # else it is the reason why nothing is measured
            talk.print(f"not measured on the GPU: {lack}", soft_wrap=True)
    if usable and TENSORRT not in runtimes:
        return {"runtimes": (*runtimes, TENSORRT), "built_only": True}
    return {"runtimes": runtimes}


def _variants_to_bench(asked: list[str] | None) -> tuple[str, ...] | None:
    """Those asked for, in the order of a bundle, and what the others are held against."""
    from irstd_edge.benchmarks.plan import REFERENCE
    from irstd_edge.edge.bundle import VARIANTS

    if not asked:
        return None
    for name in asked:
        if name not in VARIANTS:
            raise IrstdError(f"--variant: {name!r} is not one of {', '.join(VARIANTS)}")
    return tuple(name for name in VARIANTS if name in (REFERENCE, *asked))


def _bench(bundles: list[Bundle], plan: Any) -> dict[str, Any]:
    from irstd_edge.benchmarks.bench import bench as measure

    with _progress() as move:
        return measure(bundles, plan, move)


def _bench_there(
    host: str, python: str | None, bundles: list[Bundle], plan: Any, device: str
) -> dict[str, Any]:
    from irstd_edge.benchmarks.remote import Remote, bench_there, default_python
    from irstd_edge.edge.ssh import Host

    remote = Remote(Host(host), python or default_python())
    with talk.status(f"measuring on {host}"):
        return bench_there(remote, bundles, plan, device)


def _shipped_bundles() -> list[Bundle]:
    """Open the bundles of both shipped models; make them once, on synthetic scenes."""
    import tempfile

    from irstd_edge.benchmarks.scenes import write_dataset
    from irstd_edge.edge.bundle import open_bundle
    from irstd_edge.edge.doctor import WEIGHTS
    from irstd_edge.edge.files import sha256_of

    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    bundles = []
    for weights in sorted(WEIGHTS.glob("*.safetensors")):
        model = weights.stem
        path = caches / "irstd-edge" / f"{model}-{__version__}-{sha256_of(weights)[:12]}"
        if not path.exists():
            with _needs_train_extra("bench", ", or give bundles"):
                import_module("irstd_edge.calibration.to_bundle")
            _say(f"{model}: quantizing the shipped weights once, into {path}")
            with tempfile.TemporaryDirectory() as folder:
                write_dataset(Path(folder) / "scenes", frames=80)
                _quantize(model, [Path(folder) / "scenes"], path, method="ptq")
        bundles.append(open_bundle(path))
    return bundles


@app.command()
def gate(
    bench_file: Annotated[Path, typer.Argument(metavar="BENCH.json")],
    config: Annotated[Path | None, typer.Option(metavar="gate.toml", help="Limits.")] = None,
    baseline: Annotated[
        Path | None, typer.Option(metavar="OLD.json", help="Earlier bench.")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="A skipped check fails.")] = False,
    junit: Annotated[Path | None, typer.Option(metavar="FILE", help="Verdict for CI.")] = None,
    markdown: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Verdict for a pull request.")
    ] = None,
    json_to: JsonOut = None,
) -> None:
    """Judge a bench.json: exit 0 when it passes, 1 when it does not."""
    from irstd_edge.benchmarks.gate import judge
    from irstd_edge.benchmarks.limits import load_limits
    from irstd_edge.benchmarks.schema import read_bench
    from irstd_edge.benchmarks.summary import summaries
    from irstd_edge.benchmarks.table import print_verdict
    from irstd_edge.benchmarks.verdict import verdict_as_json, verdict_as_junit, verdict_as_markdown
    from irstd_edge.edge.files import write_atomic

    _check_outputs(
        {"--junit": junit, "--markdown": markdown, "--json": json_to},
        [bench_file, baseline, config],
    )
    found = read_bench(bench_file)
    old = None if baseline is None else read_bench(baseline)
    verdict = judge(found, load_limits(config), old, strict)
    sentences = summaries(found, verdict)
    if junit is not None:
        write_atomic(junit, verdict_as_junit(verdict))
    if markdown is not None:
        write_atomic(markdown, verdict_as_markdown(verdict, sentences))
    _emit(verdict_as_json(verdict), json_to)
    print_verdict(verdict, sentences, _results(json_to))
    raise typer.Exit(0 if verdict.passed else 1)


@app.command()
def report(
    bench_files: Annotated[list[Path], typer.Argument(metavar="BENCH.json...")],
    out: Annotated[Path, typer.Option(metavar="FILE.html", help="Page to write.")],
    config: Annotated[Path | None, typer.Option(metavar="gate.toml", help="Limits.")] = None,
    baseline: Annotated[
        Path | None, typer.Option(metavar="OLD.json", help="Earlier bench.")
    ] = None,
    bundle: Annotated[
        list[Path] | None,
        typer.Option(help="One that was benched: adds pictures of targets and false alarms."),
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Data set of the bench, for pictures.")] = None,
    layers: Annotated[
        list[Path] | None,
        typer.Option(
            "--sensitivity", metavar="LAYERS.json", help="What `sensitivity --out` wrote."
        ),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="A skipped check fails.")] = False,
    json_to: JsonOut = None,
) -> None:
    """Write one self-contained page: verdict, tables, curves, layers, pictures."""
    from irstd_edge.benchmarks.limits import load_limits
    from irstd_edge.benchmarks.schema import read_bench, read_sensitivity
    from irstd_edge.benchmarks.verdict import verdict_as_json

    inputs = [*bench_files, baseline, config, *(bundle or ()), *(layers or ())]
    _check_outputs({"--out": out, "--json": json_to}, inputs, [data] if data else [])
    old = None if baseline is None else read_bench(baseline)
    benches = [read_bench(path) for path in bench_files]
    costs = [read_sensitivity(path) for path in layers or ()]
    measured = {result.get("bundle") for bench in benches for result in bench["results"]}
    for path, cost in zip(layers or (), costs, strict=True):
        if cost["bundle"] not in measured:
            raise IrstdError(
                f"--sensitivity: {path} is of the bundle {cost['bundle']:.12}, which is in none of "
                "the benches: give that of a bundle that was measured"
            )
    if bool(bundle) != (data is not None):
        raise IrstdError("--bundle: pictures need the frames too, give both --bundle and --data")
    verdict = _report(
        benches,
        out,
        load_limits(config),
        old,
        strict,
        pictures=_pictures(benches, bundle or [], data) if data else [],
        sensitivities={cost["bundle"]: cost["layers"] for cost in costs},
    )
    _tell(str(out), {"path": str(out), **verdict_as_json(verdict)}, json_to)


def _pictures(benches: list[dict[str, Any]], bundles: list[Path], data: Path) -> list[Any]:
    from irstd_edge.benchmarks.showcase import pictures_of
    from irstd_edge.edge.bundle import open_bundle
    from irstd_edge.edge.dataset import open_dataset

    everything = {"results": [result for bench in benches for result in bench["results"]]}
    frames = open_dataset(data, None)
    return [
        picture
        for path in bundles
        for picture in pictures_of(everything, open_bundle(path), frames)
    ]


def _report(
    benches: list[dict[str, Any]],
    out: Path,
    limits: Any,
    old: dict[str, Any] | None = None,
    strict: bool = False,
    **more: Any,
) -> Any:
    """Judge the benches, write the page, and return the verdict."""
    from irstd_edge.benchmarks.gate import judge
    from irstd_edge.benchmarks.report import write_report
    from irstd_edge.benchmarks.summary import summaries
    from irstd_edge.benchmarks.verdict import Verdict, verdict_as_json

    verdicts = [judge(found, limits, old, strict, benches) for found in benches]
    # What is gone is so from every bench, and told once.
    whole = Verdict(tuple(dict.fromkeys(check for each in verdicts for check in each.checks)))
    pairs = zip(benches, verdicts, strict=True)
    words = tuple(line for found, verdict in pairs for line in summaries(found, verdict))
    write_report(benches, out, verdict=verdict_as_json(whole), summaries=words, **more)
    return whole


DEMO_LIMITS = """\
# The demo does not train on after calibration, and a fifth of its targets are too faint even for
# FP32, by intention: wider limits than those that hold without a file.
[drift]
net_targets_lost = 8
targets_flipped = 0.05
f1_3px = -0.02
"""


def _refuse_all_but_demo(folder: Path, limits: Path) -> None:
    """Raise IrstdError for a folder that holds anything but an earlier demo: it replaces files."""
    from irstd_edge.edge.files import read_bytes
    from irstd_edge.edge.policy import MAX_TOML_BYTES

    if folder.is_dir() and any(folder.iterdir()):
        mark = DEMO_LIMITS.partition("\n")[0].encode()
        if not limits.is_file() or not read_bytes(limits, MAX_TOML_BYTES).startswith(mark):
            raise IrstdError(
                f"--out: {folder} holds something else than a demo: choose another place"
            )


@app.command()
def demo(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the results.")] = Path(
        "demo-out"
    ),
    json_to: JsonOut = None,
) -> None:
    """Quantize, bench, judge and report p2p on built-in scenes; under three minutes."""
    from irstd_edge.benchmarks.limits import load_limits
    from irstd_edge.benchmarks.plan import Plan
    from irstd_edge.benchmarks.scenes import write_dataset
    from irstd_edge.benchmarks.schema import write_bench
    from irstd_edge.benchmarks.summary import summaries
    from irstd_edge.benchmarks.table import print_table, print_verdict
    from irstd_edge.benchmarks.verdict import verdict_as_json
    from irstd_edge.edge.dataset import open_dataset
    from irstd_edge.edge.files import write_atomic

    scenes, bundle_at = out / "scenes", out / "bundle"
    bench_at, limits_at, page_at = (out / f for f in ("bench.json", "gate.toml", "report.html"))
    _check_outputs({"--json": json_to}, [], made=[scenes, bundle_at, bench_at, limits_at, page_at])
    _refuse_all_but_demo(out, limits_at)
    with _needs_train_extra("demo"):
        import_module("irstd_edge.calibration.to_bundle")
    write_atomic(limits_at, DEMO_LIMITS)  # first: by it the folder is known as the demo's
    if not scenes.exists():
        talk.print("1/5 synthetic infrared scenes")
        write_dataset(scenes, frames=340)  # of half, 200 targets: one flip is half a percent
    talk.print("2/5 quantize: p2p, post-training, to INT8")
    bundle = _quantize("p2p", [scenes], bundle_at, method="ptq")
    talk.print("3/5 bench: FP32 and INT8 on every installed runtime")
    plan = Plan(**_runtimes(None), data=open_dataset(scenes, "test"), samples=60)
    found = _bench([bundle], plan)
    write_bench(bench_at, found)
    talk.print("4/5 gate")
    limits = load_limits(limits_at)
    talk.print("5/5 report")
    pictures = _pictures([found], [bundle.path], scenes)
    verdict = _report([found], page_at, limits, pictures=pictures)
    made = {"report": str(page_at), "bench": str(bench_at)}
    _emit({**made, **verdict_as_json(verdict)}, json_to)
    results = _results(json_to)
    print_table(found, results)
    print_verdict(verdict, summaries(found, verdict), results)
    results.print(f"{page_at}: open it in a browser", soft_wrap=True)
    raise typer.Exit(0 if verdict.passed else 1)


if __name__ == "__main__":
    main()
