"""What the networks behind the figures see, and what is said where one cannot be had."""

from __future__ import annotations

import importlib.util
import pickle
import sys
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.error import URLError

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from aim.errors import AimError, CheckpointError, InvalidInput
from aim.evaluation.features import (
    ClassifierFeatures,
    InceptionFeatures,
    load_features,
)
from aim.evaluation.observe import Seen, observe
from aim.training.classifier import ResNet
from aim.training.data.images import normalize


def images(count: int, size: int = 16, seed: int = 0) -> Tensor:
    return torch.randint(
        0,
        256,
        (count, 3, size, size),
        generator=torch.Generator().manual_seed(seed),
        dtype=torch.uint8,
    )


@pytest.fixture
def judge(tmp_path: Path) -> tuple[ResNet, Path]:
    torch.manual_seed(3)
    network = ResNet(5, (4, 6, 8, 10)).eval()
    path = tmp_path / "judge.safetensors"
    save_file(network.state_dict(), path)
    return network, path


class TestJudge:
    def test_is_the_network_in_the_file(self, judge: tuple[ResNet, Path]) -> None:
        network, path = judge
        seen = load_features(str(path))(images(7))
        assert seen.features.shape == (7, 10)
        assert seen.spatial is None
        with torch.no_grad():
            assert torch.allclose(seen.probabilities, network(normalize(images(7))).softmax(1))
            assert torch.allclose(network.head(seen.features).softmax(1), seen.probabilities)

    def test_sees_larger_images_reduced_to_the_size_it_was_trained_on(
        self, judge: tuple[ResNet, Path], tmp_path: Path
    ) -> None:
        network, _ = judge
        path = tmp_path / "trained.safetensors"
        save_file(network.state_dict(), path, {"size": "16"})
        features = load_features(str(path))
        assert features.side == 16
        small = images(5)
        large = small.repeat_interleave(2, 2).repeat_interleave(2, 3)
        for shown in (small, large):
            assert torch.equal(features(shown).features, network.pooled(normalize(small)))
        assert load_features(str(judge[1])).side == 0  # an older file does not say

    def test_its_name_changes_with_its_weights(self, judge: tuple[ResNet, Path]) -> None:
        network, path = judge
        before = ClassifierFeatures.load(path).name
        assert before == ClassifierFeatures.load(path).name
        save_file({name: tensor + 1 for name, tensor in network.state_dict().items()}, path)
        assert ClassifierFeatures.load(path).name != before

    def test_another_network(self, tmp_path: Path) -> None:
        path = tmp_path / "other.safetensors"
        save_file({"head.weight": torch.zeros(5, 10)}, path)
        with pytest.raises(
            InvalidInput,
            match=r"other.safetensors is no loss network and no judge .*aim train judge`",
        ):
            ClassifierFeatures.load(path)

    def test_no_file(self, tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match="there is no file"):
            load_features(str(tmp_path / "absent.safetensors"))


def test_an_unknown_network_is_named() -> None:
    with pytest.raises(
        InvalidInput,
        match=r"features is 'resnet'; it must be inception, mobilenet-v2, "
        r"efficientnet-lite0 or the .safetensors file of a judge",
    ):
        load_features("resnet")


def test_weights_of_inception_go_with_inception(judge: tuple[ResNet, Path]) -> None:
    with pytest.raises(InvalidInput, match=r"--inception w.pth goes with --features inception"):
        load_features(str(judge[1]), "cpu", Path("w.pth"))


class TestObserve:
    def test_sees_every_image_in_order(self) -> None:
        def brightness(batch: Tensor) -> Seen:
            means = batch.float().mean((2, 3))
            return Seen(means, means.softmax(1), batch[:, :, 0, :2].float().flatten(1))

        all_images = images(11)
        found = observe(brightness, all_images.split(4))  # type: ignore[arg-type]
        wanted = brightness(all_images)
        assert torch.equal(found.features, wanted.features)
        assert found.probabilities is not None
        assert torch.equal(found.probabilities, wanted.probabilities)
        assert torch.allclose(found.statistics.covariance, wanted.features.double().T.cov())
        assert found.spatial is not None
        assert torch.allclose(found.spatial.mean, wanted.spatial.double().mean(0))

    def test_one_image_has_no_statistics(self) -> None:
        def plain(batch: Tensor) -> Seen:
            return Seen(batch.float().flatten(1))

        seen = observe(plain, [images(1)])  # type: ignore[arg-type]
        assert seen.statistics is None and len(seen.features) == 1
        with pytest.raises(InvalidInput, match="there is no image to look at"):
            observe(plain, [])  # type: ignore[arg-type]


class FakeInception(nn.Module):
    """torch-fidelity's extractor from outside: names, arguments and results."""

    fails: Exception | None = None

    def __init__(
        self, name: str, features_list: list[str], feature_extractor_weights_path: str | None = None
    ) -> None:
        super().__init__()
        assert features_list == ["2048", "logits_unbiased"]
        if self.fails is not None:
            raise self.fails
        self.Mixed_6d = nn.Module()
        self.Mixed_6d.branch1x1 = nn.Conv2d(3, 192, 1)
        self.fc = nn.Linear(12, 9)
        if feature_extractor_weights_path is not None:
            self.load_state_dict(torch.load(feature_extractor_weights_path, weights_only=True))

    def forward(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        assert batch.dtype == torch.uint8
        hidden = self.Mixed_6d.branch1x1(batch.float() / 255)
        pooled = hidden.mean((2, 3))[:, :12]
        return pooled, pooled @ self.fc.weight.T


@pytest.fixture
def fidelity(monkeypatch: pytest.MonkeyPatch) -> type[FakeInception]:
    module: Any = ModuleType("torch_fidelity.feature_extractor_inceptionv3")
    module.FeatureExtractorInceptionV3, module.URL_INCEPTION_V3 = (
        FakeInception,
        "https://example.org/weights.pth",
    )
    monkeypatch.setitem(sys.modules, "torch_fidelity", ModuleType("torch_fidelity"))
    monkeypatch.setitem(sys.modules, "torch_fidelity.feature_extractor_inceptionv3", module)
    monkeypatch.setattr(FakeInception, "fails", None)
    return FakeInception


class TestInception:
    def test_features_probabilities_and_space(self, fidelity: type[FakeInception]) -> None:
        torch.manual_seed(0)
        features = load_features("inception")
        assert isinstance(features, InceptionFeatures)
        assert features.name == "inception"
        network, batch = features._network, images(3, 5)
        with torch.no_grad():
            seen, layer = features(batch), network.Mixed_6d.branch1x1(batch.float() / 255)
            assert torch.allclose(seen.features, layer.mean((2, 3))[:, :12])
            assert torch.allclose(
                seen.probabilities, (seen.features @ network.fc.weight.T).softmax(1)
            )
        wanted = torch.stack(
            [layer[:, c, y, x] for y in range(5) for x in range(5) for c in range(7)], 1
        )
        assert torch.equal(seen.spatial, wanted)  # ADM's order, so that its statistics fit

    def test_weights_from_a_file(self, fidelity: type[FakeInception], tmp_path: Path) -> None:
        torch.manual_seed(1)
        network = FakeInception("", ["2048", "logits_unbiased"])
        torch.save(network.state_dict(), tmp_path / "w.pth")
        features = InceptionFeatures.load(weights=tmp_path / "w.pth")
        assert torch.equal(features._network.fc.weight, network.fc.weight)
        assert features.name.startswith("inception-")

    def test_a_file_of_something_else(self, fidelity: type[FakeInception], tmp_path: Path) -> None:
        torch.save({"a": torch.zeros(1)}, tmp_path / "w.pth")
        with pytest.raises(
            InvalidInput, match=r"w.pth does not hold torch-fidelity's Inception weights"
        ):
            InceptionFeatures.load(weights=tmp_path / "w.pth")

    def test_code_in_a_file_is_not_run(self, fidelity: type[FakeInception], tmp_path: Path) -> None:
        class Trap:
            def __reduce__(self) -> tuple[Any, ...]:
                return Path.touch, (tmp_path / "sprung",)

        (tmp_path / "w.pth").write_bytes(pickle.dumps(Trap(), protocol=2))
        with pytest.raises(InvalidInput, match="cannot be read as a PyTorch file of tensors"):
            InceptionFeatures.load(weights=tmp_path / "w.pth")
        assert not (tmp_path / "sprung").exists()

    def test_no_network(
        self, fidelity: type[FakeInception], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(FakeInception, "fails", URLError("no route"))
        with pytest.raises(
            AimError,
            match=r"no route.*download https://example.org/weights.pth by "
            r"hand.*--inception, or take other features",
        ):
            load_features("inception")

    def test_no_torch_fidelity(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "torch_fidelity", None)
        with pytest.raises(
            AimError,
            match=r"Inception features need torch-fidelity .*pip install torch-fidelity, "
            r"or take other features: --features",
        ):
            load_features("inception")

    @pytest.mark.skipif(
        importlib.util.find_spec("torch_fidelity") is None, reason="torch-fidelity is not installed"
    )
    def test_of_torch_fidelity_itself(self, tmp_path: Path) -> None:
        module = importlib.import_module("torch_fidelity.feature_extractor_inceptionv3")
        blank: Any = type(
            "Blank",
            (module.FeatureExtractorInceptionV3,),
            {"load_state_dict": lambda self, state: None},
        )
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "load_state_dict_from_url", lambda *_, **__: {})
            torch.save(blank("blank", ["2048"]).state_dict(), tmp_path / "w.pth")
        seen = InceptionFeatures.load(weights=tmp_path / "w.pth")(images(2))
        assert (seen.features.shape, seen.probabilities.shape, seen.spatial.shape) == (
            (2, 2048),
            (2, 1008),
            (2, 7 * 17 * 17),
        )
