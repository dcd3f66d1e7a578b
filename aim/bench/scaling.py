"""What an image costs as its sequence grows and as the batch grows, and what a model keeps in
memory of each.

Images as large as these are not drawn to the end. A batch is put into the engine's own runner (the
model's step, the draw and, on a GPU, the captured graph; with guidance), all rows at one position,
and single steps are timed, on a GPU with CUDA events:

- A sequence of at most 256 codes is stepped through code by code, if the time allows: all of it is
measured.
- Of a longer one, nine places evenly spaced from the first code to the last are sampled, up to 16
steps in a row at each, with random
  numbers in state or cache. Between those places the time of a step is taken to change linearly:
  interpolated.
- AiM's fused step keeps a history which it folds into the state every few codes, so it is stepped
from the start for 256 codes. From there
  on its time repeats itself, and the mean of the last 64 steps stands for all that follow:
  extrapolated.

Weights are random, those of the named model with its ``num_tokens`` replaced. Admission, copies to
the host and the decoding of images are left out.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch

from aim.bench.machine import Machine
from aim.bench.runs import Stop, Stopped, never
from aim.bench.sequence_cost import Cost, cost, fits
from aim.bench.speed import Say, release
from aim.bench.weights import random_prior, spec_of
from aim.config import PriorConfig
from aim.device import prepare
from aim.engine.backend import check, pick
from aim.errors import AimError, GenerationError, InvalidInput
from aim.settings import Settings

__all__ = ["Cost", "Missing", "Scaling", "scaling", "verdicts"]

TOKENS = (256, 1024, 4096, 16384)  # codes an image: grids of 16, 32, 64 and 128
SECONDS = 5.0  # for one model at one size, where no time is set
MEASURING = 0.7  # of the time, where one is set: the rest goes into building models and warming up
EVEN = 0.03  # a difference in time that decides nothing


@dataclass(frozen=True)
class Missing:
    """A size that was not measured, and why: out of memory, no time left, stopped."""

    model: str
    tokens: int
    batch: int
    error: str


@dataclass(frozen=True)
class Scaling:
    """All that was measured, of every model at every length and batch size."""

    models: tuple[str, ...]
    tokens: tuple[int, ...]
    batches: tuple[int, ...]
    costs: tuple[Cost, ...]
    missing: tuple[Missing, ...]
    dtype: str
    machine: Machine

    def cost(self, model: str, tokens: int, batch: int) -> Cost | None:
        """Of one model at one size; None where it is missing."""
        return next(
            (
                found
                for found in self.costs
                if (found.model, found.tokens, found.batch) == (model, tokens, batch)
            ),
            None,
        )


def scaling(
    names: Sequence[str] = ("aim-b", "gpt-b"),
    tokens: Sequence[int] = TOKENS,
    batches: Sequence[int] = (1,),
    device: str = "auto",
    dtype: str = "auto",
    backend: str = "auto",
    seconds: float | None = None,
    say: Say = lambda text: None,
    stop: Stop = never,
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> Scaling:
    """Measure the named models at every length and batch size: first every batch at the first
    length, then every length at the first batch.

    All of it takes about ``seconds``, if given, and what was not begun by then is missing; so is
    what does not fit into memory and, once ``stop``, asked before every step, says so, the rest.
    ``say`` and ``progress`` (sizes done, their total) are called between sizes. InvalidInput: no
    such model, a number of codes that is no square, a device or backend that is not there.
    """
    where, what = prepare(device, dtype, Settings.from_env().threads)
    check(backend, where)
    groups = [(length, name, some) for length, some in _groups(tokens, batches) for name in names]
    configs = {(name, length): _with_tokens(name, length) for length, name, _ in groups}
    left = total = sum(len(some) for *_, some in groups)
    deadline = None if seconds is None else time.perf_counter() + seconds
    costs: list[Cost] = []
    missing: list[Missing] = []
    for length, name, some in groups:
        measure = None
        for batch in some:
            progress(total - left, total)
            share = (
                SECONDS if deadline is None else MEASURING * (deadline - time.perf_counter()) / left
            )
            left -= 1
            error = "stopped" if stop() else "no time left" if share <= 0 else ""
            if not error:
                release(where)  # what the size before held
                say(f"{name}, {length} codes, batch {batch}")
                try:
                    measure = measure or _Measure(name, configs[name, length], where, what, backend)
                    costs.append(measure(batch, share, stop))
                    continue
                except torch.OutOfMemoryError:
                    error = "out of memory"
                except Stopped:
                    error = "stopped"
            missing.append(Missing(name, length, batch, error))
        del measure
        release(where)
    progress(total, total)
    kind = str(what).removeprefix("torch.")
    return Scaling(
        tuple(names),
        tuple(tokens),
        tuple(batches),
        tuple(costs),
        tuple(missing),
        kind,
        Machine.of(where),
    )


class _Measure:
    """One model of one length, built when it is made."""

    def __init__(
        self, name: str, config: PriorConfig, device: torch.device, dtype: torch.dtype, backend: str
    ) -> None:
        self._name = name
        self._backend = pick(random_prior(config, device, dtype), backend)

    def __call__(self, batch: int, seconds: float, stop: Stop) -> Cost:
        if not fits(self._backend.model, batch):
            raise torch.OutOfMemoryError
        try:
            return cost(self._name, self._backend, batch, seconds, stop)
        except (AimError, torch.OutOfMemoryError):
            raise
        except Exception as error:
            if "memory" in str(error):  # a CPU's allocator has no error of its own
                raise torch.OutOfMemoryError from error
            raise GenerationError(f"{self._name} failed at batch {batch}: {error}") from error


def verdicts(result: Scaling) -> list[str]:
    """Which of the first two models is faster where, in words, read off what was measured of both;
    a difference below 3% is none.
    """
    return [
        *(
            _verdict(
                result,
                f"Batch {batch}",
                "codes",
                [(length, length, batch) for length in result.tokens],
            )
            for batch in result.batches
        ),
        *(
            _verdict(
                result,
                f"{length} codes an image",
                "at once",
                [(batch, length, batch) for batch in result.batches],
            )
            for length in (result.tokens if len(result.batches) > 1 else ())
        ),
    ]


def _verdict(result: Scaling, where: str, unit: str, sizes: Sequence[tuple[int, int, int]]) -> str:
    """``sizes``: what grows, codes and batch of each."""
    one, other = result.models[:2]
    # of what grows, the log of the first model's time over the second's
    ratios: list[tuple[int, float]] = []
    for size, length, batch in sizes:
        a, b = result.cost(one, length, batch), result.cost(other, length, batch)
        if a and b:
            ratios.append((size, math.log(a.seconds / b.seconds)))
    faster = {
        one: [n for n, r in ratios if r < -EVEN],
        other: [n for n, r in ratios if r > EVEN],
        "": [n for n, r in ratios if abs(r) <= EVEN],
    }
    parts = [
        f"{name + ' is faster' if name else 'even'} at {_list(some)} {unit}"
        for name, some in faster.items()
        if some
    ]
    for (low, before), (high, after) in pairwise(ratios):
        if before * after < 0 and max(abs(before), abs(after)) > EVEN:
            crossing = math.exp(
                math.log(low) + (math.log(high) - math.log(low)) * before / (before - after)
            )
            parts.append(f"as fast as each other near {float(f'{crossing:.2g}'):,g}")
    return f"{where}: {'; '.join(parts) or 'not measured for both'}."


def _list(numbers: Sequence[int]) -> str:
    words = [f"{number:,}" for number in numbers]
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else words[0]


def _groups(tokens: Sequence[int], batches: Sequence[int]) -> Iterator[tuple[int, Sequence[int]]]:
    """Lengths with batch sizes, both axes before what lies between them."""
    yield tokens[0], batches
    for part in (batches[:1], batches[1:]):
        if part:
            yield from ((length, part) for length in tokens[1:])


def _with_tokens(name: str, tokens: int) -> PriorConfig:
    if math.isqrt(tokens) ** 2 != tokens or not 4 <= tokens <= 2**20:
        raise InvalidInput(
            f"the number of codes is {tokens}; it must be a square from 4 to {2**20}, as an image "
            "is a square grid"
        )
    return dataclasses.replace(spec_of(name).config, num_tokens=tokens)
