"""LPIPS equals the one of torchmetrics, without torchvision."""

import pytest
import torch
from torch import nn
from torchmetrics.functional.image import lpips as theirs

from muse.checkpoint import CheckpointError
from muse.evaluation.lpips import Lpips
from muse.evaluation.networks import MissingWeights


@pytest.fixture
def network():
    torch.manual_seed(0)
    return Lpips()


def pictures(seed):
    return torch.rand(3, 3, 96, 80, generator=torch.Generator().manual_seed(seed))


def test_it_equals_that_of_torchmetrics_on_the_same_backbone(network, monkeypatch):
    monkeypatch.setattr(theirs, "_get_tv_model_features", lambda net, pretrained: network.features)
    reference = theirs._LPIPS(net="alex")
    wanted = reference(pictures(1), pictures(2), normalize=True).flatten()
    assert wanted.std() > 0
    torch.testing.assert_close(network(pictures(1), pictures(2)), wanted, rtol=1e-5, atol=1e-7)


def test_equal_pictures_have_no_distance_and_each_picture_has_its_own(network):
    assert network(pictures(1), pictures(1)).abs().max() == 0
    together = network(pictures(1), pictures(2))
    torch.testing.assert_close(network(pictures(1)[1:2], pictures(2)[1:2]), together[1:2])


def test_torchvisions_file_is_read_and_its_classifier_left(network, tmp_path):
    state = network.state_dict() | {"classifier.1.weight": torch.zeros(2, 2)}
    assert set(network.state_dict()) == {
        f"features.{i}.{kind}" for i in (0, 3, 6, 8, 10) for kind in ("weight", "bias")
    }
    torch.save(state, tmp_path / "alexnet.pth")
    loaded = Lpips.load(str(tmp_path / "alexnet.pth"))
    assert loaded(pictures(1), pictures(2)).equal(network(pictures(1), pictures(2)))


def test_weights_that_are_missing_or_of_another_network_are_told_in_one_sentence(tmp_path):
    with pytest.raises(MissingWeights, match=r"were not given; fetch alexnet-owt-7be5be79.pth"):
        Lpips.load(None)
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "other.pth")
    with pytest.raises(
        CheckpointError, match=r"weights of another network than torchvision's AlexNet: bias does not fit"
    ):
        Lpips.load(str(tmp_path / "other.pth"))
