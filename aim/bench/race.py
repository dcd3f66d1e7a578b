"""Two models or more against each other: the same work, by turns, on one machine, and when every
code of it was there.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from aim.bench.machine import Machine, copy_bandwidth
from aim.bench.racers import Lap, Pictures, Racer, RacerRun
from aim.bench.runs import Spread, Stop, never
from aim.bench.speed import LARGEST, Say, release
from aim.checks import whole
from aim.config import MAX_SEED, SamplingParams, check_seed
from aim.engine import Request
from aim.errors import InvalidInput
from aim.pipeline import Pipeline

__all__ = ["LAPS", "METHOD", "Lap", "Pictures", "Race", "Racer", "gates", "race", "ratios", "turns"]

LAPS = 5  # of each model, at the least
MOST_LAPS = 1000
QUIET = 1.5  # of one racer's laps
FAIR = 10  # points
METHOD = (
    "Every model draws the same class with the same seeds, sampler, guidance, number of codes, "
    "precision and tokenizer on the same device, "
    "in an engine that was warmed up at this batch size; laps run one at a time, in rounds in "
    "which each model has one, in random order. "
    "Given are medians with the least and the most, and what fills in is a replay of the times "
    "measured in each model's median lap."
)


@dataclass(frozen=True)
class Race:
    """All of one race."""

    racers: tuple[Racer, ...]
    order: tuple[int, ...]  # which racer ran each lap, by its place in ``racers``
    label: int  # class index, of every picture of the batch
    title: str  # what to call the class
    batch: int
    laps: int  # of each
    seed: int  # of the first picture, the next ones follow; and of the order
    sampling: SamplingParams
    tokens: int  # codes a picture
    image_size: int
    device: str
    dtype: str
    copy_bandwidth: float  # bytes a second, read and written
    machine: Machine


def race(
    pipes: Sequence[Pipeline],
    label: int | str | None = None,
    batch: int = 1,
    laps: int = LAPS,
    params: SamplingParams | None = None,
    seed: int = 0,
    say: Say = lambda text: None,
    stop: Stop = never,
    progress: Callable[[int, int], object] = lambda done, total: None,
    bandwidth: float | None = None,
) -> tuple[Race, tuple[Pictures, ...]]:
    """Let the models of ``pipes`` race as ``METHOD`` says; also what each drew, in their order.

    Every lap is ``batch`` pictures of class ``label``, an index or name that all know, if left out
    the first such; seeds are ``seed``, ``seed + 1``, ...; ``params`` left out are the first
    pipeline's. ``say`` and ``progress`` (laps done, their total, a warm-up counted as one) are
    called between laps only, ``stop`` before every step and picture, so it must be cheap.
    ``bandwidth``, in bytes a second, is measured unless given. Nobody else should use the device
    meanwhile.

    InvalidInput: fewer than two pipelines, or they differ in device, precision, codes or tokenizer;
    a value out of range; no such class; a batch that does not fit. ``Stopped``: ``stop`` said so.
    Either way the engines, which live no longer than this, are left idle.
    """
    _comparable(pipes)
    label = _common(pipes) if label is None else label
    rows = [pipe.row(pipe.resolve(label)) for pipe in pipes]
    batch, laps = whole("batch", batch, 1, LARGEST), whole("laps", laps, LAPS, MOST_LAPS)
    if check_seed(seed) + batch - 1 > MAX_SEED:
        raise InvalidInput(
            f"seed is {seed}, and {batch} images take as many seeds; the last one must be at most "
            f"{MAX_SEED}"
        )
    sampling, device = params or pipes[0].sampling, pipes[0].device
    order = turns(len(pipes), laps, seed)
    if bandwidth is None:
        say("the memory's bandwidth")
        bandwidth = copy_bandwidth(device)
    requests = [[Request(row, sampling, seed + i) for i in range(batch)] for row in rows]
    try:
        found = _run(pipes, requests, order, bandwidth, say, stop, progress)
    except torch.OutOfMemoryError as error:
        raise InvalidInput(
            f"batch is {batch}, which does not fit into the device's memory; choose a smaller one"
        ) from error
    release(device)
    result = Race(
        racers=tuple(racer for racer, _ in found),
        order=order,
        label=pipes[0].resolve(label),
        title=pipes[0].title(pipes[0].resolve(label)),
        batch=batch,
        laps=laps,
        seed=seed,
        sampling=sampling,
        tokens=pipes[0].model.config.num_tokens,
        image_size=pipes[0].tokenizer.config.output_size,
        device=str(device),
        dtype=str(pipes[0].dtype).removeprefix("torch."),
        copy_bandwidth=bandwidth,
        machine=Machine.of(device),
    )
    return result, tuple(pictures for _, pictures in found)


def turns(racers: int, laps: int, seed: int) -> tuple[int, ...]:
    """Whose lap it is (racers * laps,): in every round each once, in random order, so that none
    gains from a machine that changes.
    """
    shuffle = random.Random(seed)
    return tuple(turn for _ in range(laps) for turn in shuffle.sample(range(racers), racers))


def _run(
    pipes: Sequence[Pipeline],
    requests: Sequence[Sequence[Request]],
    order: Sequence[int],
    bandwidth: float,
    say: Say,
    stop: Stop,
    progress: Callable[[int, int], object],
) -> list[tuple[Racer, Pictures]]:
    """Warm up, then every lap in ``order``; engines and image decoders end with this."""
    runs: list[RacerRun] = []
    total = len(pipes) + len(order)
    try:
        for pipe, batch in zip(pipes, requests, strict=True):
            progress(len(runs), total)
            say(f"{pipe.name}: warming up")
            runs.append(RacerRun(pipe, batch, stop))
            runs[-1].warm()
        for done, turn in enumerate(order):
            progress(len(pipes) + done, total)
            say(f"{pipes[turn].name}: lap {len(runs[turn].laps) + 1} of {len(order) // len(pipes)}")
            runs[turn].run()
        progress(total, total)
        return [(run.result(bandwidth), run.pictures) for run in runs]
    finally:
        for run in runs:
            run.engine.drain()


def ratios(result: Race) -> list[str]:
    """What the first racer's times are over each other one's, in words: medians of the ratios
    within each round, with least and most.
    """
    first, *others = result.racers
    return [
        f"{first.name} over {other.name}: {', '.join(_ratios(first, other))}" for other in others
    ]


def _ratios(first: Racer, other: Racer) -> Iterator[str]:
    for what, name in (
        ("codes", "codes_seconds"),
        ("first code", "first_code_seconds"),
        ("codes and pictures", "seconds"),
    ):
        found = Spread.of(
            [
                getattr(a, name) / getattr(b, name)
                for a, b in zip(first.laps, other.laps, strict=True)
            ]
        )
        yield f"{what} {found.median:.2f} ({found.min:.2f} - {found.max:.2f})"
    yield f"state or cache {first.sequence_bytes / other.sequence_bytes:.2f}"


def gates(result: Race) -> list[tuple[str, bool]]:
    """What must hold for a race to say something, each with whether it does: ratios within this
    race only.

    The machine was quiet, and the racers were built equally well: they reach about the same
    fraction of what the memory allows.
    """
    found = []
    for racer in result.racers:
        spread = racer.codes_seconds.max / racer.codes_seconds.min
        found.append(
            (
                f"{racer.name}: slowest lap over fastest {spread:.2f}, at most {QUIET}",
                spread <= QUIET,
            )
        )
    points = [100 * racer.floor_fraction for racer in result.racers]
    apart = max(points) - min(points)
    reached = " and ".join(f"{point:.0f}%" for point in points)
    return [*found, (f"{reached} of their own floors, at most {FAIR} points apart", apart <= FAIR)]


def _comparable(pipes: Sequence[Pipeline]) -> None:
    """InvalidInput unless all do the same work."""
    if len(pipes) < 2:
        raise InvalidInput(f"a race takes two models or more, not {len(pipes)}")
    first = pipes[0]
    for pipe in pipes[1:]:
        for what, of in _SAME.items():
            a, b = of(first), of(pipe)
            if a != b:
                raise InvalidInput(
                    f"{first.name} and {pipe.name} cannot race, as the {what} is {a} and {b}; "
                    "choose a pair of one kind"
                )


_SAME: dict[str, Callable[[Pipeline], object]] = {
    "device": lambda pipe: pipe.device,
    "precision": lambda pipe: pipe.dtype,
    "number of codes": lambda pipe: pipe.model.config.num_tokens,
    "codebook": lambda pipe: pipe.model.config.vocab_size,
    "tokenizer's configuration": lambda pipe: pipe.tokenizer.config,
    "tokenizer's precision": lambda pipe: pipe.tokenizer.dtype,
}


def _common(pipes: Sequence[Pipeline]) -> int:
    """The first class that all know."""
    for index in pipes[0].classes:
        if all(index in pipe.classes for pipe in pipes[1:]):
            return index
    raise InvalidInput(f"{' and '.join(pipe.name for pipe in pipes)} have no class in common")
