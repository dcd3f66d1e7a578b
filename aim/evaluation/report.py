"""Figures of the bundled model: train a judge, sweep sampling settings, report. ``python -m
aim.evaluation.report --help``.

Settings are chosen by the tokenizer's loss network; the judge, which shares no weights, seed or
design with it, only reports on the chosen one.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import time
from pathlib import Path
from typing import Annotated

import typer

from aim import imagenet
from aim.checkpoint import load_model
from aim.config import NEUTRAL, SAMPLING
from aim.device import pick_dtype
from aim.errors import AimError, InvalidInput
from aim.evaluation.judge import asked_class_rate, balanced_rows, sample_images
from aim.images.write import contact_sheet, to_image
from aim.models.prior import Prior
from aim.models.vq.model import VQ
from aim.parameters import named
from aim.training.bundled import (
    JUDGE,
    JUDGE_SEED,
    LOSS_NETWORK,
    PRIORS,
    Batch,
    Data,
    Out,
    Seconds,
    Val,
    device,
    fit_classifier,
    read_classifier,
    read_images,
    setup,
)
from aim.training.classifier import VGG, ClassifierRecipe, ResNet, accuracy
from aim.training.data.images import load_images
from aim.training.tokenizer import psnr, reconstruct

Model = Annotated[str, typer.Option(help="Whatever `aim.load` takes.")]
AtOnce = Annotated[int, typer.Option("--batch", min=1, help="Requests at once.")]

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Judge the bundled model.")
app.callback()(setup)

SHEET_CLASSES = (1, 76, 99, 107, 145, 207, 285, 291, 323, 386, 508, 779, 817, 963, 970, 301)


@app.command()
def judge(
    data: Data, val: Val, out: Out, seconds: Seconds = 120, batch: Batch = ClassifierRecipe.batch
) -> None:
    """Train the judge on real images."""
    fit_classifier(ResNet, JUDGE_SEED, read_images(data, val, out), out / JUDGE, seconds, batch)


def _load(model: str) -> tuple[Prior, VQ]:
    """A prior and its tokenizer, as the page loads them."""
    loaded = load_model(model, device(), pick_dtype("auto", device()))
    return loaded.model, loaded.tokenizer


@app.command()
@named(SAMPLING, lambda p: str | None)
def sweep(out: Out, model: Model = "aim-s", count: int = 606, batch: AtOnce = 64,
          **sampling: str | None) -> None:  # fmt: skip
    """How often the loss network sees the asked class, for every combination of comma-separated
    settings; without any, for some values of guidance.
    """
    prior, tokenizer = _load(model)
    network = read_classifier(VGG, out / LOSS_NETWORK, prior.config.num_classes)
    rows = balanced_rows(count, prior.config.num_classes)
    axes = {"cfg_scale": "1,2,3,4,6", **{name: text for name, text in sampling.items() if text}}
    kinds = {p.name: p.kind for p in SAMPLING}
    values = [[kinds[name](part) for part in text.split(",")] for name, text in axes.items()]
    for combination in itertools.product(*values):
        start = time.monotonic()
        params = NEUTRAL.replace(**dict(zip(axes, combination, strict=True)))
        images = sample_images(prior, tokenizer, rows, params, seed=10_000, batch=batch)
        rate = asked_class_rate(network, images, rows)
        print(f"{params.describe()}: {rate:.4f} ({time.monotonic() - start:.1f} s)", flush=True)


@app.command()
def report(
    val: Val, out: Out, model: Model = "aim-s", count: int = 2000, batch: AtOnce = 64
) -> None:
    """The judge on real images, on their reconstructions and on samples, at the model's own
    sampling settings.
    """
    prior, tokenizer = _load(model)
    held = load_images(val, tokenizer.config.image_size, prior.config.classes).to(device())
    network = read_classifier(ResNet, out / JUDGE, prior.config.num_classes)
    rows = balanced_rows(count, prior.config.num_classes)
    start = time.monotonic()
    images = sample_images(prior, tokenizer, rows, prior.config.sampling, batch=batch)
    kept = reconstruct(tokenizer, held.images)
    figures = {
        **dataclasses.asdict(prior.config.sampling),
        "count": count,
        "seconds": round(time.monotonic() - start, 1),
        "psnr": round(psnr(kept, held.images), 3),
        "judge_on_real": round(accuracy(network, held.images, held.labels), 4),
        "judge_on_reconstructions": round(accuracy(network, kept, held.labels), 4),
        "judge_on_samples": round(asked_class_rate(network, images, rows), 4),
    }
    print(json.dumps(figures), flush=True)


@app.command()
def sheet(
    to: Annotated[Path, typer.Option(help="PNG file to write.")],
    model: Model = "aim-s",
    scale: int = 1,
) -> None:
    """Eight samples of sixteen classes, seeds 0 to 127, at the model's own sampling settings."""
    prior, tokenizer = _load(model)
    classes = prior.config.classes or tuple(range(prior.config.num_classes))
    absent = set(SHEET_CLASSES) - set(classes)
    if absent:
        raise InvalidInput(
            f"{model} does not know {imagenet.title(min(absent))}, which is on the sheet; choose "
            "another model"
        )
    rows = [classes.index(index) for index in SHEET_CLASSES]
    drawn = sample_images(
        prior, tokenizer, [row for row in rows for _ in range(8)], prior.config.sampling, batch=32
    )
    labels = [imagenet.title(index) for index in SHEET_CLASSES]
    contact_sheet([to_image(image) for image in drawn], 8, labels, scale).save(to, optimize=True)


@app.command()
def curves(out: Out, to: Annotated[Path, typer.Option(help="PNG file to write.")]) -> None:
    """Draw the training logs; needs matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise AimError("drawing curves needs matplotlib: pip install matplotlib") from error
    losses = {"loss": "training loss with dropout, nats a code", "val": "validation, nats a code"}
    runs = {
        "tokenizer": {"psnr": "validation PSNR, dB (1,000 images)"},
        **{name: losses for name in PRIORS if (out / name).exists()},
    }
    figure = Figure((4.5 * len(runs), 3), layout="constrained")
    for axes, (run, series) in zip(figure.subplots(1, len(runs)), runs.items(), strict=True):
        lines = [json.loads(line) for line in (out / run / "log.jsonl").read_text().splitlines()]
        for key, label in series.items():
            points = [(line["seconds"], line[key]) for line in lines if key in line]
            axes.plot(
                *zip(*points, strict=True), marker="o" if len(points) < 10 else None, label=label
            )
        axes.set(title=run, xlabel="seconds of training")
        axes.legend()
    figure.savefig(to, dpi=110)


if __name__ == "__main__":
    app()
