"""The bundled models from images to files: loss network, tokenizer, codes, priors. ``python -m
aim.training.bundled --help``.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated, Any, TypeVar, cast

import torch
import typer
from safetensors.torch import load_file

from aim.checkpoint import load_model, load_tokenizer, save_model, save_tokenizer
from aim.checkpoint.tensors import read_metadata, write
from aim.config import MODELS, SAMPLING, SamplingParams
from aim.errors import InvalidInput
from aim.models.prior import build
from aim.models.vq.model import VQ
from aim.parameters import named
from aim.training.classifier import VGG, ClassifierRecipe, ResNet, accuracy, train_classifier
from aim.training.data.codes import CodeSet, tokenize
from aim.training.data.images import ImageSet, load_images, normalize
from aim.training.prior import PriorTrainer
from aim.training.recipe import PriorRecipe, Scan, TokenizerRecipe
from aim.training.tokenizer import TokenizerTrainer, psnr, reconstruct

LOSS_NETWORK_SEED, JUDGE_SEED = 1, 2
LOSS_NETWORK, JUDGE = "loss_network.safetensors", "judge.safetensors"
PRIORS = ("aim-s", "gpt-s")
Classifier = TypeVar("Classifier", VGG, ResNet)

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="Train the bundled models, stage by stage; tokenizer and priors resume.",
)

Data = Annotated[
    list[Path],
    typer.Option("--data", help="Training images: folders or zip files of <wnid>/<name>.JPEG."),
]
Val = Annotated[list[Path], typer.Option("--val", help="Validation images, the same way.")]
Out = Annotated[Path, typer.Option("--out", help="Folder for everything that is made.")]
Seconds = Annotated[
    float,
    typer.Option(
        "--seconds", min=0.1, help="Training time, that of a run which is resumed included."
    ),
]
Batch = Annotated[int, typer.Option("--batch", min=1, help="Images a step.")]


@app.callback()
def setup() -> None:
    """PyTorch's settings for all of this."""
    torch.backends.cudnn.benchmark = True  # every shape here comes thousands of times
    torch.backends.cudnn.allow_tf32 = False  # float32 means float32


def device() -> torch.device:
    """The GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def read_images(data: list[Path], val: list[Path], out: Path) -> tuple[ImageSet, ImageSet]:
    """Both image sets on the device, decoded once into ``out/images.safetensors``."""
    cache, sources = (
        out / "images.safetensors",
        json.dumps([[str(path.resolve()) for path in paths] for paths in (data, val)]),
    )
    if not cache.exists() or read_metadata(cache).get("sources") != sources:
        size = MODELS["aim-s"].tokenizer.image_size
        train = load_images(data, size)
        held = load_images(val, size, train.classes)
        sets = {"train": train, "val": held}
        tensors = {
            f"{k}.{part}": getattr(s, part)
            for k, s in sets.items()
            for part in ("images", "labels")
        }
        write(cache, tensors | {"classes": torch.tensor(train.classes)}, {"sources": sources})
    t = load_file(cache, device=str(device()))
    classes = tuple(t["classes"].tolist())
    train, held = (ImageSet(t[f"{k}.images"], t[f"{k}.labels"], classes) for k in ("train", "val"))
    print(
        f"{len(train)} training and {len(held)} validation images of {len(classes)} classes",
        flush=True,
    )
    return train, held


def fit_classifier(
    kind: type[Classifier],
    seed: int,
    data: tuple[ImageSet, ImageSet],
    path: Path,
    seconds: float,
    batch: int,
) -> None:
    """Train a classifier on the first set of images, say how it does on the second, and write it to
    ``path``.
    """
    train, held = data
    torch.manual_seed(seed)
    network = kind(len(train.classes))
    train_classifier(network, train, ClassifierRecipe(seconds=seconds, batch=batch, seed=seed))
    print(
        f"{path.stem}: top-1 {accuracy(network, held.images, held.labels):.4f} on validation "
        "images",
        flush=True,
    )
    write(path, network.state_dict(), {})


def read_classifier(kind: type[Classifier], path: Path, num_classes: int) -> Classifier:
    """What ``fit_classifier`` wrote, in eval mode on the device."""
    network = kind(num_classes)
    network.load_state_dict(load_file(path))
    return network.to(device()).eval().requires_grad_(False)


@app.command()
def loss_network(
    data: Data, val: Val, out: Out, seconds: Seconds = 60, batch: Batch = ClassifierRecipe.batch
) -> None:
    """A VGG on the training images: features for the tokenizer's perceptual loss."""
    fit_classifier(
        VGG, LOSS_NETWORK_SEED, read_images(data, val, out), out / LOSS_NETWORK, seconds, batch
    )


@app.command()
def tokenizer(data: Data, val: Val, out: Out, seconds: Seconds = TokenizerRecipe.seconds,
              batch: Batch = TokenizerRecipe.batch,
              compile: bool = True, lr: float = TokenizerRecipe.lr,
              adversarial_start: float = TokenizerRecipe.adversarial_start,
              init: Annotated[Path | None, typer.Option(help="Start from this tokenizer.")] = None,
              decoder_only: Annotated[bool, typer.Option("--decoder-only",
                                                         help="Codes keep their meaning.")] = False) -> None:  # fmt: skip
    """Stage 1."""
    train, held = read_images(data, val, out)
    torch.manual_seed(0)
    recipe = TokenizerRecipe(
        seconds=seconds,
        batch=batch,
        compile=compile,
        lr=lr,
        adversarial_start=adversarial_start,
        decoder_only=decoder_only,
    )
    start = VQ(MODELS["aim-s"].tokenizer) if init is None else load_tokenizer(init)
    network = read_classifier(VGG, out / LOSS_NETWORK, len(train.classes))
    model = TokenizerTrainer(start, network, train, held, recipe, out / "tokenizer").run()
    model = model.to_dtype(torch.bfloat16).to_dtype(torch.float32)  # as it is stored
    codes = torch.cat([model.encode(normalize(part)) for part in held.images.split(500)])
    share = (
        torch.bincount(codes.flatten(), minlength=model.config.codebook_size).double()
        / codes.numel()
    )
    perplexity = torch.exp(-(share * share.clamp(min=1e-12).log()).sum()).item()
    used = (share > 0).double().mean().item()
    print(
        f"tokenizer: PSNR {psnr(reconstruct(model, held.images), held.images):.3f} dB, codes used "
        f"{used:.4f}, perplexity {perplexity:.1f}",
        flush=True,
    )
    write(out / "vq.safetensors", model.state_dict(), {})


def read_tokenizer(out: Path) -> VQ:
    """The tokenizer, in eval mode on the device."""
    model = VQ(MODELS["aim-s"].tokenizer)
    model.load_state_dict(load_file(out / "vq.safetensors"))
    return model.to(device()).eval().requires_grad_(False)


@app.command()
def codes(
    data: Data,
    val: Val,
    out: Out,
    versions: Annotated[int, typer.Option(min=1, help="See ``CodeSet``.")] = 8,
) -> None:
    """Images to codes."""
    train, held = read_images(data, val, out)
    model = read_tokenizer(out)
    tokenize(model, train, versions).save(out / "codes.safetensors")
    tokenize(model, held, 1).save(out / "codes_val.safetensors")


@app.command()
def prior(out: Out, model: Annotated[str, typer.Option(help="aim-s or gpt-s.")] = PRIORS[0],
          seconds: Seconds = PriorRecipe.seconds,
          batch: Batch = PriorRecipe.batch, lr: float = PriorRecipe.lr,
          dropout: Annotated[float, typer.Option(min=0, max=0.9,
                                                 help="Of tokens and of what each part of a layer adds.")] = 0.1,
          compile: bool = True, scan: Annotated[str,
                                                typer.Option(help="Of aim-s: auto, torch or mamba-ssm.")] = PriorRecipe.scan,
          init: Annotated[str | None,
          typer.Option(help="Start from this model, whatever aim.load takes.")] = None) -> None:  # fmt: skip
    """Stage 2."""
    if model not in PRIORS:
        raise InvalidInput(f"model is {model!r}; it must be one of {', '.join(PRIORS)}")
    train, held = (
        CodeSet.load(out / f"{name}.safetensors", device()) for name in ("codes", "codes_val")
    )
    torch.manual_seed(0)
    config = MODELS[model].config
    drops: dict[str, Any] = {
        field.name: dropout for field in dataclasses.fields(config) if field.name.endswith("_drop")
    }
    config = dataclasses.replace(
        config,
        num_classes=len(train.classes),
        classes=train.classes,
        sampling=SamplingParams(),
        **drops,
    )
    recipe = PriorRecipe(
        seconds=seconds, batch=batch, lr=lr, compile=compile, scan=cast(Scan, scan)
    )
    network = build(config)
    if init is not None:
        network.load_state_dict(load_model(init).model.state_dict())
    trainer = PriorTrainer(network, train, held, recipe, out / model)
    trained = trainer.run().to_dtype(torch.bfloat16).to_dtype(torch.float32)  # as it is stored
    print(f"{model}: validation {trainer.validate()['val']:.4f} nats a code", flush=True)
    write(
        out / f"{model}.safetensors", trained.state_dict(), {"classes": json.dumps(train.classes)}
    )


@app.command()
@named(SAMPLING)
def pack(
    out: Out, to: Annotated[Path, typer.Option(help="Folder for the checkpoints.")], **sampling: Any
) -> None:
    """Write the tokenizer and every prior that is trained, with the sampling settings that the page
    starts with.
    """
    params = SamplingParams().replace(**sampling)
    to.mkdir(parents=True, exist_ok=True)
    about = {
        "data": "Tiny ImageNet, 202 classes",
        "license": "research only, non-commercial (ImageNet)",
    }
    save_tokenizer(to / "vq-f4.safetensors", read_tokenizer(out), about)
    for name in PRIORS:
        path = out / f"{name}.safetensors"
        if path.exists():
            classes = tuple(json.loads(read_metadata(path)["classes"]))
            model = build(
                dataclasses.replace(
                    MODELS[name].config, num_classes=len(classes), classes=classes, sampling=params
                )
            )
            model.load_state_dict(load_file(path))
            version = save_model(to / path.name, model, {**about, "tokenizer": "vq-f4.safetensors"})
            print(f"{name} {version} in {to}", flush=True)


if __name__ == "__main__":
    app()
