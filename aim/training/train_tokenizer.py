"""``python -m aim train tokenizer``: a config, images and perhaps a tokenizer to start from, to a
trained tokenizer in a folder.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from aim.checkpoint import load_tokenizer, save_tokenizer
from aim.checkpoint.tensors import write
from aim.config import VQ_F4, VQ_F16, VQConfig
from aim.errors import InvalidInput
from aim.models.vq.model import VQ
from aim.training.classifier import VGG, ClassifierRecipe, accuracy, read_vgg, train_classifier
from aim.training.data.images import ImageSet, StreamedImages, in_memory, load_images
from aim.training.data.sources import open_images
from aim.training.launch import Launch, Options
from aim.training.parallel import Processes
from aim.training.recipe import TokenizerRecipe, chosen, settle
from aim.training.tokenizer import TokenizerTrainer

TOKENIZER, LOSS_NETWORK = "vq.safetensors", "loss_network.safetensors"
TOKENIZERS = {"vq-f4": VQ_F4, "vq-f16": VQ_F16}
MOST_HELD = 5000  # validation images, where none are given
# images that a loss network learns from, and their side in pixels, where images are streamed
MOST_SEEN, SEEN_SIZE = 100_000, 64


class Inputs(NamedTuple):
    """What a run is made of."""

    config: str
    images: Sequence[str]
    val: Sequence[str]
    out: Path
    changes: Sequence[str] = ()
    init: Path | None = None
    loss_network: Path | None = None
    stream: bool = False


def train_tokenizer(inputs: Inputs, options: Options) -> int:
    """Train, resume, or fine-tune; the exit code as of ``Launch.train``.

    Writes ``vq.safetensors`` (the averaged weights), ``loss_network.safetensors`` where none was
    given, state.pt, log.jsonl, config.json and sheets/ into ``inputs.out``. InvalidInput for
    settings, images or files that do not fit, before the first step.
    """
    launch = Launch(options, inputs.out)
    processes = launch.processes
    name, recipe, config = read_settings(inputs)
    torch.manual_seed(recipe.seed)
    model = VQ(config) if inputs.init is None else load_tokenizer(inputs.init)
    if model.config != config:
        raise InvalidInput(
            f"{inputs.init} is another tokenizer than {name} with these settings; name its own "
            "with --config"
        )
    data, held = read_images(inputs, config.image_size, processes)
    init = None if inputs.init is None else str(inputs.init)
    launch.describe({"tokenizer": name, "init": init, **dataclasses.asdict(recipe)})
    fitted = inputs.out / LOSS_NETWORK
    if processes.first and inputs.loss_network is None and not fitted.exists():
        _fit_loss_network(data, held, recipe, processes.device, fitted)
    launch.accelerator.wait_for_everyone()
    network = read_vgg(inputs.loss_network or fitted)
    trainer = TokenizerTrainer(
        model, network, data, held, recipe, inputs.out, processes, launch.hooks(held.images)
    )

    def write() -> None:
        if processes.first:
            version = save_tokenizer(inputs.out / TOKENIZER, trainer.average, {})
            print(f"{inputs.out / TOKENIZER} {version}", flush=True)

    code = launch.train(trainer, write)
    if processes.first and isinstance(data, StreamedImages) and data.skipped:
        print(f"{len(data.skipped)} of {len(data)} images could not be read", file=sys.stderr)
    return code


def read_settings(inputs: Inputs) -> tuple[str, TokenizerRecipe, VQConfig]:
    """The tokenizer's name, the recipe, and the tokenizer's configuration, whose settings are
    written ``model.<name>``.
    """
    name, values, of_model = chosen(inputs.config, inputs.changes, "tokenizer", TOKENIZERS)
    return name, settle(TokenizerRecipe(), values), settle(TOKENIZERS[name], of_model)


def read_images(
    inputs: Inputs, size: int, processes: Processes
) -> tuple[ImageSet | StreamedImages, ImageSet]:
    """Training images, in memory or streamed, and validation images: those given, else every
    hundredth, at most 5,000.
    """
    if inputs.stream:
        source = open_images(inputs.images)
        if inputs.val:
            return StreamedImages(source, size), load_images(
                inputs.val, size, source.classes, source.names
            )
        every = _every(len(source), processes)
        return StreamedImages(source, size, every), in_memory(source, size, every)
    data = load_images(inputs.images, size)
    if inputs.val:
        return data.to(processes.device), load_images(
            inputs.val, size, data.classes, data.names
        ).to(processes.device)
    held = torch.arange(len(data)) % _every(len(data), processes) == 0
    kept, out = (
        dataclasses.replace(data, images=data.images[rows], labels=data.labels[rows])
        for rows in (~held, held)
    )
    return kept.to(processes.device), out.to(processes.device)


def _every(images: int, processes: Processes) -> int:
    """Every how manieth image is held out, where no validation images are given."""
    every = max(100, -(-images // MOST_HELD))
    if processes.first:
        print(
            f"no validation images are given: every {every}th of {images} images is held out",
            flush=True,
        )
    return every


def _fit_loss_network(
    data: ImageSet | StreamedImages,
    held: ImageSet,
    recipe: TokenizerRecipe,
    device: torch.device,
    path: Path,
) -> None:
    """Train the network of the perceptual loss to tell the classes of the images apart."""
    classes = len(held.classes) or len(held.names)
    if classes < 2:
        raise InvalidInput(
            f"a loss network learns from classes, and the images have {classes}; give a trained "
            "one with --loss-network"
        )
    seen = data
    if isinstance(seen, StreamedImages):
        seen = in_memory(seen.source, SEEN_SIZE, max(1, -(-len(seen.source) // MOST_SEEN))).to(
            device
        )
    network = VGG(classes)
    fit = ClassifierRecipe(
        seconds=recipe.loss_network_seconds,
        batch=min(ClassifierRecipe.batch, len(seen)),
        seed=recipe.seed + 1,
    )
    train_classifier(network, seen, fit)
    if held.images.shape == (len(held), *seen.images.shape[1:]):
        share = accuracy(network, held.images.to(device), held.labels.to(device))
        print(f"loss network: top-1 {share:.4f} on validation images", flush=True)
    write(path, network.state_dict(), {})
