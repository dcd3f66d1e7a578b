"""Options that several commands have, and what becomes of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from aim import config
from aim.parameters import Parameter, keywords, named
from aim.settings import AHEAD, BACKENDS, Settings, span

if TYPE_CHECKING:
    from aim.pipeline import Pipeline
    from aim.serving.ray import Plan

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

TOLD = "What a PyTorch file of LlamaGen's may not say"  # a panel of the help
ImageSize = Annotated[
    int | None,
    typer.Option(help="Pixels each way that it was made for: 256 or 384.", rich_help_panel=TOLD),
]
Heads = Annotated[int | None, typer.Option(help="Heads of its attention.", rich_help_panel=TOLD)]
Weights = Annotated[
    str | None,
    typer.Option(
        help="Which weights, where there are several: model or ema.", rich_help_panel=TOLD
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

Replicas = Annotated[
    str | None,
    typer.Option(
        help="Engines that draw, each on a GPU or a share of the CPUs: 4, or 2-8 as there is work. "
        "Needs the extra serve. Default: AIM_REPLICAS, or one engine in this process."
    ),
]
Cluster = Annotated[
    str | None,
    typer.Option(
        help="Address of the Ray cluster that they are on, or auto; without --replicas those that "
        "run there already. Default: AIM_CLUSTER, or this machine."
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


def takes_model(*more: str) -> Callable[[F], F]:
    """A decorator that gives a command the options of what model, and where, which it takes as
    ``**asked``, for ``settings``: --model, --device, and ``more`` of dtype, backend and ahead.
    """
    options = {"dtype": Dtype, "backend": Backend, "ahead": Ahead}
    return keywords({"model": Model, "device": Device} | {name: options[name] for name in more})


def settings(replicas: str | None = None, **given: Any) -> Settings:
    """The environment's settings, but for those that were ``given`` on the command line."""
    given["replicas"] = replicas and span("--replicas", replicas)
    return dataclasses.replace(
        Settings.from_env(), **{name: value for name, value in given.items() if value}
    )


def load(chosen: Settings, random_weights: bool = False, places: int = 0) -> Pipeline:
    """The model of these settings; of a named one perhaps only the sizes. With ``places`` it draws
    with the replicas that are set, so many images at once each.
    """
    pipe = _maker(random_weights)(chosen.model, chosen.device, **_how(chosen))
    if places and (chosen.cluster or any(chosen.replicas)):
        from aim.serving.ray import use_replicas

        use_replicas(pipe, plan_of(chosen, places, random_weights))
    return pipe


def plan_of(chosen: Settings, places: int, random_weights: bool = False) -> Plan:
    """Replicas of the model of these settings, as many as they say."""
    from aim.serving.ray import Plan

    make, how = _maker(random_weights), _how(chosen)
    numbers = chosen.replicas
    return Plan(chosen.model, *numbers, chosen.cluster, places, chosen.device, how, make)


def _maker(random_weights: bool) -> Callable[..., Pipeline]:
    from aim import pipeline
    from aim.bench.weights import random_pipeline

    return random_pipeline if random_weights else pipeline.load


def _how(chosen: Settings) -> dict[str, Any]:
    return {"dtype": chosen.dtype, "backend": chosen.backend, "ahead": chosen.ahead}
