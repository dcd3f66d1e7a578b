from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aim.config import SamplingParams
from aim.engine import scheduler as line
from aim.engine.requests import Queued, Request
from aim.engine.scheduler import Places, Scheduler
from aim.errors import InvalidInput, QueueFull


def request(cfg_scale: float = 2.0, alone: bool = False) -> Request:
    return Request(0, SamplingParams(cfg_scale=cfg_scale), alone=alone)


def test_guidance_takes_two_rows() -> None:
    assert request(2.0).rows == 2
    assert request(0.0).rows == 2
    assert request(1.0).rows == 1


@pytest.mark.parametrize(
    "changes", [{"seed": -1}, {"seed": 2**32}, {"preview_every": -1}, {"preview_every": 1.5}]
)
def test_a_request_out_of_range_is_refused(changes: dict) -> None:
    with pytest.raises(InvalidInput, match=next(iter(changes))):
        Request(0, **changes)


def test_ids_differ() -> None:
    assert len({request().id for _ in range(10)}) == 10


def test_lowest_slots_first_and_first_come_first_served() -> None:
    scheduler = Scheduler(3, 5, range(1, 7))
    requests = [request(1.0), request(), request(), request(1.0)]
    for r in requests:
        scheduler.add(r)
    assert [(e.request, e.slots) for e in scheduler.admit()] == [
        (requests[0], [0]),
        (requests[1], [1, 2]),
        (requests[2], [3, 4]),
    ]
    scheduler.remove(requests[0].id)
    scheduler.remove(requests[1].id)
    assert [e.slots for e in scheduler.admit()] == [[0]]
    assert scheduler.rows == 5


def test_the_line_is_bounded_and_places_are_visible() -> None:
    scheduler = Scheduler(1, 2, (2,))
    first, second, third = request(), request(), request()
    scheduler.add(first)
    assert scheduler.places() == [(first, 0)], "it starts with the next step"
    scheduler.add(second)
    scheduler.add(third)
    assert scheduler.places() == [(first, 0), (second, 1), (third, 2)]
    with pytest.raises(QueueFull, match="2 wait"):
        scheduler.add(request())
    scheduler.admit()
    with pytest.raises(QueueFull):
        scheduler.add(request())
    scheduler.remove(second.id)
    assert scheduler.places() == [(third, 1)]


def test_compaction_fills_holes_only_where_it_saves_rows() -> None:
    scheduler = Scheduler(4, 0, (4, 8))
    requests = [request() for _ in range(4)]
    for r in requests:
        scheduler.add(r)
    scheduler.admit()
    scheduler.remove(requests[1].id)
    assert scheduler.compact() == []
    assert scheduler.rows == 8, "6 rows take 8 anyway"
    scheduler.remove(requests[0].id)
    assert scheduler.compact() == [(7, 0), (6, 1), (5, 2), (4, 3)]
    assert scheduler.running[requests[2].id].slots == [3, 2]
    assert scheduler.running[requests[3].id].slots == [1, 0]
    assert scheduler.rows == 4
    assert scheduler.compact() == []


def test_rows_move_only_into_a_smaller_batch() -> None:
    scheduler = Scheduler(8, 0, (2, 4, 8, 16))
    requests = [request() for _ in range(7)]
    for r in requests:
        scheduler.add(r)
    scheduler.admit()
    for left, moves, rows in ((6, 0, 16), (5, 0, 16), (4, 6, 8), (3, 0, 8), (2, 0, 4), (1, 0, 2)):
        scheduler.remove(requests[6 - left].id)
        assert (len(scheduler.compact()), scheduler.rows) == (moves, rows)


class TestAlone:
    def test_it_waits_until_nothing_runs_and_who_comes_later_waits_behind_it(self) -> None:
        scheduler = Scheduler(3, 5, (2, 4, 6))
        first, lonely, late, later = request(), request(alone=True), request(), request(1.0)
        for r in (first, lonely, late, later):
            scheduler.add(r)
        assert [place for _, place in scheduler.places()] == [0, 1, 2, 3]
        assert [e.request for e in scheduler.admit()] == [first]
        assert scheduler.admit() == []
        assert [place for _, place in scheduler.places()] == [1, 2, 3]
        scheduler.remove(first.id)
        assert [e.request for e in scheduler.admit()] == [lonely]
        assert scheduler.admit() == []
        scheduler.remove(lonely.id)
        assert [place for _, place in scheduler.places()] == [0, 0]
        assert [e.request for e in scheduler.admit()] == [late, later]

    def test_the_line_is_bounded_behind_it(self) -> None:
        scheduler = Scheduler(4, 2, (8,))
        for _ in range(3):
            scheduler.add(request(alone=True))
        with pytest.raises(QueueFull):
            scheduler.add(request())


class TestAnyHistory:
    """Whatever happens in whatever order, slots are neither lost nor shared."""

    @given(st.data())
    def test_slots(self, data: st.DataObject) -> None:
        capacity, multiple = data.draw(st.integers(1, 5)), data.draw(st.sampled_from([1, 2, 4]))
        scheduler = Scheduler(capacity, 3, range(multiple, 2 * capacity + multiple, multiple))
        content: dict[int, int] = {}  # what a row pool would hold: slot -> request
        alive: set[int] = set()
        for _ in range(data.draw(st.integers(1, 25))):
            action = data.draw(st.sampled_from(["add", "admit", "remove", "compact"]))
            if action == "add":
                r = request(
                    data.draw(st.sampled_from([1.0, 2.0])),
                    alone=data.draw(st.sampled_from([False, False, True])),
                )
                try:
                    scheduler.add(r)
                except QueueFull:
                    assert len(scheduler.waiting) >= 3
                    assert sum(place > 0 for _, place in scheduler.places()) >= 2, (
                        "the new one would have been third or worse"
                    )
                else:
                    alive.add(r.id)
            elif action == "admit":
                for entry in scheduler.admit():
                    content.update(dict.fromkeys(entry.slots, entry.request.id))
            elif action == "remove" and alive:
                gone = data.draw(st.sampled_from(sorted(alive)))
                assert scheduler.remove(gone)
                assert not scheduler.remove(gone)
                alive.remove(gone)
            elif action == "compact":
                before = scheduler.rows
                moves = scheduler.compact()
                assert {src for src, _ in moves}.isdisjoint(dst for _, dst in moves)
                content.update([(dst, content[src]) for src, dst in moves])
                assert scheduler.rows == -(-scheduler.used // multiple) * multiple
                assert bool(moves) == (scheduler.rows < before)
            taken = [slot for entry in scheduler.running.values() for slot in entry.slots]
            assert len(taken) == len(set(taken)) == scheduler.used <= 2 * capacity
            assert len(scheduler.running) == 1 or not any(
                e.request.alone for e in scheduler.running.values()
            )
            assert all(
                content[slot] == entry.request.id
                for entry in scheduler.running.values()
                for slot in entry.slots
            )
            assert all(
                len(entry.slots) == entry.request.rows for entry in scheduler.running.values()
            )
            assert {r.id for r in scheduler.waiting} | set(scheduler.running) == alive
        for gone in alive:
            scheduler.remove(gone)
        assert scheduler.idle
        assert scheduler.used == 0


def test_who_comes_is_told_at_once_and_who_waits_not_at_every_change(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 100.0
    monkeypatch.setattr(line.time, "monotonic", lambda: now)
    places, (a, b, c) = Places(), [request() for _ in range(3)]
    assert places.news([(a, 1)]) == [Queued(a.id, 1)] and not places.due
    assert places.news([(a, 2), (b, 1)]) == [Queued(b.id, 1)], "only who is new"
    assert places.news([(a, 1)]) == [] and not places.due, "as it was told, again"
    assert places.news([(a, 2), (c, 1)]) == [Queued(c.id, 1)]
    now += line.AGAIN
    assert places.due and places.news([(a, 2), (c, 1)]) == [Queued(a.id, 2)] and not places.due
    crowd = [(request(), place) for place in range(1, 91)]
    assert len(places.news(crowd)) == 90
    now += line.AGAIN
    assert places.news(crowd[::-1]) == [], "nothing is new"
    moved = [(one, place % 90 + 1) for one, place in crowd]
    assert len(places.news(moved)) == 90
    now += line.AGAIN
    assert places.news(crowd) == [], "a long line is told less often"
    now += 90 / line.PLACES_A_SECOND - line.AGAIN
    assert len(places.news(crowd)) == 90
