"""The one interface of both priors, which every form of their step has: what engine and bench are
typed against.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from aim.config import PriorConfig
from aim.models.traffic import Traffic

WIDEST = 16  # items of a row in one pass


class State(Protocol):
    """What a model remembers of every row, a pool of slots."""

    @property
    def slots(self) -> int:
        """How many rows can be remembered."""

    def __iter__(self) -> Iterator[Tensor]:
        """The tensors, (layers, slots, ...) each."""

    def copy(self, src: Tensor, dst: Tensor) -> None:
        """Copy slots ``src (K,)`` over slots ``dst (K,)`` in place."""


S = TypeVar("S", bound=State)


class Decoder(Protocol[S]):
    """A prior, and how its step is taken. ``aim.models.aim.model.AiM`` says what each part does."""

    @property
    def config(self) -> PriorConfig:
        """Sizes; ``num_tokens`` codes of ``vocab_size`` make an image."""

    @property
    def device(self) -> torch.device:
        """Where the weights are."""

    @property
    def dtype(self) -> torch.dtype:
        """Of the matrices."""

    @property
    def class_table(self) -> Tensor:
        """Embeddings (num_classes + 1, D) of the classes, and of no class."""

    def condition(self, labels: Tensor, /) -> Tensor:
        """What depends on the class alone: class rows (R,) or embeddings (R, D) -> (R, ...)."""

    def new_state(self, slots: int, /) -> S:
        """Of ``slots`` rows, which this model alone can read."""

    def prefill(self, codes: Tensor, labels: Tensor, state: S, slots: Tensor, /) -> Tensor:
        """Read class rows (R,) or embeddings (R, D), then codes (R, K), at once, into slots (R,) ->
        logits (R, K + 1, V) float32.
        """

    def step(self, codes: Tensor, positions: Tensor, cond: Tensor, state: S, /) -> Tensor:
        """One item a row: codes (R,), positions (R,) -> logits (R, V) float32; row i is slot i."""

    def traffic(self, rows: int, /) -> Traffic:
        """Bytes that a step of ``rows`` rows has to move."""


class WindowDecoder(Decoder[S], Protocol[S]):
    """A prior that reads several items of a row in one pass, of which those behind a wrong guess
    are forgotten. Between a pass and its ``settle`` nothing else may happen to the state.
    """

    def new_state(self, slots: int, window: int = 1, /) -> S:
        """The same, for up to ``window`` items of a row in one pass, at most ``WIDEST``."""

    def advance(self, guesses: Tensor, positions: Tensor, cond: Tensor, state: S, /) -> Tensor:
        """W items a row: guesses (R, W), positions (R,) -> logits (R, W, V) float32; row i is slot
        i.

        Item ``positions + w`` is read, which is ``guesses[:, w]``, and code ``positions + w``
        predicted: as ``step`` does, behind w steps with the guesses before. In float32 on a CPU
        they are the same bits. The first of a row is no guess, but its last code. Items from
        ``num_tokens`` on are not there, and their logits mean nothing, as those of an idle row.
        """

    def settle(self, counts: Tensor, positions: Tensor, state: S, /) -> None:
        """Keep the first ``counts (R,)`` items of each row that the last ``advance``, at
        ``positions (R,)``, has read: the state is then that of as many steps. At least one, which
        is no guess, and 0 for an idle row.
        """
