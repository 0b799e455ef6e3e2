"""Every reader of a file on thousands of damaged ones: IrstdError or a result, nothing else.

python fuzz.py [--count 20000] [--seed 0] [--only KIND]... [--show KIND:NUMBER]

Damage is decided by the seed, the kind and the number. Readers run in child processes, a few
hundred files each, with a limit of memory; a child that dies, or is silent for five seconds, is a
finding like any other, and the files after it get a new child.
"""

import argparse
import os
import random
import resource
import select
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import seeds
from mutate import mutated, mutated_json

from irstd_edge.edge.types import IrstdError

LIMIT_S = 5.0
MEMORY_BYTES = 3 * 2**30
BATCH = 250
READ, REFUSED = "read", "refused"

Make = Callable[[random.Random], tuple[str, bytes]]
"""Random numbers -> ending and bytes of a damaged file."""


@dataclass(frozen=True)
class Kind:
    """A kind of file, and what reads it."""

    make: Make
    read: Callable[[Path], Any]
    share: float
    """Of all files."""


def of_bytes(files: list[tuple[str, bytes]]) -> Make:
    def make(rng: random.Random) -> tuple[str, bytes]:
        suffix, data = rng.choice(files)
        return suffix, mutated(data, rng)

    return make


def of_json(value: Any) -> Make:
    return lambda rng: (".json", mutated_json(value, rng))


def read_frames(path: Path) -> None:
    from irstd_edge.edge.sequences import frames_of

    for _ in frames_of(path):
        pass


def read_manifest(path: Path) -> None:
    from irstd_edge.edge.bundle import open_bundle

    folder = path.with_suffix("")
    folder.mkdir(exist_ok=True)
    path.replace(folder / "manifest.json")
    open_bundle(folder)


def read_bench(path: Path) -> None:
    """As `gate` and `report` do."""
    import io

    from rich.console import Console

    from irstd_edge.benchmarks.gate import judge
    from irstd_edge.benchmarks.limits import Limits
    from irstd_edge.benchmarks.report import report_html
    from irstd_edge.benchmarks.schema import read_bench as read
    from irstd_edge.benchmarks.summary import summaries
    from irstd_edge.benchmarks.table import print_table, print_verdict
    from irstd_edge.benchmarks.verdict import (
        verdict_as_json,
        verdict_as_junit,
        verdict_as_markdown,
    )

    found = read(path)
    verdict = judge(found, Limits(floor={"fps": 10.0, "f1_3px": 0.5}))
    words, shown = summaries(found, verdict), io.StringIO()
    console = Console(file=shown, width=120)
    print_verdict(verdict, words, console)
    print_table(found, console)
    page = report_html([found], verdict_as_json(verdict), words)
    junit, markdown = verdict_as_junit(verdict), verdict_as_markdown(verdict)
    assert "<script" not in page + junit, "markup in a name came through"
    assert "\x1b" not in shown.getvalue() + page + junit + markdown, "a terminal would obey a name"


def read_limits(path: Path) -> None:
    from irstd_edge.benchmarks.gate import judge
    from irstd_edge.benchmarks.limits import load_limits
    from irstd_edge.benchmarks.verdict import verdict_as_json

    verdict_as_json(judge(seeds.bench(), load_limits(path)))


def read_graph(path: Path) -> None:
    """As predict and bench do: open, run, count."""
    import numpy as np

    from irstd_edge.benchmarks.cost import cost_of_graph
    from irstd_edge.edge.runners import open_graph
    from irstd_edge.edge.types import DecodeSpec, Frame, InputSpec, ModelSpec

    spec = ModelSpec("mshnet", InputSpec(8), DecodeSpec("mask"))
    with open_graph(path, spec, "fp32", "onnxruntime", threads=1) as run:
        run.detect(Frame("a", np.full((16, 16), 100, np.uint8), 8))
    cost_of_graph(path, (1, 1, 16, 16))


def read_safetensors(path: Path) -> None:
    from irstd_edge.models.weights import load_model, load_state, read_card, spec_of_card

    model, card = read_card(path)
    spec_of_card(model, card)
    load_state(path, model)
    load_model(path)


def read_pickle(path: Path) -> None:
    from irstd_edge.models.weights import import_weights

    import_weights(path, "p2p")


def read_checkpoint(path: Path) -> None:
    import torch

    from irstd_edge.models.run_files import read_state

    read_state(path, "run", torch.device("cpu"))


def read_data_set(name: str) -> Callable[[Path], None]:
    """The file as one of a data set that is whole but for it."""

    def read(path: Path) -> None:
        from irstd_edge.edge.dataset import open_dataset

        root = path.parent / "data"
        if not root.exists():
            (root / "images").mkdir(parents=True)
            (root / "images" / "a.png").write_bytes(dict(seeds.pictures())[".png"])
        whole = {"test.txt": "a\n", "points.json": '{"a": [[1, 2]]}', "dataset.json": "{}"}
        whole["dataset.json"] = '{"bit_depth": 16}'
        for file, text in whole.items():
            (root / file).write_text(text)
        path.replace(root / name)
        list(open_dataset(root).samples())

    return read


def read_golden(path: Path) -> None:
    """In a bundle that is whole but for it, and whose manifest vouches for it, damage and all."""
    from irstd_edge.edge.bundle import write_bundle
    from irstd_edge.edge.golden import golden_sizes
    from irstd_edge.edge.runners import open_runner
    from irstd_edge.edge.types import DecodeSpec, InputSpec, Manifest, ModelSpec, Quantization

    spec = ModelSpec("mshnet", InputSpec(8), DecodeSpec("mask"))
    manifest = Manifest(spec, "0" * 64, {}, Quantization("ptq", {}, (), ()), {})
    files = {"fp32.onnx": seeds.graph(), "golden/golden.json": path.read_bytes()}
    files["golden/a.png"] = dict(seeds.pictures())[".png"]
    bundle = write_bundle(path.parent / "bundle", manifest, files)
    golden_sizes(bundle)
    open_runner(bundle, "fp32", threads=1).close()


def read_sensitivity(path: Path) -> None:
    """As `sensitivity`, which goes on from it, and `report` do."""
    from rich.console import Console

    from irstd_edge.benchmarks.schema import read_sensitivity as read
    from irstd_edge.benchmarks.table import print_layers

    found = read(path)
    with open(os.devnull, "w") as nowhere:
        print_layers(found["layers"], Console(file=nowhere))


def read_engine(path: Path) -> None:
    """The entry of an engine in a store of this user's."""
    from irstd_edge.edge.engine_store import EngineKey, open_store

    store = open_store(path.parent / "store")
    key = EngineKey("0" * 64, "tensorrt", "10.3", "Orin", "sm_87", ("min=1x1x32x32",))
    folder = store.save(key, b"engine").parent
    path.replace(folder / "entry.json")
    for each in store.keys():
        store.load(each)
    store.load(key)


def read_signature(path: Path) -> None:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    from irstd_edge.edge.signing import check_signature

    folder = path.parent / "signed"
    folder.mkdir(exist_ok=True)
    (folder / "manifest.json").write_text("{}")
    key = Ed25519PrivateKey.from_private_bytes(bytes(32)).public_key()
    public = folder / "key.pub"
    public.write_bytes(key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH))
    path.replace(folder / "signature.json")
    check_signature(folder, public)


def kinds(folder: Path) -> dict[str, Kind]:
    """All of them; `folder` is for seeds that have to be files first."""
    signature = {"schema": "irstd-edge/signature/1", "signature": "AAAA"}
    signature["key"] = "66cd608b928b88e5"
    return {
        "pictures": Kind(of_bytes(seeds.pictures()), read_frames, 0.16),
        "arrays": Kind(of_bytes(seeds.arrays()), read_frames, 0.08),
        "videos": Kind(of_bytes(seeds.videos(folder)), read_frames, 0.06),
        "manifest": Kind(of_json(seeds.manifest()), read_manifest, 0.1),
        "bench": Kind(of_json(seeds.bench()), read_bench, 0.14),
        "gate": Kind(of_bytes([(".toml", seeds.GATE.encode())]), read_limits, 0.08),
        "graph": Kind(of_bytes([(".onnx", seeds.graph())]), read_graph, 0.08),
        "safetensors": Kind(
            of_bytes([(".safetensors", seeds.safetensors())]), read_safetensors, 0.06
        ),
        "pickle": Kind(of_bytes(seeds.pickles()), read_pickle, 0.06),
        "checkpoint": Kind(of_bytes([(".ckpt", seeds.checkpoint())]), read_checkpoint, 0.03),
        "points": Kind(
            of_json({"a": [[1, 2], [3.5, 4]], "b": []}), read_data_set("points.json"), 0.03
        ),
        "dataset": Kind(of_json({"bit_depth": 14}), read_data_set("dataset.json"), 0.02),
        "list": Kind(of_bytes([(".txt", b"a\nb.png\nc\n")]), read_data_set("test.txt"), 0.02),
        "signature": Kind(of_json(signature), read_signature, 0.02),
        "golden": Kind(of_json(seeds.golden()), read_golden, 0.02),
        "sensitivity": Kind(of_json(seeds.sensitivity()), read_sensitivity, 0.02),
        "engine": Kind(of_json(seeds.engine_entry()), read_engine, 0.02),
    }


@dataclass(frozen=True)
class Outcome:
    """What became of a file: anything but read and refused is a finding."""

    kind: str
    number: int
    what: str


def check(kind: Kind, path: Path) -> str:
    """read, refused, or what the reader did wrong."""
    try:
        kind.read(path)
    except IrstdError as error:
        return REFUSED if "\n" not in str(error) else f"more than a line: {error!r:.200}"
    except BaseException:
        return " ".join(traceback.format_exc().split())[-400:]
    return READ


def child(kind: Kind, name: str, numbers: range, seed: int, report: int) -> None:
    """Go through files and write a line for each: its number, and what was wrong."""
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))
    with tempfile.TemporaryDirectory() as folder, open(report, "w") as out:
        for number in numbers:
            print(f"> {number}", file=out, flush=True)
            suffix, data = kind.make(random.Random(f"{seed}:{name}:{number}"))
            path = Path(folder, f"{number}{suffix}")
            path.write_bytes(data)
            outcome = check(kind, path)
            path.unlink(missing_ok=True)
            print(f"< {number} {outcome}", file=out, flush=True)


def run(name: str, kind: Kind, count: int, seed: int) -> Iterator[Outcome]:
    """What became of files 0 to count of a kind, in children."""
    first = 0
    while first < count:
        numbers = range(first, min(count, first + BATCH))
        ends, report = os.pipe()
        pid = os.fork()
        if not pid:
            os.close(ends)
            sys.stderr = open(os.devnull, "w")
            os.dup2(sys.stderr.fileno(), 2)
            try:
                child(kind, name, numbers, seed, report)
            finally:
                os._exit(0)
        os.close(report)
        first = yield from watch(name, pid, ends, numbers)


def watch(name: str, pid: int, ends: int, numbers: range) -> Iterator[Outcome]:
    """What became of a child's files, and, returned, the number to go on with."""
    begun = done = numbers.start - 1
    hung, rest = False, b""
    while True:
        if not select.select([ends], [], [], LIMIT_S)[0]:
            os.kill(pid, signal.SIGKILL)
            hung = True
        data = os.read(ends, 2**16)
        if not data:
            break
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            mark, number, *outcome = line.decode(errors="replace").split(" ", 2)
            begun, done = (int(number), done) if mark == ">" else (begun, int(number))
            if mark == "<":
                yield Outcome(name, done, *outcome)
    os.close(ends)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if begun > done:
        what = f"hung for {LIMIT_S:g} s" if hung else f"the process died with status {status}"
        yield Outcome(name, begun, what)
    return max(begun, done) + 1


def shown(name: str, seed: int, number: int, folder: Path) -> None:
    """Read one file here and now, and let its traceback through."""
    kind = kinds(folder)[name]
    suffix, data = kind.make(random.Random(f"{seed}:{name}:{number}"))
    path = folder / f"{number}{suffix}"
    path.write_bytes(data)
    print(repr(data[:2000]))
    kind.read(path)


def main() -> int:
    """Print a line a kind, then every finding; 1 if there are any."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", action="append", default=[])
    parser.add_argument("--show", metavar="KIND:NUMBER")
    options = parser.parse_args()
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        if options.show:
            name, _, number = options.show.partition(":")
            shown(name, options.seed, int(number), Path(folder))
            return 0
        every = kinds(Path(folder))
        chosen = {name: every[name] for name in options.only or every}
        found: list[Outcome] = []
        counts = Counter({name: round(options.count * kind.share) for name, kind in chosen.items()})
        for name, kind in chosen.items():
            begun = time.monotonic()
            all_of_it = list(run(name, kind, counts[name], options.seed))
            assert len(all_of_it) == counts[name], "files went missing"
            new = [outcome for outcome in all_of_it if outcome.what not in (READ, REFUSED)]
            refused = sum(outcome.what == REFUSED for outcome in all_of_it)
            found += new
            took_s = time.monotonic() - begun
            print(
                f"{name}: {counts[name]} files, {refused} refused, {len(new)} findings, "
                f"{took_s:.1f} s",
                flush=True,
            )
    for finding in found:
        print(f"{finding.kind}:{finding.number}: {finding.what}")
    took_s = time.monotonic() - start
    print(f"{counts.total()} files, {len(found)} findings, {took_s:.0f} s")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
