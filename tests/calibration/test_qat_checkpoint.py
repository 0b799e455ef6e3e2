"""Training that was stopped goes on, and only the training that it was."""

import copy

import pytest
import torch
from torch import nn

from irstd_edge.calibration import qat
from irstd_edge.calibration.qat import QatRecipe, train_quantized
from irstd_edge.calibration.qat_checkpoint import Checkpoint, kept_beside
from irstd_edge.edge.dataset import open_dataset
from irstd_edge.edge.types import IrstdError

HOW = QatRecipe(epochs=2, batch_size=2, lr=1e-3)


class Stopped(Exception):
    """As if the process had died there."""


@pytest.fixture(scope="module")
def samples(scenes):
    return list(open_dataset(scenes, "train").samples())[:7]  # three steps an epoch, one frame over


@pytest.fixture
def run(case, samples):
    def trained(checkpoint=None, stop_at=None):
        def progress(what, done, total):
            if done == stop_at:
                raise Stopped

        return train_quantized(
            case.quantized.module, case.float_net, case.spec, samples, HOW,
            checkpoint=checkpoint, progress=progress,
        ).state_dict()  # fmt: skip

    return trained


@pytest.mark.parametrize("stops", [[2], [4], [3, 6]])
def test_it_ends_as_if_it_had_never_stopped(run, tmp_path, monkeypatch, stops):
    monkeypatch.setattr(qat, "STEPS_KEPT", 1)
    undisturbed = run()
    checkpoint = Checkpoint(tmp_path / "kept", "it")
    for stop in stops:
        with pytest.raises(Stopped):
            run(checkpoint, stop)
    steps = torch.load(checkpoint.path, weights_only=True)["steps"]
    assert steps == stops[-1] - 1  # the step that was stopped is taken again
    found = run(checkpoint)
    assert all(torch.equal(value, found[name]) for name, value in undisturbed.items())


def test_one_that_was_done_is_not_taken_again(run, tmp_path, monkeypatch):
    checkpoint = Checkpoint(tmp_path / "kept", "it")
    done = run(checkpoint)
    monkeypatch.setattr(qat, "_loss", None)  # nothing may learn any more
    again = run(checkpoint)
    assert all(torch.equal(value, again[name]) for name, value in done.items())


def net_and_optimizer():
    torch.manual_seed(0)
    net = nn.Linear(2, 1)
    return net, torch.optim.AdamW(net.parameters())


def test_another_training_is_refused(tmp_path):
    net, optimizer = net_and_optimizer()
    Checkpoint(tmp_path / "kept", "one").write(3, net, optimizer)
    before = copy.deepcopy(net.state_dict())
    with torch.no_grad():
        net.weight += 1
    with pytest.raises(IrstdError, match="is of other weights, frames or options"):
        Checkpoint(tmp_path / "kept", "other").read(net, optimizer)
    assert not torch.equal(net.weight, before["weight"])  # nothing was taken over
    assert Checkpoint(tmp_path / "kept", "one").read(net, optimizer) == 3
    assert torch.equal(net.weight, before["weight"])


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x80\x04N."])
def test_a_damaged_file_is_refused(tmp_path, content):
    path = tmp_path / "kept"
    path.write_bytes(content)
    with pytest.raises(IrstdError, match="is damaged; remove it to start again"):
        Checkpoint(path, "it").read(*net_and_optimizer())


def test_a_file_of_another_network_is_refused(tmp_path):
    checkpoint = Checkpoint(tmp_path / "kept", "it")
    checkpoint.write(1, *net_and_optimizer())
    other = nn.Linear(3, 1)
    with pytest.raises(IrstdError, match="is damaged"):
        checkpoint.read(other, torch.optim.AdamW(other.parameters()))


def test_a_stopped_training_is_not_written_over(tmp_path):
    bundle = tmp_path / "bundle"
    with pytest.raises(IrstdError, match="no such file, nothing to resume"):
        with kept_beside(bundle, resume=True):
            pass
    assert not list(tmp_path.iterdir())
    with pytest.raises(Stopped), kept_beside(bundle, resume=False) as path:
        assert path == tmp_path / "bundle.qat" / "last.ckpt"
        path.touch()
        raise Stopped
    with pytest.raises(IrstdError, match="a training for this bundle: add --resume"):
        with kept_beside(bundle, resume=False):
            pass
    with kept_beside(bundle, resume=True) as path:
        assert path.exists()
        with pytest.raises(IrstdError, match="another process is writing there"):
            with kept_beside(bundle, resume=True):
                pass
    assert not list(tmp_path.iterdir())  # the bundle is there, and needs it no longer


def test_one_that_never_came_to_a_checkpoint_leaves_nothing(tmp_path):
    with pytest.raises(Stopped), kept_beside(tmp_path / "bundle", resume=False):
        raise Stopped
    assert not list(tmp_path.iterdir())
