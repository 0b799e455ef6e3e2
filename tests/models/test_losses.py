import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from irstd_edge.edge.types import IrstdError
from irstd_edge.models.losses import (
    MASK_LOSSES,
    focal_heatmap_loss,
    mask_loss,
    multi_scale_loss,
    point_loss,
    sls_loss,
)
from irstd_edge.models.mshnet import MultiScale


@pytest.fixture(scope="module")
def case(golden: Path) -> dict[str, Any]:
    return json.loads((golden / "mshnet_reference.json").read_text())["loss"]


def golden_batch(case: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Logits and target (3, 1, 48, 48): boxes of ones, Gaussian blobs beside them."""
    n, _, height, width = case["size"]
    logits = np.full((n, height, width), case["background_logit"], np.float32)
    target = np.zeros((n, height, width), np.float32)
    rows, cols = np.mgrid[:height, :width]
    for b, row, col, h, w, drow, dcol, sigma, amp in case[
        "blobs_b_row_col_h_w_drow_dcol_sigma_amp"
    ]:
        target[b, row : row + h, col : col + w] = 1
        y, x = row + h / 2 + drow, col + w / 2 + dcol
        blob = amp * np.exp(-((rows - y) ** 2 + (cols - x) ** 2) / (2 * sigma**2))
        logits[b] += blob.astype(np.float32)
    return torch.from_numpy(logits)[:, None], torch.from_numpy(target)[:, None]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("warm", {"warm": True}),
        ("sls", {"warm": False}),
        ("scale_only", {"warm": False, "location": False}),
    ],
)
def test_sls_and_its_gradient_are_the_authors(case: dict[str, Any], name, options) -> None:
    logits, target = golden_batch(case)
    loss = sls_loss(logits.requires_grad_(), target, **options)
    loss.backward()
    assert logits.grad is not None
    found = {
        "value": loss.item(),
        "grad_abs_sum": logits.grad.abs().sum().item(),
        "grad_max": logits.grad.abs().max().item(),
    }
    assert found == pytest.approx(case["expect"][name], rel=0, abs=1e-6)


def test_the_location_term_is_the_authors(case: dict[str, Any]) -> None:
    batch = golden_batch(case)
    term = sls_loss(*batch, warm=False) - sls_loss(*batch, warm=False, location=False)
    assert term.item() == pytest.approx(case["expect"]["location_term"], abs=1e-6)


def empty_batch(filled: int) -> tuple[Tensor, Tensor]:
    """Two samples of which the first `filled` hold a target; logits that say nothing."""
    target = torch.zeros(2, 1, 16, 16)
    target[:filled, :, 5:8, 5:8] = 1
    return torch.zeros(2, 1, 16, 16), target


ALL_LOSSES = {**MASK_LOSSES, "sls-warm": lambda x, t: sls_loss(x, t, warm=True)}


@pytest.mark.parametrize("filled", [0, 1])
@pytest.mark.parametrize("level", [-1e4, -200.0, -20.0, 0.0, 20.0, 1e4])
@pytest.mark.parametrize("name", ALL_LOSSES)
def test_losses_are_finite_where_a_sample_is_empty(name: str, level: float, filled: int) -> None:
    logits, target = empty_batch(filled)
    logits = (logits + level).requires_grad_()
    loss = ALL_LOSSES[name](logits, target)
    loss.backward()
    assert math.isfinite(loss.item())
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("filled", [0, 1])
@pytest.mark.parametrize("name", ALL_LOSSES)
def test_an_empty_sample_pushes_predicted_mass_down(name: str, filled: int) -> None:
    logits, target = empty_batch(filled)
    ALL_LOSSES[name](logits.requires_grad_(), target).backward()
    assert logits.grad is not None
    # Everywhere in the empty sample a step against the gradient lowers the logit.
    assert (logits.grad[1] > 0).all()


@pytest.mark.parametrize("name", ["sls", "sls-warm"])
def test_an_empty_sample_leaves_the_others_as_they_are(case: dict[str, Any], name: str) -> None:
    logits, target = (x[:1] for x in golden_batch(case))
    alone = logits.clone().requires_grad_()
    ALL_LOSSES[name](alone, target).backward()
    both = torch.cat((logits, logits)).requires_grad_()
    ALL_LOSSES[name](both, torch.cat((target, torch.zeros_like(target)))).backward()
    assert alone.grad is not None
    assert both.grad is not None
    torch.testing.assert_close(2 * both.grad[:1], alone.grad)


@pytest.mark.parametrize("name", MASK_LOSSES)
def test_gradient_descent_lowers_every_loss_and_finds_the_target(name: str) -> None:
    target = torch.zeros(2, 1, 16, 16)
    target[0, 0, 4:7, 9:12] = 1
    target[1, 0, 10:12, 3:5] = 1
    logits = torch.full((2, 1, 16, 16), -2.0, requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=0.2)
    losses = []
    for _ in range(120):
        optimizer.zero_grad()
        loss = mask_loss(name)(logits, target)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]
    assert torch.equal(logits > 0, target > 0.5)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("soft-iou", 1 - (2 + 1) / (3 + 1)), ("dice", 1 - (2 * 2 + 1) / (2 + 3 + 1))],
)
def test_overlap_losses_by_hand(name: str, expected: float) -> None:
    """Two predicted pixels, both among three true ones; one pixel of smoothing on each side."""
    target = torch.zeros(1, 1, 4, 4)
    target[..., 0, :3] = 1
    logits = torch.full((1, 1, 4, 4), -1e4)
    logits[..., 0, :2] = 1e4
    assert mask_loss(name)(logits, target).item() == pytest.approx(expected)


def test_unknown_loss_lists_the_names() -> None:
    with pytest.raises(IrstdError) as error:
        mask_loss("tversky")
    message = str(error.value)
    assert message.startswith("--loss: ")
    assert all(name in message for name in ("tversky", *MASK_LOSSES))
    assert "\n" not in message


def scales(size: int = 32) -> tuple[MultiScale, Tensor]:
    generator = torch.Generator().manual_seed(5)
    target = torch.zeros(2, 1, size, size)
    target[:, :, 5, 21] = 1
    maps = [torch.randn(2, 1, size // 2**i, size // 2**i, generator=generator) for i in range(4)]
    return MultiScale(torch.randn(2, 1, size, size, generator=generator), maps), target


@pytest.mark.parametrize("name", MASK_LOSSES)
def test_multi_scale_is_the_mean_over_the_heads(name: str) -> None:
    outputs, target = scales()
    expected = [mask_loss(name)(outputs.final, target)]
    for i, head in enumerate(outputs.heads):
        coarse = torch.zeros_like(head)
        coarse[:, :, 5 // 2**i, 21 // 2**i] = 1
        expected.append(mask_loss(name)(head, coarse))
    found = multi_scale_loss(outputs, target, name=name, warm=False)
    assert found.item() == pytest.approx(torch.stack(expected).mean().item(), rel=1e-6)


@pytest.mark.parametrize("share", [0.0, 0.6, 1.0])
def test_the_final_head_has_its_share(share: float) -> None:
    outputs, target = scales()
    alike, final = (
        multi_scale_loss(outputs, target, name="dice", warm=False, final_share=of)
        for of in (0.2, 1)
    )
    assert final.item() == pytest.approx(mask_loss("dice")(outputs.final, target).item())
    others = (alike - 0.2 * final) / 0.8
    found = multi_scale_loss(outputs, target, name="dice", warm=False, final_share=share)
    assert found.item() == pytest.approx((share * final + (1 - share) * others).item(), rel=1e-5)
    assert abs(final - others) > 0.01


def test_multi_scale_warm_teaches_the_finest_head_alone() -> None:
    outputs, target = scales()
    for x in (outputs.final, *outputs.heads):
        x.requires_grad_()
    loss = multi_scale_loss(outputs, target, name="sls", warm=True)
    assert loss.item() == sls_loss(outputs.heads[0], target, warm=True).item()
    loss.backward()
    taught = [x.grad is not None for x in (outputs.final, *outputs.heads)]
    assert taught == [False, True, False, False, False]


@pytest.mark.parametrize("name", [n for n in MASK_LOSSES if n != "sls"])
def test_only_sls_has_a_warm_up(name: str) -> None:
    outputs, target = scales()
    warm, later = (multi_scale_loss(outputs, target, name=name, warm=w) for w in (True, False))
    assert warm.item() == later.item()


def slow_focal(logits: Tensor, target: Tensor) -> float:
    """Equation 1 of "Objects as Points", cell by cell."""
    total, count = 0.0, 0
    for x, y in zip(logits.double().flatten().tolist(), target.flatten().tolist(), strict=True):
        p = 1 / (1 + math.exp(-x))
        if y == 1:
            count += 1
            total += (1 - p) ** 2 * math.log(p)
        else:
            total += (1 - y) ** 4 * p**2 * math.log(1 - p)
    return -total / max(1, count)


@pytest.mark.parametrize("points", [0, 1, 3])
def test_focal_loss_against_the_formula(points: int) -> None:
    generator = torch.Generator().manual_seed(points)
    logits = 3 * torch.randn(2, 1, 6, 7, generator=generator)
    target = 0.9 * torch.rand(2, 1, 6, 7, generator=generator)
    target.view(-1)[:points] = 1
    found = focal_heatmap_loss(logits, target).item()
    assert found == pytest.approx(slow_focal(logits, target), rel=1e-5)


@pytest.mark.parametrize("level", [-1e4, 1e4])
def test_focal_loss_is_finite_at_extreme_logits(level: float) -> None:
    logits = torch.full((1, 1, 4, 4), level, requires_grad=True)
    target = torch.zeros(1, 1, 4, 4)
    target[0, 0, 1, 1] = 1
    loss = focal_heatmap_loss(logits, target)
    loss.backward()
    assert math.isfinite(loss.item())
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_point_loss_reads_the_geometry_where_a_target_is_alone() -> None:
    heatmap, geometry = torch.zeros(1, 1, 4, 4), torch.zeros(1, 3, 4, 4)
    target = torch.zeros(1, 5, 4, 4)
    target[0, :, 2, 1] = torch.tensor([1.0, 0.4, -0.1, 0.5, 1.0])
    geometry[0, :, 0, 0] = 100.0  # nobody asks
    geometry.requires_grad_()
    loss = point_loss(heatmap, geometry, target)

    def smooth_l1(x: float) -> float:
        return x**2 / (2 * 0.25) if abs(x) < 0.25 else abs(x) - 0.25 / 2

    place = smooth_l1(0.4) + smooth_l1(0.1)
    expected = slow_focal(heatmap, target[:, :1]) + place + 0.2 * smooth_l1(0.5)
    assert loss.item() == pytest.approx(expected, rel=1e-6)
    loss.backward()
    assert geometry.grad is not None
    asked = geometry.grad.abs().sum((0, 1)) > 0
    assert asked.nonzero().tolist() == [[2, 1]]


def test_point_loss_of_a_batch_in_two_processes_is_that_of_one() -> None:
    generator = torch.Generator().manual_seed(0)
    heatmap, geometry = (torch.randn(2, n, 4, 4, generator=generator) for n in (1, 3))
    target = torch.zeros(2, 5, 4, 4)  # all targets are in the first process
    target[0, :, 2, 1] = torch.tensor([1.0, 0.4, -0.1, 0.5, 1.0])
    target[0, :, 0, 3] = torch.tensor([1.0, 0.1, 0.2, -0.5, 1.0])
    whole = point_loss(heatmap, geometry, target)
    half = torch.tensor(1.0)  # of two targets and two cells, in the mean over two processes
    parts = [
        point_loss(heatmap[n : n + 1], geometry[n : n + 1], target[n : n + 1], lambda _: half)
        for n in (0, 1)
    ]
    assert torch.stack(parts).mean().item() == pytest.approx(whole.item(), rel=1e-6)
    alone = [point_loss(heatmap[n : n + 1], geometry[n : n + 1], target[n : n + 1]) for n in (0, 1)]
    assert torch.stack(alone).mean().item() != pytest.approx(whole.item(), rel=0.1)


def test_point_loss_of_a_crop_without_target_is_the_heatmaps() -> None:
    heatmap, geometry = torch.zeros(2, 1, 4, 4), torch.ones(2, 3, 4, 4, requires_grad=True)
    target = torch.zeros(2, 5, 4, 4)
    loss = point_loss(heatmap, geometry, target)
    assert loss.item() == pytest.approx(32 * 0.25 * math.log(2), rel=1e-6)
    loss.backward()
    assert geometry.grad is not None
    assert geometry.grad.eq(0).all()


@pytest.mark.parametrize("name", ALL_LOSSES)
def test_losses_are_taken_in_float32(name: str) -> None:
    logits, target = empty_batch(filled=2)
    logits = (logits + 3).bfloat16()
    loss = ALL_LOSSES[name](logits, target)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(ALL_LOSSES[name](logits.float(), target).item(), rel=1e-6)


def test_cross_entropy_is_torchs() -> None:
    logits, target = empty_batch(filled=1)
    expected = F.binary_cross_entropy(logits.sigmoid(), target)
    assert mask_loss("bce")(logits, target).item() == pytest.approx(expected.item())
