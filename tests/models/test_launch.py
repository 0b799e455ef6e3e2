import platform
import subprocess
import sys

import pytest
import torch

from irstd_edge.edge.types import IrstdError
from irstd_edge.models.launch import launch


def test_an_unknown_device_lists_the_known_ones() -> None:
    with pytest.raises(IrstdError, match=r"^--device: 'tpu' is not one of auto, cpu, cuda; "):
        launch("tpu")


def test_an_absent_gpu_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(IrstdError, match=r"^--device cuda: torch sees no CUDA GPU here; "):
        launch("cuda")
    assert launch("auto").device.type == "cpu"


@pytest.mark.parametrize(
    ("supported", "precision"), [(True, "bf16-mixed"), (False, "32-true"), (None, "32-true")]
)
def test_bfloat16_is_used_where_the_processor_has_it(
    monkeypatch: pytest.MonkeyPatch, supported: bool | None, precision: str
) -> None:
    """None: a torch without that question."""
    name = "_is_avx512_bf16_supported"
    monkeypatch.setattr(torch.cpu, name, lambda: supported, raising=False)
    if supported is None:
        monkeypatch.delattr(torch.cpu, name)
    fabric = launch("cpu")
    assert fabric.strategy.precision.precision == precision
    assert launch("cpu", bfloat16=False).strategy.precision.precision == "32-true"


def test_one_process_is_alone_and_says_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True, raising=False)
    fabric = launch("cpu", partial=True)
    assert (fabric.world_size, fabric.global_rank) == (1, 0)
    assert not caplog.records


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_a_step_takes_the_memory_of_the_one_before() -> None:
    code = """
import resource, torch
from irstd_edge.models.launch import launch
from irstd_edge.models.p2p import P2P

net, frames = P2P().train(), torch.rand(2, 1, 256, 256)

def page_faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    sum(output.mean() for output in net(frames)).backward()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

before = [page_faults() for _ in range(5)][2:]
launch("cpu")
after = [page_faults() for _ in range(15)][5:]
print(min(before), sum(after) // len(after))
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    before, after = map(int, run.stdout.split())
    assert after < before / 10
