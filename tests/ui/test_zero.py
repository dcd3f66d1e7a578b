"""Drawing on a ZeroGPU Space, with a stand-in for its package that really forks."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aim.engine import Request
from aim.errors import AimError, GenerationError
from aim.models.aim.model import AiM
from aim.models.vq.model import VQ
from aim.pipeline import Pipeline
from aim.settings import Settings
from aim.ui import models as ui_models
from aim.ui.models import Models
from aim.ui.stage.drawing import Drawing
from aim.ui.zero import ZeroServer, use_zero_gpu
from pages import Brake, until


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture
def spaces(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(str(Path(__file__).parent / "spaces_stand_in"))
    monkeypatch.delitem(sys.modules, "spaces", raising=False)
    yield importlib.import_module("spaces")
    sys.modules.pop("spaces", None)


@pytest.fixture
def zero(spaces: Any, make_model: Callable[..., AiM], grid_vq: VQ) -> tuple[Pipeline, Brake]:
    """A pipeline that draws in forked processes, and the brake of its model."""
    model, brake = make_model(num_tokens=256), Brake()
    model.step = brake(model.step)  # type: ignore[method-assign]
    pipe = Pipeline(model, grid_vq, "tiny", "0123456789ab", backend="eager")
    use_zero_gpu(pipe, "cpu")
    return pipe, brake


def test_pictures_are_those_of_an_engine_here(
    spaces: Any, zero: tuple[Pipeline, Brake], make_model: Callable[..., AiM], grid_vq: VQ
) -> None:
    pipe, brake = zero
    here = Pipeline(make_model(num_tokens=256), grid_vq, "tiny", "0123456789ab", backend="eager")
    frames = list(pipe.stream("goldfish", seed=4, preview_every=32))
    wanted = next(here.draw("goldfish", seed=4))
    assert (frames[-1].codes == wanted).all()
    assert np.array_equal(np.asarray(frames[-1].image), np.asarray(here.picture(wanted)))
    assert len(frames) > 4, "it streams"
    assert len(spaces.calls) == 1 and brake.steps == 0, "this process took no step"
    tally = pipe.server.tally
    assert (tally.requests, tally.finished, tally.codes) == (1, 1, 256)
    assert pipe.server.engine.idle
    here.close()
    pipe.close()


def test_stop_ends_the_process(spaces: Any, zero: tuple[Pipeline, Brake]) -> None:
    pipe, brake = zero
    brake.seconds = 0.02
    drawing = Drawing()
    states = []
    for view in drawing.views(pipe, [Request(0, preview_every=4)], 8):
        states.append(view.state)
        if view.state == "drawing" and view.step:
            assert alive(spaces.calls[-1])
            drawing.stop()
    assert states[-1] == "stopped"
    assert until(lambda: not alive(spaces.calls[-1]))
    assert pipe.server.engine.idle and pipe.server.tally.cancelled == 1


def test_letting_go_ends_the_process(spaces: Any, zero: tuple[Pipeline, Brake]) -> None:
    pipe, brake = zero
    brake.seconds = 0.02
    stream = pipe.stream("goldfish", preview_every=4)
    for frame in stream:
        if frame.step:
            break
    del stream
    assert until(lambda: not alive(spaces.calls[-1]))
    assert until(lambda: pipe.server.engine.idle)


def test_several_at_once_are_drawn_together_in_one_call(
    spaces: Any, zero: tuple[Pipeline, Brake]
) -> None:
    pipe, _ = zero
    requests = [Request(0, seed=seed, preview_every=32) for seed in range(4)]
    *_, last = Drawing().views(pipe, requests, 0)
    assert last.state == "done" and len(last.images) == 4
    assert len(spaces.calls) == 1 and not alive(spaces.calls[0])
    assert pipe.server.engine.idle and pipe.server.tally.finished == 4


def test_more_than_one_call_holds_take_another(
    spaces: Any, zero: tuple[Pipeline, Brake], monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe, _ = zero
    monkeypatch.setattr(pipe.server.engine, "max_requests", 2, raising=False)
    drawn = list(pipe.draw([1] * 3, seed=5))
    assert (drawn[2] == next(pipe.draw(1, seed=7))).all()
    assert len(spaces.calls) == 3 and pipe.server.engine.idle


def test_what_fails_there_is_told_here(zero: tuple[Pipeline, Brake]) -> None:
    pipe, _ = zero

    def fail(requests: list[Request]) -> Any:
        raise RuntimeError("the GPU's time is over")
        yield

    pipe.use_server(lambda _: ZeroServer(fail))
    with pytest.raises(GenerationError, match="the model failed: the GPU's time is over"):
        list(pipe.stream("goldfish"))
    assert pipe.server.tally.failed == 1 and pipe.server.engine.idle


def test_a_request_that_is_stopped_first_never_calls(
    spaces: Any, zero: tuple[Pipeline, Brake]
) -> None:
    pipe, _ = zero
    subscription = pipe.server.stream(Request(0))
    subscription.close()
    assert [type(event).__name__ for event in subscription] == ["Cancelled"]
    assert spaces.calls == []


def test_the_page_takes_it_on_such_a_space(
    zero: tuple[Pipeline, Brake], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Settings.from_env({"SPACES_ZERO_GPU": "true"}).zero
    assert not Settings.from_env({}).zero
    asked: dict[str, Any] = {}
    pipe, _ = zero
    pipe._server = None
    monkeypatch.setattr(
        ui_models, "load", lambda source, device, *_, **__: asked.update(device=device) or pipe
    )
    models = Models("tiny", "auto", "auto", zero=True)
    assert asked["device"] == "cpu"
    assert isinstance(models.get("tiny").server, ZeroServer)


def test_without_the_package(zero: tuple[Pipeline, Brake], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "spaces", None)
    with pytest.raises(AimError, match="a ZeroGPU Space needs the package spaces"):
        use_zero_gpu(zero[0])
