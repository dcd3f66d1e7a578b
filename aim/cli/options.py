"""Options that several commands have, and what becomes of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from aim import config
from aim.parameters import Parameter, named
from aim.settings import AHEAD, BACKENDS, Settings

if TYPE_CHECKING:
    from aim.pipeline import Pipeline

F = TypeVar("F", bound=Callable[..., Any])
SAMPLING = "Sampling"  # a panel of the help

Model = Annotated[
    str | None,
    typer.Option(
        help="Name (aim-s is bundled), folder, file or hub id. Default: AIM_MODEL or aim-s."
    ),
]
Device = Annotated[
    str | None,
    typer.Option(help="auto, cpu, cuda, cuda:<number> or mps. Default: AIM_DEVICE or auto."),
]
Dtype = Annotated[
    str | None, typer.Option(help="auto, float32 or bfloat16. Default: AIM_DTYPE or auto.")
]
Backend = Annotated[
    str | None,
    typer.Option(
        help=f"How a step is computed: {', '.join(BACKENDS[:-1])} or {BACKENDS[-1]}. "
        "Default: AIM_BACKEND or auto."
    ),
]

OwnClasses = Annotated[
    bool, typer.Option("--own-classes", help="Numbers in tar shards are no ImageNet classes.")
]

Ahead = Annotated[
    str | None,
    typer.Option(
        help="How many codes of a picture a step looks at, guessing what comes next: "
        f"{', '.join(AHEAD)}. Default: AIM_AHEAD or auto."
    ),
]


def takes_sampling(default: str) -> Callable[[F], F]:
    """A decorator that gives a command an option for every sampling parameter, which it takes as
    ``**sampling``; ``default`` says whose value one has that is left out.
    """

    def option(p: Parameter) -> Any:
        choices = f" One of {', '.join(p.choices)}." if p.choices else ""
        told = f"{p.help}{choices} Default: {default}."
        return Annotated[p.kind | None, typer.Option(help=told, rich_help_panel=SAMPLING)]

    return named(config.SAMPLING, option)


def settings(**given: Any) -> Settings:
    """The environment's settings, but for those that were ``given`` on the command line."""
    return dataclasses.replace(
        Settings.from_env(), **{name: value for name, value in given.items() if value}
    )


def load(chosen: Settings, random_weights: bool = False) -> Pipeline:
    """The model of these settings; of a named one perhaps only the sizes."""
    from aim import pipeline
    from aim.bench.weights import random_pipeline

    make = random_pipeline if random_weights else pipeline.load
    return make(chosen.model, chosen.device, chosen.dtype, chosen.backend, ahead=chosen.ahead)
