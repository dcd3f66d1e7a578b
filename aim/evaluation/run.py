"""An evaluation from end to end: draw the set, check it, pack it, compare it with a reference."""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.table import Table

from aim._version import __version__
from aim.classes import imagenet
from aim.config import MODELS, NEUTRAL, SAMPLING, AiMConfig, PriorConfig, SamplingParams
from aim.errors import InvalidInput
from aim.evaluation.check import check
from aim.evaluation.metrics import (
    NEIGHBOUR,
    frechet_distance,
    inception_score,
    kernel_distance,
    precision_recall,
)
from aim.evaluation.observe import Features, likeliest, observe
from aim.evaluation.reference import Asked, Reference, load_reference, some
from aim.evaluation.samples import SampleSet
from aim.files import replace
from aim.tables import plain

log = logging.getLogger("aim")
RESULT = "evaluation.json"
NAMES = (
    "fid",
    "sfid",
    "kid",
    "inception_score",
    "inception_score_spread",
    "precision",
    "recall",
    "asked_class",
    "real_class",
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


def classes_asked(images: SampleSet, features: Features) -> Asked:
    """The classes that are drawn: what folders of them are called, and which columns of the
    network's probabilities are theirs.
    """
    labels = images.pipe.labels
    keys = [labels.key(index) for index in images.asked]
    index_of = {entry.wnid: entry.index for entry in imagenet()}
    own = bool(images.pipe.model.config.class_names)
    if features.classes == len(index_of) and all(key in index_of for key in keys):
        return Asked(keys, [index_of[key] for key in keys])
    if features.classes == images.pipe.model.config.num_classes:
        return Asked(keys, [labels.row(index) for index in images.asked], own)
    return Asked(keys, own=own)


def measure(
    images: SampleSet, features: Features, reference: Reference | None, batch: int = 64
) -> dict[str, Any]:
    """The figures of a set that is drawn; None for what the network or the reference does not give.

    ``fid`` and ``sfid``: Fréchet distance of features and of spatial features; ``kid``: kernel
    distance of features; ``inception_score``
    and its spread over parts of 5,000; ``precision`` and ``recall``; ``asked_class``: the share of
    images whose likeliest class, of those that are drawn, is the asked one, for a network that
    knows them; ``real_class``: the same of the reference. InvalidInput for a reference that other
    features saw.
    """
    seen = observe(features, images.images(batch))
    found: dict[str, Any] = dict.fromkeys(NAMES)
    if seen.probabilities is not None:
        found["inception_score"], found["inception_score_spread"] = inception_score(
            seen.probabilities
        )
        place = {index: i for i, index in enumerate(images.asked)}
        found["asked_class"] = likeliest(
            seen.probabilities,
            classes_asked(images, features).columns,
            [place[index] for index in images.classes()],
        )
    if reference is not None:
        if seen.statistics is not None:
            found["fid"] = frechet_distance(seen.statistics, reference.statistics)
        if seen.spatial is not None and reference.spatial is not None:
            found["sfid"] = frechet_distance(seen.spatial, reference.spatial)
        if reference.features is not None:
            real, drawn = (
                part.to(images.pipe.device) for part in (reference.features, seen.features)
            )
            fewest = min(len(real), len(drawn))
            if fewest > 1:
                found["kid"] = kernel_distance(real, some(drawn))
            if fewest > NEIGHBOUR:
                found["precision"], found["recall"] = precision_recall(real, drawn)
        found["real_class"] = reference.asked
    return found


def lacking(count: int, known: Sequence[Reference | None]) -> str:
    """Which figures ``count`` images, or the references, are too few for; "" for none."""
    if not any(known):
        return ""
    real = [len(r.features) for r in known if r is not None and r.features is not None]
    fewest = min([count, *real])
    names = ["FID", "KID"] * (count < 2) + ["precision", "recall"] * (fewest <= NEIGHBOUR)
    if not names:
        return ""
    whose = "images" if fewest == count else "images of the reference"
    return f"{fewest} {whose} are too few for {', '.join(names)}; the other figures are given"


def evaluate(
    images: SampleSet,
    features: Sequence[Features] = (),
    reference: Sequence[str | Path] = (),
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
    by all ``features``; without one there is no distance, precision and recall, without features no
    figure at all. The figures of the first features are the result's own, those of the others in
    its "further". ``say`` hears what is being done. None for the other processes. Errors as of
    ``SampleSet`` and ``load_reference``.
    """
    if reference and not features and rank == 0:
        raise InvalidInput(
            f"--reference {reference[0]} needs features to be seen by; name them with --features"
        )
    first, batch = rank == 0, images.batch
    images.open()
    seen_by = list(features) if first else []
    if seen_by and reference:
        say("Reading the reference")
    known = [
        load_reference(
            reference, network, images.size, batch, cache, classes_asked(images, network)
        )
        if reference
        else None
        for network in seen_by
    ]
    if too_few := lacking(images.count, known):
        log.warning("%s", too_few)
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
    if seen_by:
        say("Measuring")
    figures = [
        {
            "features": network.name,
            "reference": ", ".join(map(str, reference)) or None,
            "reference_images": real and (real.statistics.images or None),
            **measure(images, network, real, batch),
        }
        for network, real in zip(seen_by, known, strict=True)
    ]
    seconds["measuring"] = round(time.monotonic() - started, 1)
    result = {
        **images.settings(),
        **(figures[0] if figures else {}),
        **({"further": figures[1:]} if figures[1:] else {}),
        "check": checked,
        "seconds": seconds,
        "processes": world,
        "package": f"aim {__version__}",
    }
    replace(images.folder / RESULT, json.dumps(result, indent=1, allow_nan=False) + "\n")
    return result


TITLES = {
    "fid": "FID",
    "sfid": "sFID",
    "kid": "KID",
    "inception_score": "IS",
    "precision": "precision",
    "recall": "recall",
    "asked_class": "asked class seen",
    "real_class": "own class seen, reference",
}


def as_table(result: dict[str, Any]) -> Table:
    """The result for people: what was drawn, and a column of figures for each network."""
    sampling = SamplingParams(**{p.name: result[p.name] for p in SAMPLING}).describe()
    check = result["check"]
    figures = [result, *result.get("further", ())] if "features" in result else []
    about = {
        "images": str(check["images"]),
        "of a class": f"{check['fewest']} - {check['most']}",
        "drawn again, equal": f"{check['equal']} of {check['redrawn']}",
        "rounding, levels: mean, most": (
            f"{check['rounding_mean']:.4f}, {check['rounding_most']:.3f}"
        ),
    }
    rows = [(title, value, *[""] * (len(figures) - 1)) for title, value in about.items()]
    for name, title in TITLES.items():
        values = [part.get(name) for part in figures]
        if any(value is not None for value in values):
            rows.append((title, *("" if v is None else f"{v:.4f}" for v in values)))
    # the caption has the whole names, with the weights' versions
    short = [re.sub(r"-[0-9a-f]{12}$", "", part["features"]) for part in figures]
    heads = short if len(figures) > 1 else ["value"]
    return plain(
        f"{result['model']} {result['version']}, {result['count']} images, {sampling}",
        ["figure", *heads],
        rows,
        f"by {', '.join(part['features'] for part in figures)}, "
        f"against {result['reference'] or 'no reference'}"
        if figures
        else None,
    )
