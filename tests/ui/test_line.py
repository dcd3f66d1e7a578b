"""Who is let in, who goes first, and how a server ends."""

from __future__ import annotations

import socket
from types import SimpleNamespace

import gradio as gr
import pytest

from aim.engine import Request
from aim.engine.scheduler import Scheduler
from aim.errors import AimError, QueueFull
from aim.settings import Limits
from aim.ui.line import Line, Owner
from aim.ui.page import Page as Blocks


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
        with pytest.raises(QueueFull, match=r"2 drawings of yours .* press Stop"):
            line.admit(owner("a"), Work()).__enter__()
        with line.admit(owner("b"), Work()):
            with pytest.raises(QueueFull, match="3 drawings are under way here for your address"):
                line.admit(owner("c"), Work()).__enter__()
            with line.admit(owner("c", "5.6.7.8"), Work()):
                with pytest.raises(QueueFull, match="4 others draw or wait here"):
                    line.admit(owner("d", "9.9.9.9"), Work()).__enter__()
                assert (line.busy, line.refused) == (4, 3)
    with line.admit(owner("a"), Work()):
        assert line.busy == 1


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
