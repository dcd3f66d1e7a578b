"""Image classifiers trained on real images: features for the tokenizer's perceptual loss, and the
judge of samples.

The two must share nothing, so they differ in kind: ``VGG`` gives features, ``ResNet`` judges.
"""

from __future__ import annotations

import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aim.checkpoint.shards import opened
from aim.checkpoint.weights import write
from aim.errors import InvalidInput
from aim.training.data.images import Batches, ImageSet, normalize, random_crops
from aim.training.loop import channels_last
from aim.training.optim import adamw, schedule, set_lr
from aim.training.recipe import ClassifierRecipe


def _conv_norm(cin: int, cout: int, stride: int = 1, kernel: int = 3) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(cin, cout, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(cout)
    )


class VGG(nn.Module):
    """Plain convolutions, whose features make a smooth perceptual loss."""

    def __init__(self, num_classes: int, widths: tuple[int, ...] = (64, 128, 256, 512)) -> None:
        super().__init__()
        pairs = zip((3, *widths), widths, strict=False)
        self.stages = nn.ModuleList(
            nn.Sequential(_conv_norm(cin, cout), nn.ReLU(), _conv_norm(cout, cout), nn.ReLU())
            for cin, cout in pairs
        )
        self.drop = nn.Dropout(0.3)
        self.head = nn.Linear(widths[-1], num_classes)

    def features(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) in [-1, 1] -> the activations behind every stage, each half the size of the
        one before.
        """
        out = []
        x = images
        for i, stage in enumerate(self.stages):
            x = stage(F.max_pool2d(x, 2) if i else x)
            out.append(x)
        return out

    def pooled(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] -> (B, F), what the classes are told by."""
        return self.features(images)[-1].mean((2, 3))

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] -> logits (B, num_classes)."""
        return self.head(self.drop(self.pooled(images)))


class _Residual(nn.Module):
    def __init__(self, cin: int, cout: int, stride: int) -> None:
        super().__init__()
        self.first, self.second = _conv_norm(cin, cout, stride), _conv_norm(cout, cout)
        self.shortcut = (
            _conv_norm(cin, cout, stride, 1) if stride > 1 or cin != cout else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.second(F.relu(self.first(x))) + self.shortcut(x))


class ResNet(nn.Module):
    """ResNet-18 for small images: a 3x3 stem, no pooling at the start, a narrower last stage."""

    def __init__(self, num_classes: int, widths: tuple[int, ...] = (64, 128, 256, 384)) -> None:
        super().__init__()
        blocks: list[nn.Module] = [_conv_norm(3, widths[0]), nn.ReLU()]
        for i, (cin, cout) in enumerate(zip((widths[0], *widths), widths, strict=False)):
            blocks += [_Residual(cin, cout, 2 if i else 1), _Residual(cout, cout, 1)]
        self.trunk = nn.Sequential(*blocks)
        self.drop = nn.Dropout(0.2)
        self.head = nn.Linear(widths[-1], num_classes)

    def pooled(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] -> (B, F), what the classes are told by."""
        return self.trunk(images).mean((2, 3))

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] -> logits (B, num_classes)."""
        return self.head(self.drop(self.pooled(images)))


Classifier = VGG | ResNet
# weights whose lengths are the widths of the stages
WIDTHS = {
    VGG: [f"stages.{i}.0.0.weight" for i in range(9)],
    ResNet: [f"trunk.{2 + 2 * i}.first.0.weight" for i in range(9)],
}


def read_classifier(path: Path) -> Classifier:
    """What ``fit_classifier`` wrote, of any widths, in eval mode. InvalidInput for another network,
    CheckpointError for a file that cannot be read.
    """
    with opened(path) as file:
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, not a dict
    kind = VGG if WIDTHS[VGG][0] in weights else ResNet
    first, *others = WIDTHS[kind]
    try:
        stages = [first, *(name for name in others if name in weights)]
        widths = tuple(len(weights[name]) for name in stages)
        network = kind(len(weights["head.weight"]), widths)
        network.load_state_dict(weights)
    except (KeyError, RuntimeError, TypeError) as error:
        brief = str(error).partition("\n")[0]
        raise InvalidInput(
            f"{path} is no loss network and no judge ({brief}); train a judge with `python -m aim "
            "train judge`; `python -m aim train tokenizer` trains a loss network where "
            "none is given"
        ) from error
    return network.eval().requires_grad_(False)


def trained_size(path: Path) -> int:
    """Pixels a side of the images that a classifier was trained on; 0 where its file does not say.
    CheckpointError for a file that cannot be read.
    """
    with opened(path) as file:
        text = (file.metadata() or {}).get("size", "")
    return int(text) if text.isascii() and text.isdigit() else 0


def train_classifier(model: nn.Module, data: ImageSet, recipe: ClassifierRecipe) -> nn.Module:
    """Train by the clock on random crops and flips; ``data`` on the device of ``model``. Returns
    the model in eval mode.
    """
    device = data.images.device
    channels_last(model, device).train()
    optimizer = adamw(model, recipe.lr, recipe.weight_decay, (0.9, 0.99))
    batches = Batches(len(data), recipe.batch, recipe.seed)
    generator = torch.Generator(device).manual_seed(recipe.seed)
    start = time.monotonic()
    while (progress := (time.monotonic() - start) / recipe.seconds) < 1:
        set_lr(optimizer, schedule("cosine", progress, 0.05))
        pick = next(batches).to(device)
        images = random_crops(data.images[pick], recipe.min_scale, generator).contiguous(
            memory_format=torch.channels_last
        )
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            logits = model(images)
        loss = F.cross_entropy(
            logits.float(), data.labels[pick], label_smoothing=recipe.label_smoothing
        )
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if batches.step % 100 == 0:
            print(
                f"classifier step {batches.step} loss {loss.item():.3f} epochs "
                f"{batches.step * recipe.batch / len(data):.1f}",
                flush=True,
            )
    return model.eval().requires_grad_(False)


def fit_classifier(
    network: Classifier, data: ImageSet, held: ImageSet, recipe: ClassifierRecipe, path: Path
) -> None:
    """Train ``network`` on ``data``, say how it does on ``held``, and write it to ``path``."""
    train_classifier(network, data, recipe)
    if held.images.shape[1:] == data.images.shape[1:]:
        device = data.images.device
        share = accuracy(network, held.images.to(device), held.labels.to(device))
        print(f"{path.stem}: top-1 {share:.4f} on validation images", flush=True)
    write(path, network.state_dict(), {"size": str(data.images.shape[-1])})


@torch.no_grad()
def predict(model: nn.Module, images: Tensor, batch: int = 500) -> Tensor:
    """Most likely class rows (N,) of images (N, 3, S, S), uint8 or float in [-1, 1]."""
    parts = [part if part.is_floating_point() else normalize(part) for part in images.split(batch)]
    return torch.cat([model(part).argmax(1) for part in parts])


def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Top-1: the fraction of images (N, 3, S, S) whose most likely class is their label (N,)."""
    return (predict(model, images) == labels).float().mean().item()
