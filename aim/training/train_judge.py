"""``python -m aim train judge``: images to a classifier for evaluation, which shares neither design
nor seed with the loss network.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from aim.errors import InvalidInput
from aim.training.classifier import ResNet, fit_classifier
from aim.training.data.images import ImageSet
from aim.training.parallel import Processes
from aim.training.recipe import ClassifierRecipe, overrides, settle
from aim.training.train_tokenizer import read_images

JUDGE = "judge.safetensors"


def train_judge(
    images: Sequence[str],
    val: Sequence[str],
    out: Path,
    changes: Sequence[str] = (),
    *,
    size: int = 64,
    own: bool = False,
    device: torch.device | None = None,
) -> None:
    """Train on images of ``size`` pixels, ``own`` as of ``open_images``, say the top-1 on
    validation images, and write ``judge.safetensors`` into ``out``. InvalidInput for settings or
    images that do not fit.
    """
    recipe = settle(ClassifierRecipe(), overrides(changes))
    data, held = read_images(images, val, size, Processes(device=device), own=own)
    assert isinstance(data, ImageSet)
    classes = len(data.classes) or len(data.names)
    if classes < 2:
        raise InvalidInput(f"a judge tells classes apart, and the images have {classes}")
    torch.manual_seed(recipe.seed)
    fit_classifier(ResNet(classes), data, held, recipe, out / JUDGE)
