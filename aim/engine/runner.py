"""The tensors of the engine: one model step and one draw for every row, on the device, without
waiting for it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TypeAlias, cast

import numpy as np
import torch
from torch import Tensor

from aim.ahead import Guesses, draw_window, read_window
from aim.config import INDEX
from aim.engine import transfer
from aim.engine.graphs import Graphs
from aim.engine.requests import Mix, Request
from aim.engine.scheduler import Running
from aim.engine.transfer import HostCopy
from aim.models.interface import Decoder, State, WindowDecoder
from aim.sampling import Rows, draw_rows

# of a request: passes, codes, notes and guesses
Come: TypeAlias = tuple[int, np.ndarray, np.ndarray | None, np.ndarray | None]
# conditions made at once on a GPU: as many as there can be requests, between these
TOGETHER, MOST_TOGETHER = 64, 256


def batch_sizes(device: torch.device, dtype: torch.dtype, slots: int) -> tuple[int, ...]:
    """The numbers of rows that a batch may have, ascending; the last is at least ``slots``.

    Chosen so that a row's float32 logits do not depend on the others: such a product on a CPU gives
    the same bits in batches of 4, 8, 12, ... rows; elsewhere the kernel is picked by the number of
    rows, and float32 always runs the whole pool. In bf16 a batched product on a CPU is exact from 2
    rows on; on a GPU there are few sizes, as each is captured.
    """
    slots += slots % 2
    if device.type == "cpu":
        multiple = 4 if dtype == torch.float32 else 2
        return tuple(range(multiple, slots + multiple, multiple))
    if dtype == torch.float32:
        return (slots,)
    if device.type != "cuda":
        return tuple(range(2, slots + 2, 2))
    return (*(2**i for i in range(1, (slots - 1).bit_length())), slots)


class Runner:
    """Pools for ``slots`` rows: what the model remembers, condition, ``Rows``; and the step on the
    first of them.

    ``model`` is anything with the interface of ``Decoder``, and of ``WindowDecoder`` where
    ``widest``, the items of a row in one step, is more than 1; with ``captured`` its
    step must do the same on the device whenever it has as many rows. Not thread-safe: the engine
    calls it from one place.
    """

    def __init__(self, model: Decoder, slots: int, captured: bool = True, widest: int = 1) -> None:
        self.model = model
        self.device = model.device
        self.total = model.config.num_tokens  # codes of a picture
        self.sizes = batch_sizes(model.device, model.dtype, slots)
        self.together = (
            1 if self.device.type == "cpu" else min(MOST_TOGETHER, max(TOGETHER, slots // 2))
        )
        self._made: dict[int, Tensor] = {}  # conditions of those in line, by id of the request
        self._no_class: Mix = ((model.config.num_classes, 1.0),)
        self._queue = transfer.device_queue(self.device)
        self.graphs = Graphs(self._queue, self._step, self._idle, captured)
        slots = self.sizes[-1]
        with self._queue.work():
            self._null = self._condition([])[-1]
            self._guesses: Guesses | None = None
            if widest > 1:
                ahead = self._window_model = cast(WindowDecoder, model)
                self._state: State = ahead.new_state(slots, widest)
                c = model.config
                self._guesses = Guesses.new(slots, widest, c.num_tokens, c.vocab_size, self.device)
            else:
                self._state = model.new_state(slots)
            self._cond = self._null.new_zeros(slots, *self._null.shape)
            # those that the host writes lie together: a change of the batch is three copies
            self._integers = torch.full((3, slots), -1, device=self.device)
            positions, partner, seed = self._integers
            self._rows = dataclasses.replace(
                Rows.new(slots, model.config.num_tokens, self.device),
                **{"positions": positions, "partner": partner, "seed": seed},
            )

    def admit(self, joined: Sequence[Running], line: Iterable[Request] = ()) -> None:
        """Fill the condition of up to ``together`` new requests' slots; their state is cleared by
        their first step, or by their prefix. Those who wait in ``line`` have theirs made along, as
        far as it costs nothing, so that a GPU need not wait for the host when they join.
        """
        with self._queue.work():
            conditions = self._conditions([entry.request for entry in joined], line)
            firsts = [(entry.slots[0], entry.step) for entry in joined]
            seconds = [(entry.slots[1], entry.step) for entry in joined if len(entry.slots) > 1]
            at, steps = self._queue.send(torch.tensor(firsts + seconds).T.contiguous())
            self._cond[at[: len(firsts)]] = conditions
            self._cond[at[len(firsts) :]] = self._null
            for entry in joined:
                if entry.request.prefix:
                    self._read(entry)
            if self._guesses is not None:
                self._guesses.start(at, steps)

    def _read(self, entry: Running) -> None:
        """Take a request to the last code of its prefix, which the next step reads; alone, for the
        same bits in any company.
        """
        codes, slots = (
            self._queue.send(torch.tensor(values)) for values in (entry.request.prefix, entry.slots)
        )
        embeddings = self._embeddings([entry.request.mix, self._no_class][: len(slots)])
        self.model.prefill(codes[:-1].expand(len(slots), -1), embeddings, self._state, slots)
        self._rows.drawn[entry.slots[0], : len(codes)] = codes
        self._rows.notes[entry.slots[0], : len(codes)] = 0.0
        self._rows.last[slots] = codes[-1]

    def move(self, moves: Sequence[tuple[int, int]]) -> None:
        """Copy slots to others: pairs of (from, to), no slot twice. What the host knows of them
        follows with ``arrange``.
        """
        with self._queue.work():
            src, dst = self._queue.send(torch.tensor(moves).T.contiguous())
            self._state.copy(src, dst)
            for pool in (self._cond, self._rows.last, self._rows.drawn, self._rows.notes):
                pool[dst] = pool[src]
            if self._guesses is not None:
                self._rows.positions[dst] = self._rows.positions[src]
                self._guesses.move(src, dst)

    def arrange(self, running: Iterable[Running]) -> None:
        """Take up a changed set of requests. Drawing ahead, the device knows best where those are
        that were here before.
        """
        slots = self.sizes[-1]
        known = np.zeros(slots, bool)
        integers, params = np.zeros((3, slots), np.int64), np.zeros((len(INDEX), slots), np.float32)
        explain = np.zeros(slots, bool)
        integers[:2] = -1
        for entry in running:
            request, row = entry.request, entry.slots[0]
            integers[0, entry.slots] = entry.step
            integers[1:, row] = entry.slots[-1], request.seed
            params[:, row] = request.params.numbers
            explain[row] = request.explain
            known[entry.slots], entry.arranged = entry.arranged, True
        with self._queue.work():
            before = self._rows.positions.clone()
            for values, into in (
                (integers, self._integers),
                (params, self._rows.params),
                (explain, self._rows.explain),
            ):
                self._queue.upload(torch.from_numpy(values), into)
            if self._guesses is not None:
                here = self._queue.send(torch.from_numpy(known))
                self._rows.positions.copy_(torch.where(here, before, self._rows.positions))

    def step(self, rows: int, width: int = 1) -> None:
        """Draw one more code for every request in the first ``rows`` rows, one of ``sizes``; or
        with a ``width`` up to ``widest`` as many as are settled, one to ``width``.
        """
        with self._queue.work():
            self._queue.pace()
            self.graphs.run(rows, width)

    def places(self) -> HostCopy:
        """A copy of how many codes each slot has (slots,)."""
        with self._queue.work():
            return self._queue.download([self._rows.positions])

    def fetch(self, entries: Sequence[Running], width: int = 1) -> HostCopy:
        """Copies of all that there is of requests: codes (R, num_tokens), and of those that asked
        notes (E, num_tokens, 13); only the first ``step`` of a request are its own. Of those, after
        a pass of ``width`` of more than 1, also how many are settled (E,), and what is guessed to
        follow (E, width - 1).

        Broken codes are ``aim.sampling.BROKEN``; ``unpack`` reads what has come.
        """
        slots = [entry.slots[0] for entry in entries]
        explained = [entry.slots[0] for entry in entries if entry.request.explain]
        wanted = [(self._rows.drawn, slots), (self._rows.notes, explained)]
        if self._guesses is not None and width > 1 and explained:
            guessed = self._guesses.codes[:, : width - 1]
            wanted += [(self._rows.positions, explained), (guessed, explained)]
        with self._queue.work():
            return self._queue.download([self._pick(*one).contiguous() for one in wanted])

    def _pick(self, pool: Tensor, slots: list[int]) -> Tensor:
        if len(slots) < 2:  # spares the usual case two calls
            return pool[slots[0] : slots[0] + 1] if slots else pool[:0]
        return pool[self._queue.send(torch.tensor(slots))]

    def work(self) -> AbstractContextManager[object]:
        """Inside it the device's work is ordered behind this one's."""
        return self._queue.work()

    def drain(self) -> None:
        """Wait until the device has done all that was ordered."""
        self._queue.drain()

    def _step(self, rows: int, width: int) -> None:
        if width > 1 and self._guesses is not None:
            items, at = read_window(self._rows, self._guesses, rows, width)
            logits = self._window_model.advance(items, at, self._cond, self._state)
            counts = draw_window(logits, items, at, self._rows, self._guesses)
            self._window_model.settle(counts, at, self._state)
            return
        last, at = self._rows.last[:rows], self._rows.positions[:rows]
        draw_rows(self.model.step(last, at, self._cond, self._state), self._rows)

    @contextmanager
    def _idle(self) -> Iterator[None]:
        positions = self._rows.positions.clone()
        self._rows.positions.fill_(-1)
        try:
            yield
        finally:
            self._rows.positions.copy_(positions)

    def _embeddings(self, mixes: Sequence[Mix]) -> Tensor:
        """(R, D): what each mix of classes comes to, computed alone, for the same bits in any
        company; the vector itself of a class that is unmixed.
        """
        table = self.model.class_table
        embeddings = table[self._queue.send(torch.tensor([mix[0][0] for mix in mixes]))]
        for embedding, mix in zip(embeddings, mixes, strict=True):
            if len(mix) > 1:
                rows, weights = map(list, zip(*mix, strict=True))
                first, *others = table[self._queue.send(torch.tensor(rows))].float()
                ways = torch.stack([other - first for other in others])
                shares = self._queue.send(torch.tensor(weights[1:], dtype=torch.float32))
                embedding.copy_(first + (shares[:, None] * ways).sum(0))
        return embeddings

    def _conditions(self, joined: Sequence[Request], line: Iterable[Request]) -> Tensor:
        """Of requests, made before or now, and of those in line for later."""
        made = self._made
        new = [request for request in joined if request.id not in made]
        line = list(line)
        if new:
            after = [request for request in line if request.id not in made]
            new += after[: max(0, self.together - len(new))]
            rows = self._condition([request.mix for request in new])
            made |= {request.id: row for request, row in zip(new, rows, strict=False)}
        conditions = torch.stack([made[request.id] for request in joined])
        self._made = {one.id: made[one.id] for one in line if one.id in made}
        return conditions

    def _condition(self, mixes: Sequence[Mix]) -> Tensor:
        """Of up to ``together`` mixes, then of no class. Always as many rows at once: the same
        bits at every admission.
        """
        rows = [*mixes, *[self._no_class] * (max(4, self.together) - len(mixes))]
        return self.model.condition(self._embeddings(rows))


def unpack(
    arrays: Sequence[np.ndarray], told: Iterable[tuple[Running, int, int]], total: int
) -> Iterator[tuple[Running, Come]]:
    """Of ``fetch``'s copies and its requests, each with codes and passes that are to be told of
    it. Who is guessed for has all told that is settled.
    """
    rows, *explained = arrays
    each = zip(*explained, strict=True)
    for (entry, step, passes), codes in zip(told, rows, strict=True):
        notes = guesses = None
        if entry.request.explain:
            notes, *ahead = next(each)
            if ahead and step <= ahead[0] < total:
                step, guesses = int(ahead[0]), ahead[1][: total - ahead[0]]
            notes = notes[:step]
        yield entry, (passes, codes[:step], notes, guesses)
