"""Two models or more against each other: the same work, by turns, on one machine, and when every
code of it was there.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from aim.bench.diffusion import Diffusion
from aim.bench.diffusion_run import DiffusionRun
from aim.bench.machine import Machine, copy_bandwidth
from aim.bench.racers import Lap, Pictures, Racer, RacerRun
from aim.bench.runs import Spread, Stop, never
from aim.bench.speed import LARGEST, Say, release
from aim.checks import whole
from aim.config import MAX_SEED, SamplingParams, check_seed
from aim.device import set_threads
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
    "warmed up at this batch size; laps run one at a time, in rounds in "
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
    entries: Sequence[Pipeline | Diffusion],
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
    """Let the models of ``entries`` race as ``METHOD`` says; also what each drew, in their order.

    Every lap is ``batch`` pictures of class ``label``, an index or name that all know, if left out
    the first such; seeds are ``seed``, ``seed + 1``, ...; ``params`` left out are the first
    model's, which is none of diffusion: of ``params`` those take the guidance. ``say`` and
    ``progress`` (laps done, their total, a warm-up counted as one) are called between laps only,
    ``stop`` before every step and picture, so it must be cheap.
    ``bandwidth``, in bytes a second, is measured unless given. Nobody else should use the device
    meanwhile.

    InvalidInput: fewer than two pipelines, or they differ in device, precision, codes or tokenizer;
    a value out of range; no such class; a batch that does not fit. ``Stopped``: ``stop`` said so.
    Either way the engines, which live no longer than this, are left idle.
    """
    first = _comparable(entries)
    label = _common(entries) if label is None else first.resolve(label)
    batch, laps = whole("batch", batch, 1, LARGEST), whole("laps", laps, LAPS, MOST_LAPS)
    if check_seed(seed) + batch - 1 > MAX_SEED:
        raise InvalidInput(
            f"seed is {seed}, and {batch} images take as many seeds; the last one must be at most "
            f"{MAX_SEED}"
        )
    sampling, device = params or first.sampling, first.device
    order = turns(len(entries), laps, seed)
    set_threads(first.threads, device)  # whichever thread this is
    if bandwidth is None:
        say("the memory's bandwidth")
        bandwidth = copy_bandwidth(device)

    def start(entry: Pipeline | Diffusion) -> RacerRun | DiffusionRun:
        seeds = range(seed, seed + batch)
        if isinstance(entry, Diffusion):
            return DiffusionRun(entry, label, seeds, sampling.cfg_scale, stop)
        row = entry.row(entry.resolve(label))
        return RacerRun(entry, [Request(row, sampling, one) for one in seeds], stop)

    try:
        found = _run(entries, start, order, bandwidth, say, progress)
    except torch.OutOfMemoryError as error:
        raise InvalidInput(
            f"batch is {batch}, which does not fit into the device's memory; choose a smaller one"
        ) from error
    release(device)
    result = Race(
        racers=tuple(racer for racer, _ in found),
        order=order,
        label=label,
        title=first.title(label),
        batch=batch,
        laps=laps,
        seed=seed,
        sampling=sampling,
        tokens=first.model.config.num_tokens,
        image_size=first.tokenizer.config.output_size,
        device=str(device),
        dtype=str(first.dtype).removeprefix("torch."),
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
    entries: Sequence[Pipeline | Diffusion],
    start: Callable[[Any], RacerRun | DiffusionRun],
    order: Sequence[int],
    bandwidth: float,
    say: Say,
    progress: Callable[[int, int], object],
) -> list[tuple[Racer, Pictures]]:
    """Warm up, then every lap in ``order``; engines and image decoders end with this."""
    runs: list[RacerRun | DiffusionRun] = []
    total = len(entries) + len(order)
    try:
        for entry in entries:
            progress(len(runs), total)
            say(f"{entry.name}: warming up")
            runs.append(start(entry))
            runs[-1].warm()
        for done, turn in enumerate(order):
            progress(len(entries) + done, total)
            lap = f"lap {len(runs[turn].laps) + 1} of {len(order) // len(entries)}"
            say(f"{entries[turn].name}: {lap}")
            runs[turn].run()
        progress(total, total)
        return [(run.result(bandwidth), run.pictures) for run in runs]
    finally:
        for run in runs:
            run.close()


def ratios(result: Race) -> list[str]:
    """What the first racer's times are over each other one's, in words: medians of the ratios
    within each round, with least and most.
    """
    first, *others = result.racers
    return [
        f"{first.name} over {other.name}: {', '.join(_ratios(first, other))}" for other in others
    ]


def _ratios(first: Racer, other: Racer) -> Iterator[str]:
    whole = ("codes and pictures", "seconds")
    alike = first.codes_per_pass is not None and other.codes_per_pass is not None
    parts = (("codes", "codes_seconds"), ("first code", "first_code_seconds")) if alike else ()
    for what, name in (*parts, whole):
        found = Spread.of(
            [
                getattr(a, name) / getattr(b, name)
                for a, b in zip(first.laps, other.laps, strict=True)
            ]
        )
        yield f"{what} {found.median:.2f} ({found.min:.2f} - {found.max:.2f})"
    if alike:
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


def _comparable(entries: Sequence[Pipeline | Diffusion]) -> Pipeline:
    """The first of them; InvalidInput unless all do the same work."""
    if len(entries) < 2:
        raise InvalidInput(f"a race takes two models or more, not {len(entries)}")
    first, *others = entries
    if isinstance(first, Diffusion):
        raise InvalidInput(f"{first.name} cannot be the first of a race; name it as the opponent")
    for other in others:
        same = {**_SAME, **({} if isinstance(other, Diffusion) else _SAME_CODES)}
        for what, of in same.items():
            a, b = of(first), of(other)
            if a != b:
                raise InvalidInput(
                    f"{first.name} and {other.name} cannot race, as the {what} is {a} and {b}; "
                    "choose a pair of one kind"
                )
    return first


_SAME: dict[str, Callable[[Any], object]] = {
    "device": lambda entry: entry.device,
    "precision": lambda entry: entry.dtype,
    "size of a picture": lambda entry: (
        entry.image_size if isinstance(entry, Diffusion) else entry.tokenizer.config.output_size
    ),
}
_SAME_CODES: dict[str, Callable[[Any], object]] = {
    "number of codes": lambda pipe: pipe.model.config.num_tokens,
    "codebook": lambda pipe: pipe.model.config.vocab_size,
    "tokenizer's configuration": lambda pipe: pipe.tokenizer.config,
    "tokenizer's precision": lambda pipe: pipe.tokenizer.dtype,
}


def _common(entries: Sequence[Pipeline | Diffusion]) -> int:
    """The first class that all know."""
    for index in entries[0].classes:
        if all(index in entry.classes for entry in entries[1:]):
            return index
    names = " and ".join(entry.name for entry in entries)
    raise InvalidInput(f"{names} have no class in common")
