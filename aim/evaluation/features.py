"""Networks that see images for the figures: Inception, as published figures use it, classifiers of
ImageNet from packages, or a judge of one's own.
"""

from __future__ import annotations

import importlib
import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from aim.checkpoint.weights import fingerprint
from aim.errors import AimError, InvalidInput
from aim.evaluation.imagenet import NETWORKS, lessened, load_imagenet
from aim.evaluation.observe import Features, Seen
from aim.training.classifier import Classifier, ResNet, read_classifier, trained_size
from aim.training.data.images import normalize

INCEPTION = "inception"
SPATIAL_CHANNELS = 7  # of the layer that sFID reads


class ClassifierFeatures:
    """A classifier's pooled features and its classes: a judge's (``python -m aim train judge``), or
    a loss network's. It has no spatial features. Larger images are reduced by area to ``side``, the
    size of those that it was trained on; with 0 they are seen as they are.
    """

    def __init__(self, network: Classifier, name: str, side: int = 0) -> None:
        self._network = network.eval().requires_grad_(False)
        self.name, self.classes, self.side = name, network.head.out_features, side

    @classmethod
    def load(cls, path: Path, device: torch.device | str = "cpu") -> ClassifierFeatures:
        """From a safetensors file; errors as of ``read_classifier``."""
        network = read_classifier(path)
        kind = "judge" if isinstance(network, ResNet) else "loss-network"
        return cls(network.to(device), f"{kind}-{fingerprint(path)}", trained_size(path))

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Seen:
        """Of images (B, 3, H, W) uint8."""
        head = self._network.head
        images = images.to(head.weight.device)
        if self.side:
            images = lessened(images, self.side).to(torch.uint8)
        pooled = self._network.pooled(normalize(images))
        return Seen(pooled, head(pooled).softmax(1))


class InceptionFeatures:
    """Inception-v3 with the weights of 2015, as in ADM's evaluator and with its resizing, by
    torch-fidelity.

    Features are the 2,048 pooled ones, probabilities the softmax over 1,008 classes of the logits
    without bias. Spatial features are the first 7 channels of the layer that ADM calls
    mixed_6/conv, 17x17, the channel last: 2,023 numbers. torch-fidelity does not offer them; they
    are taken where they arise, in the first branch of ``Mixed_6d``.
    """

    classes, side = 1008, 0

    def __init__(self, network: Any, name: str = INCEPTION) -> None:
        self._network = network.eval().requires_grad_(False)
        self.name = name
        self._spatial = torch.empty(0)
        network.Mixed_6d.branch1x1.register_forward_hook(self._keep)

    @classmethod
    def load(
        cls, device: torch.device | str = "cpu", weights: Path | None = None
    ) -> InceptionFeatures:
        """With weights from a file, else with those that torch-fidelity fetches once and keeps.

        AimError where torch-fidelity does not import or its weights cannot be had, InvalidInput for
        a file that does not hold them.
        """
        otherwise = "or take other features: --features mobilenet-v2, or a judge's .safetensors"
        try:
            # not an import statement: it is optional, and brings torchvision
            module = importlib.import_module("torch_fidelity.feature_extractor_inceptionv3")
        except (ImportError, AttributeError, RuntimeError, OSError) as error:
            raise AimError(
                f"Inception features need torch-fidelity ({error}): pip install torch-fidelity, "
                f"{otherwise}"
            ) from error
        name = INCEPTION
        if weights is not None:
            _check_weights(weights)
            name = f"{INCEPTION}-{fingerprint(weights)}"
        try:
            network = module.FeatureExtractorInceptionV3(
                INCEPTION,
                ["2048", "logits_unbiased"],
                feature_extractor_weights_path=None if weights is None else str(weights),
            )
        except RuntimeError as error:
            brief = str(error).partition("\n")[0]
            raise InvalidInput(
                f"{weights or 'the file fetched'} does not hold torch-fidelity's Inception weights "
                f"({brief})"
            ) from error
        except OSError as error:
            way = f"download {module.URL_INCEPTION_V3} by hand and give the file with --inception"
            raise AimError(
                f"the Inception weights cannot be fetched ({error}): {way}, {otherwise}"
            ) from error
        return cls(network.to(device), name)

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Seen:
        """Of images (B, 3, H, W) uint8, which it scales to 299x299."""
        pooled, logits = self._network(images.to(self._network.fc.weight.device))
        spatial = self._spatial[:, :SPATIAL_CHANNELS].permute(0, 2, 3, 1).flatten(1).float()
        return Seen(pooled, logits.softmax(1), spatial)

    def _keep(self, _module: Any, _inputs: Any, output: Tensor) -> None:
        self._spatial = output


def _check_weights(path: Path) -> None:
    """InvalidInput unless the file can be read as tensors; torch-fidelity would run whatever code
    is in it.
    """
    try:
        torch.load(path, map_location="meta", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, ValueError, KeyError) as error:
        brief = str(error).partition("\n")[0]
        raise InvalidInput(
            f"{path} cannot be read as a PyTorch file of tensors ({brief}); give torch-fidelity's "
            "Inception weights"
        ) from error


def load_features(
    source: str, device: torch.device | str = "cpu", weights: Path | None = None
) -> Features:
    """The network called ``source``: "inception", with its weights from a file if given, one of
    ``imagenet.NETWORKS``, or a judge's .safetensors file.

    Errors as of ``InceptionFeatures.load``, ``load_imagenet`` and ``read_classifier``; InvalidInput
    for anything else.
    """
    if source == INCEPTION:
        return InceptionFeatures.load(device, weights)
    if weights is not None:
        raise InvalidInput(
            f"--inception {weights} goes with --features inception, and features is {source!r}"
        )
    if source in NETWORKS:
        return load_imagenet(source, device)
    if source.endswith(".safetensors"):
        return ClassifierFeatures.load(Path(source), device)
    raise InvalidInput(
        f"features is {source!r}; it must be {INCEPTION}, {', '.join(NETWORKS)} or the "
        ".safetensors file of a judge"
    )
