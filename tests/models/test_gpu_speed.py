"""What torch makes of a detector on a GPU; the logic of it on the processor."""

import gc
import weakref
from contextlib import nullcontext
from unittest.mock import MagicMock

import gpu_speed
import pytest
import torch


def table_of(printed: str) -> dict[str, list[float]]:
    rows = [line.strip("| ").split(" | ") for line in printed.splitlines()[4:]]
    return {name: list(map(float, figures)) for name, *figures in rows}


def test_every_way_sees_what_float32_sees(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch, "compile", lambda net: net)  # a minute of a C++ compiler
    options = ["--device", "cpu", "--size", "32x32", "--batch", "3", "--samples", "10"]
    times = gpu_speed.main(["p2p", *options])
    printed = capsys.readouterr().out
    assert printed.startswith("p2p, 32x32, batch 3, CPU\n")
    table = table_of(printed)
    assert list(table) == ["FP32, eager", "BF16, eager", "FP32, compiled"] == list(times)
    p50_ms, p99_ms, frames_per_s, error = table["FP32, eager"]
    assert 0 < p50_ms <= p99_ms and error == 0
    assert frames_per_s == pytest.approx(3000 / p50_ms, rel=0.05)
    assert 0 < table["BF16, eager"][3] < 0.5


def test_a_recorded_network_stays_where_the_graph_reads_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("Stream", "current_stream", "CUDAGraph"):
        monkeypatch.setattr(torch.cuda, name, MagicMock())
    for name in ("stream", "graph"):
        monkeypatch.setattr(torch.cuda, name, lambda given: nullcontext())
    net = torch.nn.Linear(2, 1)
    weights = weakref.ref(net.weight)
    graphed = gpu_speed.Graphed(gpu_speed.eager(net), torch.zeros(1, 2))
    del net
    gc.collect()
    assert weights() is not None
    (first,) = graphed(torch.ones(1, 2))
    assert torch.equal(graphed.given, torch.ones(1, 2)) and first.shape == (1, 1)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("model", ["p2p", "mshnet"])
def test_on_a_gpu_every_way_runs(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    gpu_speed.main([model, "--samples", "20"])
    table = table_of(capsys.readouterr().out)
    assert {"FP16, eager", "FP16, CUDA graph", "FP32, CUDA graph", "FP32, compiled"} <= set(table)
    assert table["FP32, CUDA graph"][0] < table["FP32, eager"][0]
    assert all(figures[3] < 0.5 for figures in table.values())
