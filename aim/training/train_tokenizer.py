"""``python -m aim train tokenizer``: a config, images and perhaps a tokenizer to start from, to a
trained tokenizer in a folder.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F

from aim.checkpoint import load_tokenizer_of, save_tokenizer, stored_dtype
from aim.checkpoint.shards import opened
from aim.checkpoint.weights import content_hash, fingerprint
from aim.config import VQ_F4, VQ_F16, VQ_S, VQConfig
from aim.errors import InvalidInput
from aim.models.vq.model import VQ
from aim.training.classifier import VGG, ResNet, fit_classifier, read_classifier
from aim.training.data.images import (
    ImageSet,
    StreamedImages,
    in_memory,
    load_pixels,
)
from aim.training.data.sources import open_images
from aim.training.finetune import grown
from aim.training.identity import Identity
from aim.training.keep import record
from aim.training.launch import Launch, Options
from aim.training.losses import LossNetwork
from aim.training.parallel import Processes
from aim.training.perceptual import LPIPS, PACKAGED, load_lpips
from aim.training.recipe import ClassifierRecipe, TokenizerRecipe, chosen, pairs, settle
from aim.training.tokenizer import TokenizerTrainer

TOKENIZER, LOSS_NETWORK = "vq.safetensors", "loss_network.safetensors"
TOKENIZERS = {"vq-s": VQ_S, "vq-f4": VQ_F4, "vq-f16": VQ_F16}
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
    init: str | Path | None = None  # a file, or a model whose it is
    loss_network: str | Path | None = None  # a file, or a name of PACKAGED
    stream: bool = False
    about: Sequence[str] = ()  # name=text, for the metadata of what is written
    storage: str = "bfloat16"  # of its matrices
    fine: Sequence[str] = ()  # images as large as what comes out, of any classes
    own: bool = False  # numbers in tar shards are no ImageNet classes


def train_tokenizer(inputs: Inputs, options: Options) -> int:
    """Train, resume, or fine-tune; the exit code as of ``Launch.train``.

    Writes ``vq.safetensors`` (the averaged weights), ``loss_network.safetensors`` where none was
    given, state.pt, log.jsonl, config.json and sheets/ into ``inputs.out``. InvalidInput for
    settings, images or files that do not fit, before the first step.
    """
    name, recipe, config = read_settings(inputs)
    about, dtype = pairs(inputs.about), stored_dtype(inputs.storage)
    torch.manual_seed(recipe.seed)
    init = None if inputs.init is None else load_tokenizer_of(inputs.init).requires_grad_(True)
    began = "" if init is None else content_hash(init.state_dict(), "")
    model = VQ(config) if init is None else grown(init, config)
    with Launch(options, inputs.out) as launch:
        processes, fitted = launch.processes, inputs.out / LOSS_NETWORK
        # only a network that is trained for the perceptual loss looks at classes
        labels = inputs.loss_network is None
        data, held = read_images(
            inputs.images, inputs.val, config.image_size, processes, inputs.stream, inputs.own,
            labels,
        )  # fmt: skip
        fine = load_pixels(inputs.fine, config.output_size) if inputs.fine else None
        identity = Identity.of(
            recipe,
            config,
            data=f"{len(data)} images, {data.origin}",
            fine=f"{len(fine)} images, {fine.origin}" if fine else None,
            init=began,
            loss_network=_identified(inputs.loss_network),
        )._replace(network=record(config, about))
        launch.describe({"tokenizer": name, **_named(inputs)}, identity)
        if processes.first and inputs.loss_network is None and not fitted.exists():
            _fit_loss_network(data, held, recipe, processes.device, fitted)
        launch.accelerator.wait_for_everyone()
        network = read_loss_network(inputs.loss_network or fitted)
        trainer = TokenizerTrainer(
            model, network, data, held, recipe, inputs.out, processes, launch.hooks(held.images),
            fine and fine.to(processes.device), identity,
        )  # fmt: skip

        def write(path: Path, metadata: Mapping[str, str]) -> str:
            if not processes.first:
                return ""
            return save_tokenizer(path, trainer.average, {**about, **metadata}, dtype)

        code = launch.train(trainer, TOKENIZER, write)
    if processes.first and isinstance(data, StreamedImages) and data.skipped:
        print(f"{len(data.skipped)} of {len(data)} images could not be read", file=sys.stderr)
    return code


def _named(inputs: Inputs) -> dict[str, Any]:
    _, _, of_model = chosen(inputs.config, inputs.changes, "tokenizer", TOKENIZERS)
    return {f"model.{name}": value for name, value in of_model.items()}


def read_settings(inputs: Inputs) -> tuple[str, TokenizerRecipe, VQConfig]:
    """The tokenizer's name, the recipe, and the tokenizer's configuration, whose settings are
    written ``model.<name>``.
    """
    name, values, of_model = chosen(inputs.config, inputs.changes, "tokenizer", TOKENIZERS)
    return name, settle(TokenizerRecipe(), values), settle(TOKENIZERS[name], of_model)


def read_images(
    images: Sequence[str],
    val: Sequence[str],
    size: int,
    processes: Processes,
    stream: bool = False,
    own: bool = False,
    labels: bool = True,
) -> tuple[ImageSet | StreamedImages, ImageSet]:
    """Training images, in memory or streamed, and validation images: those given, else every
    hundredth, at most 5,000. ``own`` and ``labels`` as of ``open_images``.
    """
    source = open_images(images, own, labels=labels)
    given = None
    if val:
        found = open_images(val, own, source.classes, source.names, labels)
        given = in_memory(found, size)
    if stream:
        every = 0 if given else _every(len(source), processes)
        return StreamedImages(source, size, every), given or in_memory(source, size, every)
    data = in_memory(source, size)
    held = given
    if held is None:
        out = torch.arange(len(data)) % _every(len(data), processes) == 0
        data, held = (
            dataclasses.replace(data, images=data.images[rows], labels=data.labels[rows])
            for rows in (~out, out)
        )
    return data.to(processes.device), held.to(processes.device)


def _identified(loss_network: str | Path | None) -> str:
    if loss_network is None:
        return "its own"
    return str(loss_network) if str(loss_network) in PACKAGED else fingerprint(Path(loss_network))


def read_loss_network(name: str | Path) -> LossNetwork:
    """One of ``PACKAGED``; else LPIPS by SqueezeNet or a VGG that a run has trained, whichever the
    file holds. InvalidInput for another file.
    """
    if str(name) in PACKAGED:
        return load_lpips(name)
    path = Path(name)
    with opened(path) as file:
        weighted = "lin0.weight" in file.keys()  # noqa: SIM118, not a dict
    network = LPIPS.load(path) if weighted else read_classifier(path)
    if isinstance(network, ResNet):
        raise InvalidInput(f"{path} is a judge, not a loss network; leave it out")
    return network


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
    if isinstance(data, StreamedImages):
        every = max(1, -(-len(data.source) // MOST_SEEN))
        seen = in_memory(data.source, SEEN_SIZE, every).to(device)
    else:
        seen = _lessened(data)
    fit = ClassifierRecipe(
        seconds=recipe.loss_network_seconds,
        batch=min(ClassifierRecipe.batch, len(seen)),
        seed=recipe.seed + 1,
    )
    fit_classifier(VGG(classes), seen, _lessened(held), fit, path)


def _lessened(data: ImageSet) -> ImageSet:
    """Images of twice SEEN_SIZE and more reduced by area by a whole factor: the classes can be told
    by less, and a large batch of them would not fit.
    """
    factor = data.images.shape[-1] // SEEN_SIZE
    if factor < 2:
        return data
    parts = [F.avg_pool2d(part.float(), factor).round() for part in data.images.split(1000)]
    return dataclasses.replace(data, images=torch.cat(parts).to(torch.uint8))
