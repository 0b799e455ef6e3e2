"""The layer by itself; test_resume has it in two processes."""

import pytest
import torch
from torch import Tensor, distributed, nn

from irstd_edge.models.shared_norm import SharedBatchNorm, share_statistics


def layer(shared: bool) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(3)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([0.5, 1.0, -2.0]))
        norm.bias.copy_(torch.tensor([0.1, 0.0, 3.0]))
    if shared:
        share_statistics(norm)
    return norm


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """One process, which has the whole batch."""
    monkeypatch.setattr(distributed, "get_world_size", lambda: 1)
    monkeypatch.setattr(distributed, "all_reduce", lambda values: None)


def batch(dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    x = 5 + torch.randn(4, 3, 6, 5, generator=generator)
    return x.to(dtype).to(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("dtype", "within"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)], ids=str
)
def test_it_is_batch_normalisation(alone: None, dtype: torch.dtype, within: float) -> None:
    results = []
    for shared in (False, True):
        norm, x = layer(shared), batch(dtype).requires_grad_()
        y = norm(x)
        (y.float() * torch.linspace(0, 1, 5)).square().sum().backward()
        assert y.dtype == dtype and x.grad is not None and x.grad.dtype == dtype
        values = (y, x.grad, norm.weight.grad, norm.bias.grad, norm.running_mean, norm.running_var)
        results.append([value.detach().float() for value in values if value is not None])
        assert int(norm.num_batches_tracked or 0) == 1
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(other, one, rtol=within, atol=within * float(one.abs().max()))


def test_out_of_training_it_is_the_layer_it_was() -> None:
    norm, other = layer(True).eval(), layer(False).eval()
    assert isinstance(norm, SharedBatchNorm)
    assert torch.equal(norm(batch()), other(batch()))
    assert norm.state_dict().keys() == other.state_dict().keys()
