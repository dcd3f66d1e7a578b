"""One drawing: what there is to see of it, and every way in which it ends."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest

from aim.config import SamplingParams
from aim.engine import Engine, Request, Server
from aim.engine.passes import up_to
from aim.errors import QueueFull
from aim.pipeline import Pipeline
from aim.settings import Limits
from aim.stream import Stream
from aim.ui.line import Line
from aim.ui.stage import drawing
from aim.ui.stage.drawing import COUNT_EVERY, Drawing
from aim.ui.stage.sessions import Sessions
from aim.ui.stage.updates import describe_view
from pages import Brake, until
from tests.engine.late import LateQueue

Make = Callable[..., tuple[Pipeline, Brake]]


@pytest.fixture(autouse=True)
def nobody_drew_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawing._Pace, "_next_image", 0.0)


def request(seed: int = 0) -> Request:
    return Request(0, SamplingParams(cfg_scale=2.0), seed, COUNT_EVERY)


def opaque(image) -> float:
    """The share of the picture that is drawn."""
    return float((np.asarray(image.convert("RGBA"))[..., 3] == 255).mean())


def test_views_grow_and_end_with_the_whole_picture(
    make_pipe: Make, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(drawing, "PREVIEW_SHARE", 0.5)
    pipe, brake = make_pipe()
    brake.seconds = 0.004
    views = list(Drawing().views(pipe, [request()], preview_every=8))
    assert [view.state for view in views[:-1]] == ["drawing"] * (len(views) - 1)
    assert [view.step for view in views] == sorted(view.step for view in views)
    assert all(view.total == 256 for view in views)
    partial = [view for view in views[:-1] if view.image is not None]
    assert len(partial) >= 3
    for view in partial:
        assert view.image.mode == "RGBA"
        assert opaque(view.image) == view.step / 256
    last = views[-1]
    assert (last.state, last.step, last.image.mode, last.image.size) == (
        "done",
        256,
        "RGB",
        (64, 64),
    )
    assert last.rate == pytest.approx(256 / last.seconds)
    assert pipe.server.engine.idle


def test_what_is_prepared_is_told(make_pipe: Make, monkeypatch: pytest.MonkeyPatch):
    pipe, _ = make_pipe()
    pipe.server.close()
    monkeypatch.setattr("aim.engine.transfer.device_queue", LateQueue)
    pipe._server = Server(Engine(pipe.model))
    views = list(Drawing().views(pipe, [request()], 0))
    told = next(view for view in views if view.state == "preparing")
    assert (told.step, told.note) == (0, "Preparing the GPU for 2 images at once …")
    assert describe_view(told) == told.note
    assert not any(view.note for view in views if view is not told)
    assert views[-1].state == "done"


def test_passes_are_told_where_they_are_fewer_than_codes(make_pipe: Make):
    pipe, _ = make_pipe()
    [*_, one_by_one] = Drawing().views(pipe, [request()], 0)
    assert (one_by_one.passes, "passes" in describe_view(one_by_one)) == (256, False)
    pipe.server.close()
    pipe._server = Server(Engine(pipe.model, widths=up_to(8)))
    [*_, ahead] = Drawing().views(pipe, [request(), request()], 0)
    assert 2 * 32 <= ahead.passes < 2 * 256
    assert describe_view(ahead).startswith(f"512 / 512 codes in {ahead.passes} passes, ")


def test_views_come_no_faster_than_a_page_takes_them(
    make_pipe: Make, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(drawing, "MAX_FPS", 5)
    pipe, brake = make_pipe()
    brake.seconds = 0.002
    started = time.monotonic()
    count = sum(
        view.state == "drawing" and view.step > 0 for view in Drawing().views(pipe, [request()], 1)
    )
    assert 2 <= count <= (time.monotonic() - started) * 5 + 1


def test_a_drawing_wakes_for_what_is_shown(make_pipe: Make, monkeypatch: pytest.MonkeyPatch):
    frames = []
    real = Stream._frame
    monkeypatch.setattr(Stream, "_frame", lambda *of: frames.append(of) or real(*of))
    pipe, brake = make_pipe()
    brake.seconds = 0.004  # a count every 32 ms
    views = list(Drawing().views(pipe, [request()], 0))
    assert 256 / COUNT_EVERY > len(frames) >= len(views) > 5
    assert len(frames) <= len(views) + 3


def test_a_slow_decoder_takes_its_share_of_everybody_and_no_more(
    make_pipe: Make, monkeypatch: pytest.MonkeyPatch
):
    pipe, _ = make_pipe()
    monkeypatch.setattr(pipe, "preview", lambda codes: time.sleep(0.02) or len(codes))
    monkeypatch.setattr(drawing, "PREVIEW_SHARE", 0.25)
    paces = drawing._Pace(1), drawing._Pace(1)
    times = []
    end = time.monotonic() + 0.5
    for step in range(1, 10**6):
        started = time.monotonic()
        if paces[step % 2].shown(step, partial(pipe.preview, np.zeros(step))):
            times.append(time.monotonic() - started)
        if started > end:
            break
        time.sleep(0.001)
    assert len(times) >= 3
    assert sum(times[:-1]) <= 0.5 * (drawing.PREVIEW_SHARE + 0.1)  # of both together


def test_a_long_drawing_and_a_crowd_are_shown_less_often(monkeypatch: pytest.MonkeyPatch):
    now = [100.0]
    monkeypatch.setattr(drawing.time, "monotonic", lambda: now[0])

    def views(seconds: float) -> int:
        count = 0
        with drawing._Pace(0) as pace:
            end = now[0] + seconds
            while now[0] < end:
                count += pace.due()
                now[0] += 0.004
        return count

    assert 7 <= views(0.6) <= 9
    assert 60 * drawing.MIN_FPS < views(60) < 60 * drawing.MIN_FPS + 25
    monkeypatch.setattr(drawing._Pace, "_drawing", 63)
    assert views(1) <= 1 + drawing.VIEWS_A_SECOND / 64 + 1


def test_without_previews_the_count_goes_on(make_pipe: Make):
    pipe, brake = make_pipe()
    brake.seconds = 0.002
    views = list(Drawing().views(pipe, [request()], preview_every=0))
    assert [view.step for view in views if view.image is not None] == [256]
    assert len({view.step for view in views}) > 3


def test_stop_before_it_begins_never_enters_the_engine(make_pipe: Make):
    pipe, brake = make_pipe()
    one = Drawing()
    one.stop()
    (view,) = one.views(pipe, [request()], 8)
    assert (view.state, view.step, brake.steps) == ("stopped", 0, 0)


def test_stop_from_another_thread_ends_it_within_a_step(make_pipe: Make):
    pipe, brake = make_pipe()
    brake.seconds = 0.05
    one = Drawing()
    views = one.views(pipe, [request()], 8)
    assert next(views).state == "drawing"
    assert until(lambda: brake.steps >= 3)
    at = brake.steps
    threading.Thread(target=one.stop).start()
    *_, last = views
    assert last.state == "stopped"
    assert last.step <= brake.steps <= at + 2
    assert pipe.server.engine.idle


def test_closing_the_views_ends_it(make_pipe: Make):
    pipe, brake = make_pipe()
    brake.seconds = 0.01
    views = Drawing().views(pipe, [request()], 8)
    next(views)
    views.close()
    assert until(lambda: pipe.server.engine.idle)
    assert brake.steps < 256


def test_the_line_is_told_and_a_full_one_refuses(make_pipe: Make):
    pipe, brake = make_pipe(running=1, waiting=1)
    brake.seconds = 0.005
    first, second = Drawing(), Drawing()
    running = first.views(pipe, [request()], 0)
    assert next(running).state == "drawing"
    waiting = second.views(pipe, [request(1)], 0)
    view = next(waiting)
    assert (view.state, view.place) == ("waiting", 1)
    with pytest.raises(QueueFull, match="try again"):
        next(Drawing().views(pipe, [request(2)], 0))
    first.stop()
    assert [v.state for v in running][-1] == "stopped"
    assert [v.state for v in waiting][-1] == "done"


def test_a_failure_is_raised(make_pipe: Make):
    pipe, _ = make_pipe()
    pipe.model.step = lambda *_, **__: 1 / 0
    with pytest.raises(ZeroDivisionError):
        list(Drawing().views(pipe, [request()], 0))


def test_a_session_stops_its_own_drawings_alone():
    sessions = Sessions(Drawing, Line(Limits()))
    a, b = SimpleNamespace(session_hash="a"), SimpleNamespace(session_hash="b")
    with sessions.one(a) as first, sessions.one(a) as second, sessions.one(b) as other:
        assert sessions.stop("a") == 2
        assert first.stopped and second.stopped and not other.stopped
        assert sessions.stop("nobody") == 0
    assert sessions.stop("a") == sessions.stop("b") == 0
