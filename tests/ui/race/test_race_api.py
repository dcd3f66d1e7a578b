"""Races through the page's API: what is streamed and returned, what is refused, and when times are
not clean.
"""

from __future__ import annotations

import csv
import json
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError, ValidationError

from aim.bench.runs import Stopped
from aim.errors import GenerationError, QueueFull
from aim.pipeline import Pipeline
from aim.ui import models as ui_models
from aim.ui.models import Models
from aim.ui.race import measuring
from aim.ui.race.handlers import RaceActions
from aim.ui.race.measuring import Measurement
from aim.ui.race.measuring_handlers import MeasuringScreen
from aim.ui.stage.drawing import Drawing
from aim.ui.stage.sessions import Sessions
from pages import Brake, Page, until

PAIR = "aim-b/gpt-b random"


@pytest.fixture
def client(page: Page) -> Client:
    """One person."""
    return Client(page.url, verbose=False)


def test_a_race_is_streamed_and_returned_as_json_and_files(page: Page, client: Client):
    described = client.view_api(return_format="dict", print_info=False)["named_endpoints"]["/race"]
    assert [parameter["parameter_name"] for parameter in described["parameters"]] == [
        "pair",
        "batch",
        "label",
    ]
    outputs = list(client.submit(PAIR, 1, "golden retriever", api_name="/race"))
    states = [progress["state"] for _, progress, *_ in outputs]
    assert states[0] == "starting" and states[-1] == "done" and "drawing" in states
    steps = [progress["step"] for _, progress, *_ in outputs if progress["state"] == "drawing"]
    assert steps == sorted(steps)
    assert all(result is None for result, *_ in outputs[:-1])
    result, progress, csv_file, json_file = outputs[-1]
    assert (progress["step"], progress["total"]) == (12, 12)
    assert (result["title"], result["batch"], result["laps"], result["disturbed"]) == (
        "golden retriever (207)",
        1,
        5,
        False,
    )
    for racer in result["racers"]:
        for lap in racer["laps"]:
            assert lap["code_seconds"] == sorted(lap["code_seconds"])
            assert lap["code_seconds"][-1] <= lap["codes_seconds"]
    with open(json_file) as file:
        assert json.load(file) == result
    with open(csv_file) as file:
        assert len(list(csv.reader(file))) == 11


def test_somebody_who_draws_meanwhile_is_told_of(page: Page, client: Client):
    page.brake.seconds = 0.001
    drawing = Client(page.url, verbose=False).submit("goldfish", api_name="/generate")
    assert until(lambda: bool(drawing.outputs()))
    result, *_ = client.predict(PAIR, 1, 1, api_name="/race")
    drawing.result(timeout=30)
    assert result["disturbed"] is True


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            ("aim-b/gpt-xl", 1, 1),
            "pair: there is no pair 'aim-b/gpt-xl' here; choose one of aim-s/gpt-s",
        ),
        ((PAIR, 5, 1), "batch: batch is 5; choose one of 1, 4, 16, 64"),
        ((PAIR, "many", 1), "batch: batch is 'many'"),
        (([], 1, 1), r"pair: there is no pair \[\]"),
    ],
)
def test_bad_input_is_refused_before_anything_is_loaded(
    page: Page, client: Client, values: tuple[Any, ...], message: str
):
    with pytest.raises(ValidationError, match=message):
        client.predict(*values, api_name="/race")
    assert not measuring.running()


def test_a_class_that_the_pair_does_not_know_and_weights_out_of_reach_are_said(
    page: Page, client: Client
):
    with pytest.raises(AppError, match="there is no class 'goldfisch'"):
        client.predict(PAIR, 1, "goldfisch", api_name="/race")
    with pytest.raises(AppError, match="-b could not be fetched: the hub cannot be reached"):
        client.predict("aim-b/gpt-b", 1, 1, api_name="/race")
    assert until(lambda: not measuring.running())


class TestRaceActions:
    """Handlers called as gradio calls them, where a page would need broken models or slow
    downloads.
    """

    @pytest.fixture
    def screen(self) -> MeasuringScreen:
        return MeasuringScreen(
            gr.JSON(),
            gr.HTML(),
            gr.DownloadButton(),
            gr.DownloadButton(),
            gr.HTML(),
            gr.Button(),
            gr.Button(),
        )

    @pytest.fixture
    def actions(
        self,
        make_rival: Callable[[str, Brake], Pipeline],
        screen: MeasuringScreen,
        monkeypatch: pytest.MonkeyPatch,
    ) -> RaceActions:
        monkeypatch.setattr(ui_models, "load", lambda *_, **__: make_rival("aim-b", Brake()))
        monkeypatch.setattr(
            ui_models, "random_pipeline", lambda name, *_: make_rival(name, Brake())
        )
        models = Models("aim-b", "auto", "auto")
        return RaceActions(models, Sessions(Drawing, models.line), screen, gr.HTML())

    @staticmethod
    def run(actions: RaceActions, pair: str = PAIR) -> Iterator[dict[Any, Any]]:
        return actions.race(pair, 1, "goldfish", SimpleNamespace(session_hash="a"))

    def test_a_stop_while_the_weights_come_is_heard(
        self, actions: RaceActions, monkeypatch: pytest.MonkeyPatch
    ):
        release = threading.Event()
        monkeypatch.setattr(ui_models, "load", lambda *_, **__: release.wait(5))
        run = self.run(actions, "aim-b/gpt-b")
        texts = [next(run)[actions.screen.progress]["text"] for _ in range(3)]
        assert texts[-1] == "Loading aim-b (880 MB download) and gpt-b (740 MB download) …"
        actions.stop(SimpleNamespace(session_hash="a"))
        last = list(run)[-1]
        assert last[actions.screen.progress]["state"] == "stopped"
        assert last[actions.screen.start] == gr.update(interactive=True)
        release.set()

    def test_a_broken_model_frees_the_buttons_and_the_track(
        self, actions: RaceActions, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr(ui_models, "random_pipeline", lambda *_: 1 / 0)
        run, updates = self.run(actions), []
        with pytest.raises(ZeroDivisionError):
            updates.extend(run)
        assert updates[-1][actions.screen.progress]["state"] == "failed"
        assert "division" not in updates[-1][actions.screen.progress]["text"]
        assert updates[-1][actions.screen.start] == gr.update(interactive=True)
        assert not measuring.running()

    def test_a_client_that_hangs_up_ends_the_race(self, actions: RaceActions):
        run = self.run(actions)
        while "lap" not in next(run)[actions.screen.progress]["text"]:
            pass
        run.close()
        assert until(lambda: not measuring.running())


class TestMeasurement:
    def test_what_the_work_says_is_told_and_what_it_returns_is_kept(self):
        def work(run: Measurement) -> str:
            run.say("half")
            run.progress(1, 2)
            assert until(lambda: told[-1:] == ["half"])
            return "whole"

        run, told = Measurement(), list[str]()
        assert list(run.turn()) == []
        for _ in run.run(work):
            told.append(run.text)
        assert (run.result, run.done, run.total) == ("whole", 1, 2)

    def test_a_second_one_waits_and_may_leave(self):
        go = threading.Event()
        first, second, third = Measurement(), Measurement(), Measurement()
        assert list(first.turn()) == []
        running = first.run(lambda run: go.wait(5))
        next(running)
        places, patient = second.turn(), third.turn()
        assert (next(places), next(patient)) == (1, 2)
        second.stop()
        with pytest.raises(Stopped):
            next(places)
        second.leave()
        assert next(patient) == 1
        go.set()
        assert list(running) == []
        assert set(patient) <= {1}, "its turn comes when the first has ended"
        assert measuring.running() == third.text
        third.leave()
        assert not measuring.running()

    def test_the_line_is_bounded(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(measuring, "WAITING", 1)
        inside = [Measurement(), Measurement()]
        for one in inside:
            next(one.turn(), None)
        with pytest.raises(QueueFull, match="1 others wait"):
            next(Measurement().turn())
        for one in inside:
            one.leave()

    def test_an_error_of_the_work_is_raised(self):
        def work(run: Measurement) -> None:
            raise GenerationError("it broke")

        with pytest.raises(GenerationError, match="it broke"):
            run = Measurement()
            assert list(run.turn()) == []
            list(run.run(work))
        assert not measuring.running()
