"""What the codes of a batch cost, from single steps at chosen positions of its sequence; see
``aim.bench.scaling`` for the method.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from aim.bench.machine import Clock
from aim.bench.runs import Stop, Stopped
from aim.config import AiMConfig, PriorConfig, SamplingParams
from aim.device import free_memory
from aim.engine import Request
from aim.engine.backend import Backend
from aim.engine.memory import RESERVE, pool_bytes, state_shapes
from aim.engine.runner import Runner
from aim.engine.scheduler import Running
from aim.models.aim.state import HistoryState
from aim.models.interface import Decoder, State
from aim.ops.attention import capacity

FULL = 256  # codes up to which every step may be measured
SETTLED = 64  # a multiple of the codes between two folds of AiM's fused step
WINDOWS, LONGEST = 9, 16  # places in a long sequence, and most steps timed at each
REPEATS = 3  # of the same steps, at the most
ROWS = 2  # an image, with guidance


@dataclass(frozen=True)
class Cost:
    """One model at one length and one batch size."""

    model: str
    backend: str
    tokens: int
    batch: int
    seconds: float  # of all codes of the batch
    seconds_per_image: float
    # along the sequence: a position, and milliseconds of a step there
    step_ms: tuple[tuple[int, float], ...]
    measured_steps: int  # positions that were timed, of ``tokens``
    sequence_bytes: int  # state or cache of one image, both rows


def kept(config: PriorConfig, tokens: int) -> int:
    """Bytes of state or cache that a model of ``config`` keeps of one image of ``tokens`` codes,
    both rows, in float32; counted, without a model.
    """
    values = (
        (config.d_conv - 1) * config.conv_dim + config.d_inner * config.d_state
        if isinstance(config, AiMConfig)
        else 2 * capacity(tokens) * config.d_model
    )
    return 4 * ROWS * config.n_layer * values


class Timed(NamedTuple):
    """Seconds of a step along a sequence."""

    steps: np.ndarray  # (T,) of every step, measured or not
    measured: np.ndarray  # positions that were timed, ascending


def fits(model: Decoder, batch: int) -> bool:
    """Whether the pools of ``batch`` images fit into the memory that is free; True where nobody
    says.
    """
    free = free_memory(model.device)
    return free is None or pool_bytes(model, ROWS * batch) < (1 - RESERVE) * free


def cost(name: str, backend: Backend, batch: int, seconds: float, stop: Stop) -> Cost:
    """Measure one size in about ``seconds``, warm-up not counted. ``Stopped`` if ``stop`` says so;
    errors of the model come through.
    """
    model = backend.model
    tokens = model.config.num_tokens
    state = state_shapes(model, ROWS * batch)
    timed = _along(_Steps(backend, batch, not _folds(state), stop), tokens, _folds(state), seconds)
    places = timed.measured[
        np.linspace(0, len(timed.measured) - 1, min(WINDOWS, len(timed.measured))).astype(int)
    ]
    total = float(timed.steps.sum())
    return Cost(
        model=name,
        backend=backend.name,
        tokens=tokens,
        batch=batch,
        seconds=total,
        seconds_per_image=total / batch,
        step_ms=tuple((int(at), 1e3 * float(_near(timed.steps, int(at)))) for at in places),
        measured_steps=len(timed.measured),
        sequence_bytes=sum(part.nbytes for part in state) // batch,
    )


class _Steps:
    """A batch in the engine's runner, whose rows are all put at one position and stepped from
    there.
    """

    def __init__(self, backend: Backend, batch: int, filled: bool, stop: Stop) -> None:
        model = _Filled(backend.model) if filled else backend.model
        self._stop, self._device, self.tokens = stop, model.device, model.config.num_tokens
        self._runner = Runner(model, ROWS * batch, captured=backend.name != "eager")
        params = SamplingParams()
        assert Request(0, params).rows == ROWS
        self._entries = [
            Running(Request(0, params, seed), [ROWS * seed, ROWS * seed + 1])
            for seed in range(batch)
        ]
        for i in range(0, batch, self._runner.together):
            self._runner.admit(self._entries[i : i + self._runner.together])
        self._rows = next(size for size in self._runner.sizes if size >= ROWS * batch)
        self.seconds(0, 2)  # compiled, captured

    def seconds(self, start: int, count: int) -> list[float]:
        """Of the steps at ``start``, ``start + 1``, ... (count,)."""
        for entry in self._entries:
            entry.step = start
        self._runner.arrange(self._entries)
        self._runner.drain()
        clock = Clock(self._device, self._runner.work)
        clock.mark()
        for _ in range(count):
            if self._stop():
                self._runner.drain()
                raise Stopped("the measurement was stopped")
            self._runner.step(self._rows)
            clock.mark()
        self._runner.drain()
        return clock.laps()


class _Filled:
    """A model whose new state is full of random numbers, as after many codes, instead of zeros,
    which a GPU multiplies with less power.
    """

    def __init__(self, model: Decoder) -> None:
        self._model = model

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def new_state(self, slots: int) -> State:
        """As the model's; what is counted in whole numbers stays zero."""
        state: State = self._model.new_state(slots)
        for part in state:
            if part.is_floating_point():
                part.normal_()
        return state


def _folds(state: State) -> bool:
    """Whether a state is a history since an origin, which a step at any other position must not
    meet.
    """
    return isinstance(state, HistoryState)


def _along(steps: _Steps, tokens: int, folds: bool, seconds: float) -> Timed:
    began = steps.seconds(0 if folds else max(0, tokens - 4), min(4, tokens))
    afford = int(seconds / (min(began) + 1e-9))
    full = min(tokens, FULL)
    if folds or (full == tokens and afford >= tokens):
        head = _median(steps, 0, full, afford // full)
        rest = np.full(tokens - full, head[-SETTLED:].mean())
        return Timed(np.concatenate([head, rest]), np.arange(full))
    count = min(tokens, LONGEST, max(2, afford // WINDOWS))
    starts = sorted(set(np.linspace(0, tokens - count, WINDOWS).astype(int).tolist()))
    at = [np.median(_median(steps, start, count, afford // (WINDOWS * count))) for start in starts]
    middle = np.array(starts) + (count - 1) / 2
    measured = np.unique(np.concatenate([np.arange(start, start + count) for start in starts]))
    return Timed(np.interp(np.arange(tokens), middle, at), measured)


def _median(steps: _Steps, start: int, count: int, repeats: int) -> np.ndarray:
    """Seconds of every step (count,) of a window, the median of up to ``REPEATS`` times."""
    runs = [steps.seconds(start, count) for _ in range(min(REPEATS, max(1, repeats)))]
    return np.median(np.array(runs), axis=0)


def _near(steps: np.ndarray, at: int) -> float:
    """Around a position: the mean of up to 16 steps, so that one in which AiM folds does not stand
    for all.
    """
    low = min(max(0, at - 8), max(0, len(steps) - 16))
    return float(steps[low : low + 16].mean())
