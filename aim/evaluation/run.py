"""An evaluation from end to end: draw the set, check it, pack it, compare it with a reference."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from rich.table import Table

from aim._version import __version__
from aim.config import MODELS, NEUTRAL, SAMPLING, AiMConfig, PriorConfig, SamplingParams
from aim.errors import InvalidInput
from aim.evaluation.check import check
from aim.evaluation.features import Features, observe
from aim.evaluation.metrics import frechet_distance, inception_score, precision_recall
from aim.evaluation.reference import Reference, load_reference
from aim.evaluation.samples import SampleSet
from aim.files import replace
from aim.tables import plain

RESULT = "evaluation.json"
NAMES = (
    "fid",
    "sfid",
    "inception_score",
    "inception_score_spread",
    "precision",
    "recall",
    "asked_class",
)
PAPER = {"aim-b": 2.0, "aim-l": 1.75, "aim-xl": 1.75, "aim-1b": 1.75}  # guidance, arXiv 2408.12245
PRESETS = ("shipped", "paper")


class Preset(NamedTuple):
    """How a set is drawn, unless something else is asked for."""

    params: SamplingParams
    images: int


def preset(name: str, config: PriorConfig) -> Preset:
    """``shipped``: the model's own settings, 5,000 images. ``paper``: temperature 1, every code
    kept, the paper's guidance, 50,000.

    InvalidInput for another name, and for ``paper`` with a model that has the size of none of the
    paper's.
    """
    if name == "shipped":
        return Preset(config.sampling, 5_000)
    if name != "paper":
        raise InvalidInput(f"preset is {name!r}; it must be one of {', '.join(PRESETS)}")
    for model, cfg_scale in PAPER.items():
        spec = MODELS[model].config
        if isinstance(config, AiMConfig) and (config.d_model, config.n_layer) == (
            spec.d_model,
            spec.n_layer,
        ):
            return Preset(NEUTRAL.replace(cfg_scale=cfg_scale), 50_000)
    size = f"{config.n_layer} layers of {config.d_model}"
    raise InvalidInput(
        f"the paper has no settings for a model of {size}, only for {', '.join(PAPER)}; take "
        "--preset shipped"
    )


def measure(
    images: SampleSet, features: Features, reference: Reference | None, batch: int = 64
) -> dict[str, Any]:
    """The figures of a set that is drawn; None for what the network or the reference does not give.

    ``fid`` and ``sfid``: Fréchet distance of features and of spatial features; ``inception_score``
    and its spread over parts of 5,000; ``precision`` and ``recall``; ``asked_class``: the share of
    images whose likeliest class is the asked one, for a network that has the model's classes.
    InvalidInput for a reference that other features saw.
    """
    seen = observe(features, images.images(batch))
    found: dict[str, Any] = dict.fromkeys(NAMES)
    if seen.probabilities is not None:
        found["inception_score"], found["inception_score_spread"] = inception_score(
            seen.probabilities
        )
        if seen.probabilities.shape[1] == images.pipe.model.config.num_classes:
            right = (
                row == asked
                for row, asked in zip(
                    seen.probabilities.argmax(1).tolist(), images.rows, strict=True
                )
            )
            found["asked_class"] = sum(right) / images.count
    if reference is not None:
        found["fid"] = frechet_distance(seen.statistics, reference.statistics)
        if seen.spatial is not None and reference.spatial is not None:
            found["sfid"] = frechet_distance(seen.spatial, reference.spatial)
        if reference.features is not None:
            device = images.pipe.device
            found["precision"], found["recall"] = precision_recall(
                reference.features.to(device), seen.features.to(device)
            )
    return found


def evaluate(
    images: SampleSet,
    features: Features | None = None,
    reference: Path | None = None,
    *,
    cache: Path | None = None,
    npz: bool = True,
    rank: int = 0,
    world: int = 1,
    wait: Callable[[], object] = int,
    progress: Callable[[int, int], object] | None = None,
    say: Callable[[str], object] = str,
) -> dict[str, Any] | None:
    """Draw this process's share of the set; the first process then checks it, packs it, measures it
    and writes evaluation.json.

    ``wait`` returns when every process has called it. ``reference`` as of ``load_reference``, seen
    by ``features``; without one there is no distance, precision and recall, without features no
    figure at all. ``say`` hears what is being done. None for the other processes. Errors as of
    ``SampleSet`` and ``load_reference``.
    """
    if reference is not None and features is None:
        raise InvalidInput(
            f"--reference {reference} needs features to be seen by; name them with --features"
        )
    first, batch = rank == 0, images.batch
    images.open()
    known = None
    if first and features is not None and reference is not None:
        say("Reading the reference")
        known = load_reference(reference, features, images.size, batch, cache)
    say("Drawing")
    started = time.monotonic()
    images.draw(rank, world, progress)
    wait()
    if not first:
        return None
    seconds = {"drawing": round(time.monotonic() - started, 1)}
    say("Checking")
    checked = check(images)
    if npz:
        say("Packing")
        images.pack()
    started = time.monotonic()
    figures: dict[str, Any] = {}
    if features is not None:
        say("Measuring")
        figures = {
            "features": features.name,
            "reference": None if reference is None else str(reference),
            "reference_images": None if known is None else known.statistics.images or None,
            **measure(images, features, known, batch),
        }
    seconds["measuring"] = round(time.monotonic() - started, 1)
    result = {
        **images.settings(),
        **figures,
        "check": checked,
        "seconds": seconds,
        "processes": world,
        "package": f"aim {__version__}",
    }
    replace(images.folder / RESULT, json.dumps(result, indent=1, allow_nan=False) + "\n")
    return result


def as_table(result: dict[str, Any]) -> Table:
    """The result for people."""
    sampling = SamplingParams(**{p.name: result[p.name] for p in SAMPLING}).describe()
    check = result["check"]
    rows = {"images": str(check["images"]), "of a class": f"{check['fewest']} - {check['most']}"}
    rows["drawn again, equal"] = f"{check['equal']} of {check['redrawn']}"
    rows["rounding, levels: mean, most"] = (
        f"{check['rounding_mean']:.4f}, {check['rounding_most']:.3f}"
    )
    titles = {
        "fid": "FID",
        "sfid": "sFID",
        "inception_score": "IS",
        "precision": "precision",
        "recall": "recall",
    }
    for name, title in {**titles, "asked_class": "asked class seen"}.items():
        if result.get(name) is not None:
            rows[title] = f"{result[name]:.4f}"
    return plain(
        f"{result['model']} {result['version']}, {result['count']} images, {sampling}",
        ["figure", "value"],
        rows.items(),
        f"by {result['features']}, against {result['reference'] or 'no reference'}"
        if "features" in result
        else None,
    )
