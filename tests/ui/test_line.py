"""Who is let in, who goes first, and how a server ends."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest

from aim.engine import Request
from aim.engine.scheduler import Scheduler
from aim.errors import AimError, QueueFull
from aim.settings import Limits
from aim.ui.line import Line, Owner
from aim.ui.page import Page as Blocks
from aim.ui.stage.drawing import Drawing

Make = Callable[..., Any]


class Work:
    """Stopped or not."""

    stopped = False

    def stop(self) -> None:
        self.stopped = True


def owner(session: str, address: str = "1.2.3.4") -> Owner:
    client = SimpleNamespace(host=address)
    return Owner.of(SimpleNamespace(session_hash=session, client=client))


def test_each_has_a_share_and_all_together_a_bound() -> None:
    line = Line(Limits(share=2, address_share=3, places=3, waiting=1))
    with line.admit(owner("a"), Work()), line.admit(owner("a"), Work()):
        with pytest.raises(QueueFull, match=r"2 pictures of yours .* press Stop"):
            line.admit(owner("a"), Work()).__enter__()
        with line.admit(owner("b"), Work()):
            with pytest.raises(QueueFull, match="3 pictures are under way here for your address"):
                line.admit(owner("c"), Work()).__enter__()
            with line.admit(owner("c", "5.6.7.8"), Work()):
                with pytest.raises(QueueFull, match="4 pictures are drawn or wait here"):
                    line.admit(owner("d", "9.9.9.9"), Work()).__enter__()
                assert (line.busy, line.refused) == (4, 3)
    with line.admit(owner("a"), Work()):
        assert line.busy == 1


def test_work_counts_by_its_pictures() -> None:
    line = Line(Limits(places=4, waiting=8, share=6, address_share=12))
    sweep, grid, other, late = Work(), Work(), Work(), Work()
    with line.admit(owner("a"), sweep):
        assert line.pictures == 1
        assert line.claim(sweep, 9) == 4, "as many as are drawn at once"
        with line.admit(owner("a"), grid):
            assert line.claim(grid, 9) == 2, "what is left of its share"
            with pytest.raises(QueueFull, match="6 pictures of yours"):
                line.admit(owner("a"), Work()).__enter__()
            with line.admit(owner("b"), other):
                assert line.claim(other, 9) == 2, "half of the line is for those who come"
                with line.admit(owner("c"), late):
                    assert line.claim(late, 9) == 1 and line.pictures == 9
                    assert line.claim(sweep, 3) == 3, "it has three left"
                    assert line.claim(late, 9) == 1, "more than half are still waiting"
                    assert line.claim(sweep, 1) == 1 and line.claim(late, 9) == 3
        assert line.claim(sweep, 0) == 1
    assert line.pictures == 0


def test_twelve_sweeps_of_one_client_leave_a_newcomer_a_place() -> None:
    line, limits = Line(Limits()), Limits()
    with ExitStack() as sweeps:
        for i in range(12):
            sweep = Work()
            sweeps.enter_context(line.admit(owner(f"sweep {i}"), sweep))
            line.claim(sweep, 16)
        for i in range(limits.waiting // 2 - 12):
            sweeps.enter_context(line.admit(owner(f"new {i}"), Work()))
        assert line.refused == 0


def test_a_sweep_has_as_many_under_way_as_it_may(make_pipe: Make) -> None:
    pipe, brake = make_pipe()
    brake.seconds = 0.002
    line = Line(Limits(places=16, waiting=8, share=3))
    drawing = Drawing(owner("a"), line)
    most, state = 0, ""
    with line.admit(owner("a"), drawing):
        for view in drawing.views(pipe, [Request(0, seed=i, preview_every=8) for i in range(5)], 0):
            most = max(most, pipe.server.engine.running + pipe.server.engine.waiting)
            assert line.pictures <= 3
            state = view.state
        assert state == "done" and line.pictures == 1
    assert most == 3
    pipe.close()


def test_at_the_end_nobody_is_let_in_and_who_is_left_is_stopped() -> None:
    line, work = Line(Limits()), Work()
    with line.admit(owner("a"), work):
        assert line.end(0.0) == 1 and work.stopped
        with pytest.raises(QueueFull, match="about to end"):
            line.admit(owner("b"), Work()).__enter__()


def requests(*owners: tuple[str, ...]) -> list[Request]:
    return [Request(0, owner=one) for one in owners]


def test_who_has_nothing_in_the_batch_goes_first() -> None:
    line = Scheduler(2, 8, (2, 4))
    many = requests(*[("address", "sweep")] * 6)
    for request in many[:4]:
        line.add(request)
    assert [one.request for one in line.admit()] == many[:2]
    new, other = requests(("address", "new"), ("elsewhere", "other"))
    line.add(new), line.add(other)
    # who shares an address with the sweep comes after who does not
    assert [(one, place) for one, place in line.places()] == [
        (other, 1), (new, 2), (many[2], 3), (many[3], 4)
    ]  # fmt: skip
    line.remove(many[0].id)
    assert [one.request for one in line.admit()] == [other]
    line.remove(many[1].id)
    assert [one.request for one in line.admit()] == [new]


def test_nobody_passes_one_who_asks_to_be_alone() -> None:
    line = Scheduler(2, 8, (2, 4))
    first, second = requests(("a",), ("a",))
    alone, late = Request(0, owner=("a",), alone=True), Request(0, owner=("b",))
    for request in (first, second, alone, late):
        line.add(request)
    line.admit()
    assert [one for one, _ in line.places()] == [alone, late]
    line.remove(first.id)
    assert line.admit() == []


def test_a_port_that_is_taken_is_an_error() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with Blocks() as page:
            gr.Markdown("hello")
        with pytest.raises(AimError, match=rf"port {port} cannot be had.*--port"):
            page.launch(server_port=port, quiet=True, prevent_thread_lock=True)
