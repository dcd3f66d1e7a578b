"""Settings of a training run: the defaults, a YAML file, then single values from the command line,
each checked for its type.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from aim.errors import InvalidInput

Scan = Literal["auto", "torch", "mamba-ssm"]
CONFIGS = Path(__file__).with_name("configs")


@dataclass(frozen=True)
class Recipe:
    """Settings of both stages. The run ends with whichever of ``seconds``, ``steps`` and ``epochs``
    is reached first; 0 is no limit.
    """

    seconds: float = 540
    steps: int = 0
    epochs: float = 0
    batch: int = 256  # images a step, over all processes
    lr: float = 1.2e-3
    scale_lr: bool = False  # lr is for 256 images and grows with the batch
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup: float = 0.03  # of the run
    floor: float = 0.01  # of lr, at the end
    weight_decay: float = 0.05
    beta1: float = 0.9
    beta2: float = 0.95
    clip: float = 1.0
    ema: float = 0.9995
    log_every: int = 200  # steps
    validate_every: int = 1000  # steps
    save_every: float = 60  # seconds
    patience: int = 10  # steps in a row whose gradient is not finite, after which the run gives up
    compile: bool = False
    seed: int = 0

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

    seconds: float = 400
    lr: float = 6e-4  # half of it for the discriminator
    floor: float = 0.02
    weight_decay: float = 0.01
    ema: float = 0.999
    min_scale: float = 0.75  # side of the smallest crop, in images
    # of a batch: images of the size that comes out, where that is larger than what goes in
    fine_share: float = 0.0
    pixel: Literal["mse", "l1"] = "mse"
    perceptual: float = 1.0
    semantic: float = 0.0  # code vectors towards what EfficientNet-Lite0 sees there
    discriminator: Literal["patch", "features"] = "patch"
    adversarial: float = 0.3  # 0: without a discriminator
    adversarial_start: float = 0.35  # progress at which the discriminator comes in
    codebook: float = 1.0
    commitment: float = 0.25
    revive_every: int = 200  # steps between replacements of unused codes, until half of the run
    decoder_only: bool = False  # encoder and codebook stay, so that codes mean what they meant
    # of training for the network of the perceptual loss, where none is given
    loss_network_seconds: float = 60


@dataclass(frozen=True)
class PriorRecipe(Recipe):
    """Settings of stage 2."""

    accumulate: int = 1  # parts of a batch that are computed one after another
    class_drop: float = 0.1  # labels replaced by "no class", for guidance
    plain_share: float = 0.4  # of the samples that are not cropped
    # compute the layers again in the backward pass instead of keeping what is in them
    checkpoint_layers: bool = False
    scan: Scan = "auto"  # of AiM, see AiM.use_scan


Settings = TypeVar("Settings")


def read_config(name: str | Path) -> dict[str, Any]:
    """A YAML file, or one of those that come with the package, by its name. InvalidInput if it is
    not there or is no mapping.
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
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path} is not YAML ({error})") from error
    if not isinstance(content, dict):
        raise InvalidInput(
            f"{path} holds {type(content).__name__}; it must be a mapping of settings to values"
        )
    return content


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
    for a value of another type.
    """
    from pydantic import TypeAdapter, ValidationError

    fields = {field.name for field in dataclasses.fields(defaults)}  # type: ignore[arg-type]
    unknown = values.keys() - fields
    if unknown:
        raise InvalidInput(
            f"{min(unknown)!r} is no setting of {type(defaults).__name__}; there are "
            f"{', '.join(sorted(fields))}"
        )
    # YAML takes 1e-4 for a text
    numbers = {
        k: float(v) if isinstance(v, str) and _is_number(v) else v for k, v in values.items()
    }
    merged = {**{name: getattr(defaults, name) for name in fields}, **numbers}
    try:
        return TypeAdapter(type(defaults)).validate_python(merged)
    except ValidationError as error:
        first = error.errors()[0]
        raise InvalidInput(
            f"{first['loc'][0]} is {merged[str(first['loc'][0])]!r}: {first['msg'].lower()}"
        ) from error


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
