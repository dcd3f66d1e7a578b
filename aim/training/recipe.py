"""Settings of a training run: the defaults, a YAML file, then single values from the command line,
each checked for its type and range.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_type_hints

from annotated_types import Interval

from aim.checks import Count, Positive, Share, problem, wanted
from aim.errors import InvalidInput

Scan = Literal["auto", "torch", "mamba-ssm"]
RUN = "run"  # in the config.json of a run: what it is, of no account for another
CONFIGS = Path(__file__).with_name("configs")

# ranges of settings; what a setting is stands beside it, for --help
Amount = Annotated[float, Interval(ge=0, le=1e9)]
Rate = Annotated[float, Interval(ge=0, le=100)]
Below1 = Annotated[float, Interval(ge=0, lt=1)]
Limit = Annotated[int, Interval(ge=0, le=10**9)]
Every = Annotated[int, Interval(ge=1, le=10**9)]
Seed = Annotated[int, Interval(ge=0, le=2**32 - 1)]


@dataclass(frozen=True)
class Recipe:
    """Settings of both stages. The run ends with whichever of ``seconds``, ``steps`` and ``epochs``
    is reached first; 0 is no limit.
    """

    seconds: Annotated[Amount, "Of training; 0 is no limit."] = 540
    steps: Annotated[Limit, "0 is no limit."] = 0
    epochs: Annotated[Amount, "Over the images; 0 is no limit."] = 0
    batch: Annotated[Count, "Images a step, over all processes."] = 256
    lr: Annotated[Rate, "The highest learning rate."] = 1.2e-3
    scale_lr: Annotated[bool, "lr is for 256 images and grows with the batch."] = False
    schedule: Annotated[Literal["cosine", "linear", "constant"], "How lr falls."] = "cosine"
    warmup: Annotated[Below1, "Share of the run in which lr grows."] = 0.03
    floor: Annotated[Share, "Share of lr that is left at the end."] = 0.01
    weight_decay: Annotated[Amount, "Of matrices alone."] = 0.05
    beta1: Annotated[Below1, "Of AdamW."] = 0.9
    beta2: Annotated[Below1, "Of AdamW."] = 0.95
    clip: Annotated[Positive, "Norm that gradients are clipped to."] = 1.0
    ema: Annotated[Below1, "Decay of the average of the weights."] = 0.9995
    log_every: Annotated[Every, "Steps between lines of figures."] = 200
    validate_every: Annotated[Every, "Steps between validations."] = 1000
    save_every: Annotated[Amount, "Seconds between saves."] = 60
    keep_every: Annotated[Limit, "Steps between models that are kept for good; 0: none."] = 0
    keep_last: Annotated[Limit, "Models of as many saves are kept; 0: the latest alone."] = 0
    keep_best: Annotated[bool, "Keep the model that validated best."] = False
    patience: Annotated[
        Every, "Steps in a row whose gradient is not finite, after which the run gives up."
    ] = 10
    compile: Annotated[bool, "Compile the layers with PyTorch."] = False
    accumulate: Annotated[Count, "Parts of a batch, computed one after another."] = 1
    checkpoint_layers: Annotated[
        bool, "Compute layers again in the backward pass instead of keeping what is in them."
    ] = False
    seed: Annotated[Seed, "Of weights, batches and dropout."] = 0

    @property
    def rate(self) -> float:
        """The highest learning rate of the run."""
        return self.lr * self.batch / 256 if self.scale_lr else self.lr

    def limit(self, items: int) -> int:
        """Steps that ``steps`` and ``epochs`` allow over ``items`` images."""
        limits = (self.steps, round(self.epochs * items / self.batch))
        return min((limit for limit in limits if limit > 0), default=10**9)


@dataclass(frozen=True)
class TokenizerRecipe(Recipe):
    """Settings of stage 1. The weights of the losses are relative to the distance of pixels in
    [-1, 1].
    """

    seconds: Annotated[Amount, "Of training; 0 is no limit."] = 400
    lr: Annotated[Rate, "The highest learning rate; half of it for the discriminator."] = 6e-4
    floor: Annotated[Share, "Share of lr that is left at the end."] = 0.02
    weight_decay: Annotated[Amount, "Of matrices alone."] = 0.01
    ema: Annotated[Below1, "Decay of the average of the weights."] = 0.999
    min_scale: Annotated[float, Interval(gt=0, le=1), "Side of the smallest crop, in images."] = (
        0.75
    )
    fine_share: Annotated[
        Share, "Of a batch: --fine-images, of the size that comes out, where that is larger."
    ] = 0.0
    pixel: Annotated[Literal["mse", "l1"], "Distance of pixels."] = "mse"
    perceptual: Annotated[Amount, "Weight of the perceptual loss."] = 1.0
    semantic: Annotated[
        Amount, "Weight of the loss that draws codes towards EfficientNet-Lite0's features."
    ] = 0.0
    discriminator: Annotated[
        Literal["patch", "features"], "What it looks at: pixels or EfficientNet-Lite0's features."
    ] = "patch"
    adversarial: Annotated[Amount, "Weight of the discriminator; 0: without one."] = 0.3
    adversarial_start: Annotated[
        Share, "Share of the run after which the discriminator comes in."
    ] = 0.35
    codebook: Annotated[Amount, "Weight of the codes' loss."] = 1.0
    commitment: Annotated[Amount, "Weight of the features' loss towards their codes."] = 0.25
    revive_every: Annotated[
        Every, "Steps between replacements of unused codes, until half of the run."
    ] = 200
    decoder_only: Annotated[
        bool, "Encoder and codebook stay, so that codes mean what they meant."
    ] = False
    loss_network_seconds: Annotated[
        Positive, "Of training the network of the perceptual loss, where none is given."
    ] = 60


@dataclass(frozen=True)
class PriorRecipe(Recipe):
    """Settings of stage 2."""

    class_drop: Annotated[Share, "Labels replaced by no class, for guidance."] = 0.1
    plain_share: Annotated[Share, "Of the samples that are not cropped."] = 0.4
    scan: Annotated[Scan, "Of AiM in training."] = "auto"


@dataclass(frozen=True)
class ClassifierRecipe:
    """Settings of a classifier's training."""

    seconds: Annotated[Positive, "Of training."] = 120
    batch: Annotated[Count, "Images a step."] = 512
    lr: Annotated[Rate, "The highest learning rate."] = 2e-3
    weight_decay: Annotated[Amount, "Of matrices alone."] = 0.05
    min_scale: Annotated[float, Interval(gt=0, le=1), "Side of the smallest crop, in images."] = 0.5
    label_smoothing: Annotated[Below1, "Of the classes."] = 0.1
    seed: Annotated[Seed, "Of weights and batches."] = 2


Settings = TypeVar("Settings")


def read_config(name: str | Path) -> dict[str, Any]:
    """A YAML file, the config.json of a run, or one of those that come with the package, by its
    name. InvalidInput if it is not there or is no mapping.
    """
    import yaml

    shipped = CONFIGS / f"{name}.yaml"
    path = shipped if shipped.exists() else Path(name)
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in CONFIGS.glob("*.yaml")))
        raise InvalidInput(
            f"there is no training config {str(name)!r}; take one of {known}, or the path of a "
            "YAML file"
        )
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8-sig")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path} is not YAML ({error})") from error
    if not isinstance(content, dict):
        raise InvalidInput(
            f"{path} holds {type(content).__name__}; it must be a mapping of settings to values"
        )
    return {name: value for name, value in content.items() if name != RUN}


def pairs(assignments: Sequence[str]) -> dict[str, str]:
    """``name=text`` strings by name. InvalidInput for one that is none."""
    split = [assignment.partition("=") for assignment in assignments]
    for assignment, (_, equals, _) in zip(assignments, split, strict=True):
        if not equals:
            raise InvalidInput(f"{assignment!r} is not name=value")
    return {name.strip(): text for name, _, text in split}


def overrides(assignments: Sequence[str]) -> dict[str, Any]:
    """``name=value`` strings, the values as YAML."""
    import yaml

    out = {}
    for name, value in pairs(assignments).items():
        try:
            out[name] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise InvalidInput(f"the value of {name} is {value!r}, no YAML ({error})") from error
    return out


def chosen(
    config: str | Path, changes: Sequence[str], kind: str, known: Collection[str]
) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """What a config and ``name=value`` changes say: the name of a ``kind``, one of ``known``,
    settings, and those of the model.

    The latter are written ``model.<name>``. InvalidInput for another name.
    """
    values = read_config(config) | overrides(changes)
    name = values.pop(kind, None)
    if name not in known:
        raise InvalidInput(f"{kind} is {name!r}; it must be one of {', '.join(known)}")
    of_model = {
        key.removeprefix("model."): values.pop(key)
        for key in list(values)
        if key.startswith("model.")
    }
    return name, values, of_model


def settle(defaults: Settings, values: Mapping[str, Any]) -> Settings:
    """``defaults``, a dataclass, with ``values`` in it. InvalidInput for a name that it lacks and
    for a value of another type or out of range.
    """
    from pydantic import TypeAdapter, ValidationError

    kind = type(defaults)
    fields = {field.name for field in dataclasses.fields(defaults)}  # type: ignore[arg-type]
    unknown = values.keys() - fields
    if unknown:
        raise InvalidInput(
            f"{min(unknown)!r} is no setting of {kind.__name__}; there are "
            f"{', '.join(sorted(fields))}"
        )
    # YAML takes 1e-4 for a text
    numbers = {
        k: float(v) if isinstance(v, str) and _is_number(v) else v for k, v in values.items()
    }
    merged = {**{name: getattr(defaults, name) for name in fields}, **numbers}
    try:
        return TypeAdapter(kind).validate_python(merged, extra="forbid")
    except ValidationError as error:
        raise InvalidInput(problem(kind, merged, error.errors())) from error


def help_of(kind: type, *networks: type) -> str:
    """A paragraph a setting of a recipe: its name, default, what it is and what it takes; then
    those of its networks, by name.
    """
    hints = get_type_hints(kind, include_extras=True)
    fields = dataclasses.fields(kind)
    told = {f.name: next(x for x in get_args(hints[f.name]) if isinstance(x, str)) for f in fields}
    lines = [
        f"{f.name}={_as_yaml(f.default)}  {told[f.name]} It is {wanted(hints[f.name])}."
        for f in fields
    ]
    names = {f"model.{f.name}": None for n in networks for f in dataclasses.fields(n)}
    of_networks = [f"Of the network, by --config: {', '.join(names)}."] if networks else []
    return "\n\n".join(["Settings that --set changes, with their defaults:", *lines, *of_networks])


def _as_yaml(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value}"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
