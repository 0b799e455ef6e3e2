"""What torch makes of a detector on a GPU: eager, lower precision, compiled, as a CUDA graph.

python tests/experiments/gpu_speed.py p2p [--size 256x256] [--batch 1] [--samples 100]

The ways take turns, as in `irstd-edge bench`, whose TensorRT figures stand beside these
(`bench BUNDLE --device cuda`). Every way must see what float32 sees: its largest distance from
float32's logits, as a share of their deviation, is printed too. `--device cpu` has no FP16 and no
CUDA graph.
"""

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from irstd_edge.benchmarks.latency import Timing, measure
from irstd_edge.benchmarks.plan import Plan, timed_on_of
from irstd_edge.edge.runners import Runner
from irstd_edge.edge.types import Frame, ModelSpec
from irstd_edge.models.weights import find_weights, load_model, spec_of_card

Network = Callable[[Tensor], tuple[Tensor, ...]]
WARM_UP_S = 2
"""Of each way."""


def as_tuple(outputs: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (outputs,) if isinstance(outputs, Tensor) else tuple(outputs)


def eager(net: nn.Module) -> Network:
    return lambda batch: as_tuple(net(batch))


def lower(net: nn.Module, dtype: torch.dtype) -> Network:
    """In one lower type from end to end, outputs in float32."""
    lowered = net.to(dtype)
    return lambda batch: tuple(each.float() for each in as_tuple(lowered(batch.to(dtype))))


class Graphed:
    """A network, recorded once for the shape of a batch and launched by one call from then on."""

    def __init__(self, network: Network, batch: Tensor) -> None:
        self.network = network  # the graph reads its weights where they lie
        self.given, stream = batch.clone(), torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):  # what is chosen or allocated at the first calls is no part of it
                network(self.given)
        torch.cuda.current_stream().wait_stream(stream)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.outputs = network(self.given)

    def __call__(self, batch: Tensor) -> tuple[Tensor, ...]:
        self.given.copy_(batch)
        self.graph.replay()
        return self.outputs


def ways_of(make: Callable[[], nn.Module], batch: Tensor) -> dict[str, Network]:
    """Name -> network on the device of the batch; `make` gives a fresh one."""
    compiled = torch.compile(make())
    ways: dict[str, Network] = {
        "FP32, eager": eager(make()),
        "BF16, eager": lower(make(), torch.bfloat16),
        "FP32, compiled": lambda x: as_tuple(compiled(x)),
    }
    if batch.is_cuda:
        ways["FP16, eager"] = lower(make(), torch.float16)
        ways["FP32, CUDA graph"] = Graphed(eager(make()), batch)
        ways["FP16, CUDA graph"] = Graphed(lower(make(), torch.float16), batch)
    return ways


@dataclass
class Calls:
    """One way, as `measure` times it: a batch of the frame asked for, decoded one by one."""

    runner: Runner
    batch: int
    stages_ms: Mapping[str, float] = field(default_factory=dict)

    def detect(self, frame: Frame) -> None:
        self.runner.predict_all([frame] * self.batch)
        self.stages_ms = self.runner.stages_ms


def runner_of(network: Network, spec: ModelSpec, name: str, device: torch.device) -> Runner:
    def infer(batch: np.ndarray) -> list[np.ndarray]:
        with torch.inference_mode():
            outputs = network(torch.from_numpy(batch).to(device))
        return [each.cpu().numpy() for each in outputs]  # waits for the device

    return Runner(spec, "torch", name, infer)


def main(arguments: list[str] | None = None) -> dict[str, Timing]:
    """Print a line for each way, and return their times."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--size", default="256x256")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--samples", type=int, default=100)
    options = parser.parse_args(arguments)
    device = torch.device(options.device)
    loaded, model, card = load_model(find_weights(options.weights))
    spec = spec_of_card(model, card)
    height, width = map(int, options.size.split("x"))
    frames = timed_on_of(Plan(size=(height, width))).frames

    def make() -> nn.Module:
        return loaded.deploy().to(device).eval()

    example = runner_of(eager(make()), spec, "fp32", device).batch_of(frames[0])
    batch = torch.from_numpy(example).to(device).repeat(options.batch, 1, 1, 1)
    with torch.inference_mode():
        ways = ways_of(make, batch)
        exact = as_tuple(make()(batch))[0]
        error = {
            name: float((network(batch)[0] - exact).abs().max() / exact.std())
            for name, network in ways.items()
        }
    runners = {
        name: Calls(runner_of(network, spec, name, device), options.batch)
        for name, network in ways.items()
    }
    times = measure(
        runners, frames, warm_up_s=WARM_UP_S, samples=options.samples, batch=options.batch
    )
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    print(f"{model}, {height}x{width}, batch {options.batch}, {name}\n")
    print("| way | p50 ms | p99 ms | frames/s | largest error |\n|---|---|---|---|---|")
    for way, timing in times.items():
        figures = f"{timing.p50_ms:.2f} | {timing.p99_ms:.2f} | {timing.fps:.0f}"
        print(f"| {way} | {figures} | {error[way]:.3f} |", flush=True)
    return times


if __name__ == "__main__":
    main()
