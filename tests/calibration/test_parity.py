"""Three ways to run one INT8 network, held against its graph as it is written."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from irstd_edge.benchmarks.accuracy import Evaluation
from irstd_edge.calibration.export import INT8, INT8_CPU
from irstd_edge.calibration.judge import judge, opened
from irstd_edge.calibration.parity import gap, parity
from irstd_edge.edge.runners import installed_runtimes
from irstd_edge.edge.types import Frame, Sample


@pytest.fixture(scope="module")
def samples():
    random = np.random.default_rng(5)
    points = np.float32([[20, 20], [40, 50]])
    return [
        Sample(Frame(f"f{k}", random.integers(0, 256, (64, 64), np.uint8), 8), None, points)
        for k in range(3)
    ]


@pytest.fixture(scope="module")
def judged(case, samples):
    with opened(case.graphs, case.spec) as runners:
        return judge(runners, samples, lambda *_: None)


def test_torch_and_its_graph_are_one(case, samples, judged):
    gaps = parity(judged, case.quantized.module, case.graphs, case.spec, samples)
    by_way = {found.way: found for found in gaps}
    assert set(by_way) == {"torch", *installed_runtimes()}
    assert by_way["torch"].score_error < 1e-4 and by_way["torch"].flips == 0
    assert all(found.targets == 6 for found in gaps)
    assert 0 < by_way["onnxruntime"].score_error < 0.1


def test_a_fault_of_the_export_shows(case, samples, judged):
    module = torch.nn.Module()
    module.forward = lambda x: tuple(y * 1.5 for y in case.quantized.module(x))
    module.eval()
    found = parity(judged, module, case.graphs, case.spec, samples)[0]
    assert found.way == "torch" and found.score_error > 1e-3


def test_without_a_module_the_runtimes_are_compared_alone(case, samples, judged):
    gaps = parity(judged, None, case.graphs, case.spec, samples)
    assert {found.way for found in gaps} == set(installed_runtimes())


def test_a_gap_counts_flips_either_way(judged):
    written = judged[INT8]

    def with_targets(found: list[bool], scores: list[float]) -> Evaluation:
        image = written.images[0]
        targets = tuple(
            replace(image.targets[0], matched=m, score=s)
            for m, s in zip(found, scores, strict=True)
        )
        return replace(written, images=(replace(image, targets=targets),))

    one = with_targets([True, False, True], [0.9, 0.2, 0.8])
    other = with_targets([False, True, True], [0.3, 0.6, 0.8])
    found = gap("openvino", one, other)
    assert (found.targets, found.flips) == (3, 2)
    assert found.score_error == pytest.approx(((0.6**2 + 0.4**2) / 3) ** 0.5)
    assert (found.f1_3px, found.iou) == (0, None), "of the same points, without masks"
    assert INT8_CPU in judged
