"""bench.json: every variant of every bundle on this machine, timed and judged side by side."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from irstd_edge import __version__
from irstd_edge.benchmarks.accuracy import Evaluation, evaluate
from irstd_edge.benchmarks.cost import cost_of_graph
from irstd_edge.benchmarks.curves import threshold_to_predict
from irstd_edge.benchmarks.drift import drift
from irstd_edge.benchmarks.energy import Board, Energy, measure_energy, this_board, throttling
from irstd_edge.benchmarks.faults import with_noise
from irstd_edge.benchmarks.in_batches import Batches, InBatches
from irstd_edge.benchmarks.latency import Timing, measure
from irstd_edge.benchmarks.layer_times import layer_times_of
from irstd_edge.benchmarks.memory import measure_load
from irstd_edge.benchmarks.noise_floor import noise_floor
from irstd_edge.benchmarks.pace import Pace, measure_pace
from irstd_edge.benchmarks.plan import DEFAULT_VARIANTS, REFERENCE, Plan, Size, TimedOn, timed_on_of
from irstd_edge.benchmarks.schema import SCHEMA
from irstd_edge.edge.bundle import Bundle
from irstd_edge.edge.counts import CLIPPED_SHARE
from irstd_edge.edge.devices import Machine, this_machine
from irstd_edge.edge.engine_store import DLA
from irstd_edge.edge.first_step import sensor_step
from irstd_edge.edge.frames import padded_size
from irstd_edge.edge.runners import Runner, open_runner, runtime_version
from irstd_edge.edge.tensorrt_runtime import TENSORRT_RUNTIMES, engines_of
from irstd_edge.edge.tiles import TILE_PX
from irstd_edge.edge.types import Frame, IrstdError, MachineError, Progress, Skip

Pair = tuple[str, str]
"""(variant, runtime)."""

SATURATES = (
    "int8 on this processor may clip inside its convolutions, for it has no VNNI: its accuracy "
    "holds here alone; `quantize --reduced-range` makes graphs that cannot"
)


def bench(
    bundles: Sequence[Bundle],
    plan: Plan,
    progress: Progress = lambda what, done, total: None,
) -> dict[str, Any]:
    """Measure every bundle; the value of bench.json, of schema irstd-edge/bench/1.

    Every variant is evaluated on the whole data, then all variants of a bundle are timed in
    turns. The optional fields are listed in `schema.py`.

    Raises:
        IrstdError: no bundle, no variant that runs, or unusable data.
        MachineError: a runtime is missing here.
    """
    if not bundles:
        raise IrstdError("BUNDLE: none is given, make one with `irstd-edge quantize`")
    machine = this_machine(plan.threads)
    board = this_board(machine.is_jetson)
    timed_on = timed_on_of(plan)
    pairs = [_pairs(bundle, plan) for bundle in bundles]
    for bundle, own in zip(bundles, pairs, strict=True):
        _refuse_unfit(bundle, own, plan, timed_on)
    results = [
        {
            **_bench_one(bundle, own, plan, timed_on, board, progress),
            "warnings": warnings_of(bundle, machine, plan, timed_on),
        }
        for bundle, own in zip(bundles, pairs, strict=True)
    ]
    here = {"clocks_locked": board.clocks_locked, "irstd_edge": __version__}
    return {"schema": SCHEMA, "machine": {**machine.record(), **here}, "results": results}


def warnings_of(bundle: Bundle, machine: Machine, plan: Plan, timed_on: TimedOn) -> list[str]:
    """What makes this machine's results differ from another's, and what was wrong with frames."""
    reduced = bundle.manifest.quantization.recipe.get("reduced_range", False)
    on_cpu = any(runtime not in TENSORRT_RUNTIMES for runtime in plan.runtimes)
    rounds = any(variant.startswith("int8") for variant in plan.variants or DEFAULT_VARIANTS)
    saturates = machine.saturates and on_cpu and rounds and not reduced
    clipped = f"frames with over {CLIPPED_SHARE:.1%} of their pixels at full scale: "
    large = f"frames run whole, which may hide targets (`eval --tile {TILE_PX}x{TILE_PX}`): "
    return [
        *([SATURATES] if saturates else ()),
        *([f"{clipped}{timed_on.clipped}"] if timed_on.clipped else ()),
        *([f"{large}{timed_on.large}"] if timed_on.large else ()),
    ]


def _refuse_unfit(bundle: Bundle, pairs: Sequence[Pair], plan: Plan, timed_on: TimedOn) -> None:
    """Raise IrstdError now, not after minutes, where TensorRT has no engine for what is to run."""
    for variant, runtime in pairs:
        if runtime in TENSORRT_RUNTIMES:
            with open_runner(bundle, variant, runtime) as runner:
                stride = runner.spec.input.stride
                runner.engine((plan.batch, 1, *padded_size(timed_on.frames[0].shape, stride)))
                for size in timed_on.sizes:
                    runner.engine((1, 1, *padded_size(size, stride)))


def _bench_one(
    bundle: Bundle,
    pairs: Sequence[Pair],
    plan: Plan,
    timed_on: TimedOn,
    board: Board,
    progress: Progress,
) -> dict[str, Any]:
    model = bundle.manifest.model.name
    batches, read = Batches(timed_on.frames, plan.batch), timed_on.read
    with ExitStack() as stack:
        runners: dict[Pair, Runner] = {
            pair: stack.enter_context(open_runner(bundle, *pair, threads=plan.threads))
            for pair in pairs
        }
        evaluations = {
            pair: _evaluate(runner, plan, f"{model} {' '.join(pair)}", progress)
            for pair, runner in runners.items()
        }
        noise = _noise(runners, evaluations, plan, progress)
        before = board.read_throttle()
        in_batches = {pair: InBatches(runner, batches) for pair, runner in runners.items()}
        timings = measure(
            in_batches,
            timed_on.frames,
            warm_up_s=plan.warm_up_s,
            samples=plan.samples,
            read=read and (lambda first: [read(frame) for frame in batches.of(first)]),
            batch=plan.batch,
            progress=lambda done, total: progress(f"{model}: timing", done, total),
        )
        throttled = throttling("while variants were timed", board.read_throttle().since(before))
        energies = {
            pair: measure_energy(each, timed_on.frames, board, batch=plan.batch)
            for pair, each in in_batches.items()
        }
        layers = {
            pair: layer_times_of(runner, bundle.graph(*pair), timed_on.frames[0], plan.threads)
            for pair, runner in runners.items()
        }
        paces = {pair: _pace(runner, timed_on, plan, progress) for pair, runner in runners.items()}
        first = batches.of(timed_on.frames[0])
        engines = {
            pair: runner.engine((len(first), *runner.batch_of(first[0]).shape[1:]))
            for pair, runner in runners.items()
        }
    size = timed_on.frames[0].shape
    variants = []
    for done, pair in enumerate(pairs, start=1):
        variant = _variant(bundle, pair, plan, timings[pair], evaluations[pair], size)
        variant |= _computed_by(pair[1], engines[pair])
        energy, pace = energies[pair], paces[pair]
        variants.append({**variant, **_power(energy), "pace": pace and pace.to_json()})
        variants[-1]["sensor_step"] = _sensor_step(bundle, pair, timed_on.frames)
        variants[-1]["layers_ms"] = [each.to_json() for each in layers[pair] or ()] or None
        variants[-1]["weak"] = [
            *timings[pair].weak,
            *board.weak,
            *throttled,
            *(energy.weak if energy else ()),
            *(pace.weak if pace else ()),
        ]
        progress(f"{model}: memory", done, len(pairs))
    return {
        "model": model,
        "bundle": bundle.sha256,
        "timed_on": timed_on.words,
        "cost": _cost(bundle, pairs[0], size),
        "variants": variants,
        "drift": _drifts(evaluations),
        "noise": noise,
    }


def _pairs(bundle: Bundle, plan: Plan) -> list[Pair]:
    """Runtime by runtime, the variants that the bundle has for it."""
    pairs = [
        (variant, runtime)
        for runtime in plan.runtimes
        for variant in _variants(bundle, runtime, plan)
    ]
    if not pairs:
        wanted = ", ".join(plan.variants or DEFAULT_VARIANTS)
        raise IrstdError(f"{bundle.path}: has none of {wanted}, make it again or ask for others")
    return pairs


def _variants(bundle: Bundle, runtime: str, plan: Plan) -> list[str]:
    """Those that the plan names, FP32 on TensorRT only where it was built; else all that was.

    On TensorRT, what has no engine only where the plan does not leave it out.
    """
    there = bundle.variants(runtime)
    asked = [variant for variant in plan.variants or DEFAULT_VARIANTS if variant in there]
    if runtime not in TENSORRT_RUNTIMES:
        return asked
    built = [v for v in there if engines_of(bundle.graph(v, runtime), backend=runtime)]
    if plan.built_only:
        return [v for v in (there if plan.variants is None else asked) if v in built]
    if plan.variants is None:
        return built or asked
    # Of what has no engine the runner says how it is built.
    return [v for v in asked if v != REFERENCE or v in built] or asked


def _evaluate(
    runner: Runner, plan: Plan, what: str, progress: Progress, noise_counts: float | None = None
) -> Evaluation | None:
    if plan.data is None:
        return None
    total = len(plan.data.names)
    own = runner.spec.decode.threshold
    low = threshold_to_predict(runner.spec.decode.kind, own)
    samples = plan.data.samples(plan.strict, plan.protocol)
    if noise_counts is not None:
        samples = (s if isinstance(s, Skip) else with_noise(s, noise_counts) for s in samples)
    return evaluate(
        samples,
        lambda frame: runner.predict(frame, low),
        plan.protocol,
        own,
        lambda done: progress(what, done, total),
    )


def _noise(
    runners: dict[Pair, Runner],
    evaluations: dict[Pair, Evaluation | None],
    plan: Plan,
    progress: Progress,
) -> dict[str, Any] | None:
    """What noise does to the first FP32, or to the first variant where there is none.

    None where it is not asked for, or there is no data.
    """
    pair = next((pair for pair in runners if pair[0] == REFERENCE), next(iter(runners)))
    if plan.noise_counts is None or (clean := evaluations[pair]) is None:
        return None
    runner = runners[pair]
    what = f"{runner.spec.name} {' '.join(pair)}, noise"
    noisy = _evaluate(runner, plan, what, progress, plan.noise_counts)
    assert noisy is not None  # `clean` is of the same data
    return noise_floor(clean, noisy, plan.noise_counts, *pair)


def _cost(bundle: Bundle, pair: Pair, size: Size) -> dict[str, Any]:
    """Of the float graph, padded as the runner pads; not counted on a device without onnx."""
    stride = bundle.manifest.model.input.stride
    shape = (1, 1, *padded_size(size, stride))
    variant, runtime = pair
    has_reference = REFERENCE in bundle.variants(runtime)
    graph = bundle.graph(REFERENCE if has_reference else variant, runtime)
    try:
        return cost_of_graph(graph, shape).to_json()
    except MachineError as error:
        nothing = dict.fromkeys(("params", "macs", "gflops"))
        return {**nothing, "input": list(shape), "not_counted": str(error)}


def complete(result: dict[str, Any], bundle: Bundle, plan: Plan) -> None:
    """Add what the device that measured a result could not tell for want of onnx.

    plan: of the bench there, by which frames are found again. Changes `result`.
    """
    size = tuple(result["cost"]["input"][2:])
    first = result["variants"][0]
    if result["cost"]["macs"] is None:
        result["cost"] = _cost(bundle, (first["name"], first["runtime"]), size)
    rounding = [v for v in result["variants"] if v["name"].startswith("int8")]
    untold = [v for v in rounding if v.get("sensor_step") is None]
    frames = timed_on_of(plan).frames if untold else ()
    for variant in untold:
        pair = variant["name"], variant["runtime"]
        variant["sensor_step"] = _sensor_step(bundle, pair, frames)


def _variant(
    bundle: Bundle,
    pair: Pair,
    plan: Plan,
    timing: Timing,
    evaluation: Evaluation | None,
    size: Size,
) -> dict[str, Any]:
    name, runtime = pair
    loaded = measure_load(bundle.path, name, runtime, plan.threads, size)
    return {
        "name": name,
        "runtime": runtime,
        "precision": name,
        "measured": True,
        "not_measured": None,
        "bytes": bundle.graph(name, runtime).stat().st_size,
        "memory_mb": None if loaded is None else loaded.memory_mb,
        "gpu_memory_mb": None if loaded is None else loaded.gpu_memory_mb,
        "load_ms": None if loaded is None else loaded.load_ms,
        "latency_ms": {
            "p50": timing.p50_ms,
            "p90": timing.p90_ms,
            "p99": timing.p99_ms,
            "mean": timing.mean_ms,
            "samples": timing.samples,
        },
        "stages_ms": timing.stages_ms,
        "batch": timing.batch,
        "fps": timing.fps,
        "fps_end_to_end": timing.fps_end_to_end,
        "accuracy": None if evaluation is None else evaluation.accuracy(),
        **timing.raw_ms,
    }


def _computed_by(runtime: str, engine: dict[str, Any] | None) -> dict[str, Any]:
    """Where, and by which version; on TensorRT also by which engine of those that are kept."""
    device = "cpu" if runtime not in TENSORRT_RUNTIMES else "cuda"
    if engine is not None and DLA in engine["flags"]:
        device = "dla"
    return {"device": device, "runtime_version": runtime_version(runtime), "engine": engine}


def _sensor_step(bundle: Bundle, pair: Pair, frames: Sequence[Frame]) -> dict[str, Any] | None:
    """Of the variants that round; not told on a device without onnx, or of a float graph."""
    if not pair[0].startswith("int8"):
        return None
    try:
        spec = bundle.manifest.model.input
        return sensor_step(bundle.graph(*pair), spec, frames, runtime=pair[1])
    except IrstdError:
        return None


def _power(energy: Energy | None) -> dict[str, float | None]:
    """Nulls on a machine that has no sensors for it."""
    return {
        "power_w": None if energy is None else energy.mean_w,
        "joule_per_frame": None if energy is None else energy.joule_per_frame,
        "hottest_c": None if energy is None else energy.hottest_c,
    }


def _pace(runner: Runner, timed_on: TimedOn, plan: Plan, progress: Progress) -> Pace | None:
    if plan.rate_hz is None:
        return None
    progress(f"{runner.name} at {plan.rate_hz:g} Hz", 0, 1)
    pace = measure_pace(runner, timed_on.frames, plan.rate_hz, samples=plan.samples)
    progress(f"{runner.name} at {plan.rate_hz:g} Hz", 1, 1)
    return pace


def _drifts(evaluations: dict[Pair, Evaluation | None]) -> list[dict[str, Any]]:
    """Every other variant against FP32 on its runtime, else on the first that has it."""
    judged = {pair: each for pair, each in evaluations.items() if each is not None}
    have = [runtime for name, runtime in judged if name == REFERENCE]
    entries = []
    for (name, runtime), candidate in judged.items():
        if name == REFERENCE or not have:
            continue
        beside = runtime if runtime in have else have[0]
        reference = judged[REFERENCE, beside]
        entries.append(drift(reference, candidate, (REFERENCE, name), runtime, beside))
    return entries
