"""What a client asks of the engine, and what it hears back. No tensors here: all of this can cross
a process boundary.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

from aim.checks import number, quoted, whole
from aim.config import PriorConfig, SamplingParams, check_seed
from aim.errors import InvalidInput

_ids = itertools.count(1)
Mix: TypeAlias = Sequence[tuple[int, float]]  # class rows with their weights, which add up to 1


def new_id() -> int:
    """That no request of this process has."""
    return next(_ids)


@dataclass(frozen=True)
class Request:
    """One image: a class row of the model, how to draw it, and how often to hear of it.

    In place of a class row ``label`` may be a mix of some, whose embeddings are added with these
    weights. ``preview_every`` is the number of codes between two ``Progress`` events, 0 for none.
    With ``explain`` its events have notes on every code. With ``alone`` nobody else is in its
    batch: it waits until nothing runs and who comes later waits behind it; in bfloat16, where
    codes may depend on the size of the batch, this is how to draw the same picture again.
    ``prefix`` is the first codes of the picture, which are not drawn but read, all in one pass; any
    sequence of whole numbers will do. ``owner`` says whose it is, from what is shared by many (an
    address) to one visitor: who has less in the batch goes first. Values out of range raise
    InvalidInput; ``check`` says whether a model has the class and the codes of the prefix.
    """

    label: int | Mix
    params: SamplingParams = field(default_factory=SamplingParams)
    seed: int = 0
    preview_every: int = 0
    explain: bool = False
    alone: bool = False
    prefix: Sequence[int] | np.ndarray = ()
    owner: tuple[str, ...] = ()
    id: int = field(default_factory=new_id)

    def __post_init__(self) -> None:
        object.__setattr__(self, "seed", check_seed(self.seed))
        object.__setattr__(self, "preview_every", whole("preview_every", self.preview_every, 0))
        if isinstance(self.label, (list, tuple)):
            object.__setattr__(self, "label", _checked(self.label))
        codes = np.asarray(self.prefix)
        if codes.ndim != 1 or (codes.size and not np.issubdtype(codes.dtype, np.integer)):
            raise InvalidInput(
                f"prefix is {quoted(self.prefix)}; it must be a sequence of codes, whole numbers "
                "from 0 on"
            )
        object.__setattr__(self, "prefix", tuple(codes.tolist()))

    @property
    def mix(self) -> Mix:
        """The classes with their weights, of one class with 1."""
        return self.label if isinstance(self.label, tuple) else ((self.label, 1.0),)

    def check(self, config: PriorConfig) -> None:
        """InvalidInput for a class row or codes that a model of ``config`` does not have, and for a
        prefix that leaves nothing to draw.
        """
        for row, _ in self.mix:
            if not isinstance(row, (int, np.integer)) or not 0 <= row < config.num_classes:
                raise InvalidInput(
                    f"class row is {quoted(row)}; it must be a whole number in [0, "
                    f"{config.num_classes - 1}]"
                )
        if len(self.prefix) >= config.num_tokens:
            raise InvalidInput(
                f"prefix has {len(self.prefix)} codes; it must leave some to draw, of "
                f"{config.num_tokens}"
            )
        if wrong := [code for code in self.prefix if not 0 <= code < config.vocab_size]:
            raise InvalidInput(
                f"prefix holds the code {wrong[0]}; codes are whole numbers in [0, "
                f"{config.vocab_size - 1}]"
            )

    @property
    def rows(self) -> int:
        """Rows of the batch that it takes: guidance needs a second one, without the class."""
        return 1 if self.params.cfg_scale == 1 else 2


def _checked(mix: Mix) -> int | Mix:
    """Without classes that have no weight, and the class alone where it has all; InvalidInput for
    what is no mix.
    """
    try:
        pairs = [(row, weight) for row, weight in mix]
    except (TypeError, ValueError):
        raise InvalidInput(
            f"the mix is {quoted(mix)}; it must be pairs of a class row and its weight"
        ) from None
    weights = [number("weight", weight, 0, 1) for _, weight in pairs]
    if abs(sum(weights) - 1) > 1e-6:
        raise InvalidInput(f"the mix is {quoted(mix)}; its weights must add up to 1")
    kept = [(row, weight) for (row, _), weight in zip(pairs, weights, strict=True) if weight]
    return kept[0][0] if len(kept) == 1 else tuple(kept)


@dataclass(frozen=True)
class Queued:
    """It waits; ``place`` 1 is next. Sent when it starts to wait and whenever the place changes."""

    request_id: int
    place: int


@dataclass(frozen=True)
class Started:
    """It joins the batch."""

    request_id: int


@dataclass(frozen=True)
class Preparing:
    """The next step first makes the GPU ready for a batch of this size, which takes seconds;
    ``message`` says so to a person.
    """

    request_id: int
    message: str


@dataclass(frozen=True, eq=False)
class Progress:
    """``codes`` (step,) int64 are drawn of ``total``, those of a prefix included, after ``seconds``
    of model time and ``passes`` of the model, of which one may draw several (``aim.ahead``).

    ``notes`` (step, 13) float32 are those of ``aim.sampling.explain``, None if the request did not
    ask; zero for codes of a prefix. ``guesses`` (n,) int64 are the codes that the model holds for
    those which follow, and which it may still change; None where it does not look ahead or the
    request did not ask for notes.
    """

    request_id: int
    step: int
    total: int
    codes: np.ndarray
    seconds: float
    notes: np.ndarray | None = None
    passes: int = 0
    guesses: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Finished:
    """All ``codes`` (total,) int64, after ``seconds`` of model time; ``notes`` (total, 13) and
    ``passes`` as in ``Progress``.
    """

    request_id: int
    codes: np.ndarray
    seconds: float
    notes: np.ndarray | None = None
    passes: int = 0


@dataclass(frozen=True)
class Cancelled:
    """It was cancelled and holds nothing any more."""

    request_id: int


@dataclass(frozen=True)
class Failed:
    """It failed, and holds nothing any more; others in the batch go on unless the model itself
    failed.
    """

    request_id: int
    error: Exception


Event: TypeAlias = Queued | Started | Preparing | Progress | Finished | Cancelled | Failed
LAST = (Finished, Cancelled, Failed)  # nothing follows these
