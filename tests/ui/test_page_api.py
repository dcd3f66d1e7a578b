"""The page's API, as a program uses it: what it streams, what it refuses, and that nobody who
leaves stays behind.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import httpx
import imageio.v3 as iio
import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError, ValidationError
from PIL import Image

from aim.config import INDEX
from aim.errors import GenerationError, QueueFull
from aim.images import read
from aim.pipeline import Pipeline
from aim.ui import drawings
from aim.ui import models as ui_models
from aim.ui.generate.handlers import Actions, Screen
from aim.ui.models import Models
from aim.ui.stage import movie
from pages import Brake, Page, until

FIXED = {"seed": 7, "random_seed": False}


@pytest.fixture
def client(page: Page, tmp_path: Path) -> Iterator[Client]:
    """One person."""
    yield Client(page.url, verbose=False, download_files=str(tmp_path))


def stream(client: Client, **values: Any) -> list[tuple[Any, ...]]:
    return list(client.submit(api_name="/generate", **{"label": "goldfish", **FIXED, **values}))


def refused(client: Client, **values: Any) -> Any:
    return client.predict(api_name="/generate", **{"label": "goldfish", **FIXED, **values})


def states(outputs: list[tuple[Any, ...]]) -> list[str]:
    return [progress["state"] for _, progress, *_ in outputs]


def test_endpoints_are_named_and_internals_are_hidden(client: Client):
    api = client.view_api(return_format="dict", print_info=False)
    assert set(api["named_endpoints"]) == {
        *("/generate", "/stop", "/classes", "/random_class"),
        *("/race", "/stop_race", "/scaling", "/stop_scaling"),
        *("/complete", "/sweep", "/blend", "/stop_compare"),
    }
    assert not api["unnamed_endpoints"]
    # what is new comes last
    always = {
        "/generate": "label model cfg_scale temperature top_k top_p seed random_seed preview_every "
        "count movie",
        "/complete": "picture rows label cfg_scale temperature seed",
        "/sweep": "label across across_values down down_values seed cfg_scale temperature",
        "/blend": "first second steps seed cfg_scale temperature",
    }
    for endpoint, first in always.items():
        parameters = api["named_endpoints"][endpoint]["parameters"]
        names = [parameter["parameter_name"] for parameter in parameters]
        assert names[: len(first.split())] == first.split()
        assert names.count("seed") == 1 and {*INDEX, "model"} <= {*names}


def test_examples_of_calls_are_values_of_the_types_that_are_told(page: Page):
    """Gradio writes them into its snippets, and quotes what is told to be a string."""
    kinds = {"string": str, "integer": int, "number": (int, float), "boolean": bool}
    for name, endpoint in page.blocks.get_api_info()["named_endpoints"].items():
        for parameter in endpoint["parameters"]:
            value, kind = parameter["parameter_default"], parameter["type"].get("type")
            if value is not None and kind != "object":
                told = f"{name} {parameter['parameter_name']}={value!r} as {kind}"
                assert isinstance(value, kinds.get(kind, (int, float))), told


def test_a_picture_streams_and_carries_its_parameters(page: Page, client: Client):
    page.brake.seconds = 0.003
    outputs = stream(
        client, cfg_scale=2.5, top_k=20, label="golden retriever (207)", preview_every=4
    )
    assert states(outputs)[0] == "starting"
    assert states(outputs)[-1] == "done"
    steps = [progress["step"] for _, progress, *_ in outputs]
    assert steps == sorted(steps)
    assert steps[-1] == outputs[-1][1]["total"] == 256
    assert outputs[-1][1]["codes_per_second"] > 0
    previews = [
        Image.open(picture)
        for picture, progress, *_ in outputs
        if picture and progress["state"] == "drawing"
    ]
    assert len(previews) >= 2
    assert all(preview.mode == "RGBA" and preview.getextrema()[3][0] == 0 for preview in previews)
    picture, _, png, gif, parameters = outputs[-1]
    assert parameters == page.pipe.parameters(207, 7, page.pipe.params(cfg_scale=2.5, top_k=20))
    assert gif is None, "nobody asked for it"
    assert read.read_parameters(png) == read.read_parameters(picture) == parameters
    assert {"model", "version", "seed", "device", "dtype"} <= set(parameters)
    (alone,) = page.pipe.generate(207, seed=7, cfg_scale=2.5, top_k=20)
    assert Image.open(png).tobytes() == alone.tobytes()
    assert Path(png).name == "tiny-golden-retriever-207-seed-7.png"


def test_a_film_is_made_where_one_is_asked_for(client: Client):
    *before, last = stream(client, movie="gif")
    assert (before[-1][1]["state"], before[-1][1]["text"]) == ("done", "Making the GIF …")
    assert before[-2][1]["state"] == "done" and before[-2][2], "the picture does not wait for it"
    animation = Image.open(last[3])
    assert (animation.format, animation.size) == ("GIF", (movie.SIZE, movie.SIZE))
    assert animation.n_frames >= 32
    film = iio.imread(Path(stream(client, movie="mp4")[-1][3]), plugin="pyav")
    assert film.shape[1:] == (movie.SIZE, movie.SIZE, 3) and len(film) > 32


def test_a_film_that_fails_leaves_the_picture(client: Client, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(drawings.KINDS, "gif", lambda drawn, images: 1 / 0)
    picture, progress, png, gif, parameters = stream(client, movie="gif", seed=8)[-1]
    assert progress["state"] == "done" and progress["text"].endswith("the GIF could not be made")
    assert picture and png and parameters and gif is None


def test_a_program_from_before_an_input_was_added_still_draws(page: Page):
    visitor = Visitor(page, "posts ten values")
    visitor.join()
    visitor.listen('"process_completed"')


def test_inputs_that_are_left_out_at_the_end_are_the_model_s_own(page: Page):
    """As scripts do that were written before there were as many."""
    api = f"{page.url.rstrip('/')}/gradio_api/call/generate"
    data = ["goldfish", "", None, None, None, None, 7, False, 0, 1]
    event = httpx.post(api, json={"data": data}).json()["event_id"]
    told = httpx.get(f"{api}/{event}", timeout=60).text
    assert "event: complete" in told and "event: error" not in told
    last = told[told.rindex("event: complete") :].partition("data: ")[2]
    assert json.loads(last)[4] == page.pipe.parameters(1, 7, page.pipe.sampling)


def test_a_random_seed_is_reported_and_draws_the_same_again(page: Page, client: Client):
    first, second = (stream(client, random_seed=True)[-1] for _ in range(2))
    assert first[4]["seed"] != second[4]["seed"]
    again = stream(client, seed=first[4]["seed"])[-1]
    assert Path(again[2]).read_bytes() == Path(first[2]).read_bytes()


def test_what_is_left_out_is_the_model_s_own(page: Page, client: Client):
    *_, parameters = stream(
        client, label=281, cfg_scale=None, temperature=None, top_k=None, top_p=None
    )[-1]
    assert parameters == page.pipe.parameters(281, 7, page.pipe.sampling)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"label": "goldfisch"}, r"label: there is no class 'goldfisch'.*goldfish \(1\).*"),
        ({"label": 2}, r"label: this model does not know great white shark \(2\).*goldfish \(1\)"),
        ({"label": None}, r"label: class is None"),
        (
            {"model": "/etc/passwd"},
            r"model: there is no model '/etc/passwd' here; choose one of tiny, aim-s, aim-b, "
            r"aim-l, aim-xl",
        ),
        ({"model": 3}, r"model: there is no model 3"),
        ({"cfg_scale": 31}, r"cfg_scale: cfg_scale is 31; it must be a number in \[0, 30\]"),
        ({"temperature": -0.1}, r"temperature: temperature is -0.1; .*\[0, 10\]"),
        ({"top_k": 1.5}, r"top_k: top_k is 1.5; .*whole number"),
        ({"top_p": 0}, r"top_p: top_p is 0; .*\(0, 1\]"),
        ({"seed": 2**32}, r"seed: seed is 4294967296; .*\[0, 4294967295\]"),
        ({"seed": None}, r"seed: there is no seed; type a whole number, or tick Random"),
        ({"preview_every": -1}, r"preview_every: preview_every is -1"),
        ({"preview_every": "x"}, r"preview_every: preview_every is 'x'"),
        ({"random_seed": "zz"}, r"random_seed: random_seed is 'zz'; it must be true or false"),
        ({"count": "seed"}, r"count: count is 'seed'; it must be one of 1, 4, 9"),
        ({"movie": "avi"}, r"movie: movie is 'avi'; it must be one of none, gif, mp4"),
        (
            {"top_p": 2, "temperature": 11},
            r"2 parameter\(s\) failed validation:\n- temperature: .*\n- top_p",
        ),
    ],
)
def test_bad_input_is_refused_before_it_queues(
    page: Page, client: Client, values: dict[str, Any], message: str
):
    before = page.brake.steps
    with pytest.raises(ValidationError, match=message):
        refused(client, **values)
    assert page.brake.steps == before


def test_a_model_out_of_reach_is_said_and_the_other_goes_on(page: Page, client: Client):
    with pytest.raises(AppError, match="aim-b could not be fetched: the hub cannot be reached"):
        refused(client, model="aim-b")
    assert states(stream(client))[-1] == "done"


def test_classes_are_those_that_the_model_knows(page: Page, client: Client):
    found = client.predict(api_name="/classes")
    assert [entry["index"] for entry in found] == [1, 207, 281, 285, 985]
    assert found[0] == {"index": 1, "title": "goldfish (1)"}
    assert found == client.predict("tiny", api_name="/classes")
    seen = {client.predict(api_name="/random_class") for _ in range(12)}
    assert seen <= {1, 207, 281, 285, 985}
    assert len(seen) > 1


def test_two_people_at_once_share_the_batch_and_get_what_they_would_alone(
    page: Page, tmp_path: Path
):
    page.brake.seconds = 0.005
    people = [
        Client(page.url, verbose=False, download_files=str(tmp_path / str(i))) for i in range(2)
    ]
    before = page.brake.steps
    labels = (1, 985)
    jobs = [
        person.submit(label=label, **FIXED, api_name="/generate")
        for person, label in zip(people, labels, strict=True)
    ]
    results = [job.result(timeout=30) for job in jobs]
    assert page.brake.steps - before < 2 * 256, "they were drawn one after the other"
    page.brake.seconds = 0.0
    for result, label in zip(results, labels, strict=True):
        assert result[4]["class"] == label
        (alone,) = page.pipe.generate(label, seed=7)
        assert Image.open(result[2]).tobytes() == alone.tobytes()


class Visitor:
    """A browser's requests, one by one: gradio's own client cannot cancel at once, nor walk
    away.
    """

    def __init__(self, page: Page, session: str) -> None:
        self.api, self.session = page.url.rstrip("/") + "/gradio_api", session
        self.fn_index = next(
            index for index, fn in page.blocks.fns.items() if fn.api_name == "generate"
        )

    def join(self) -> str:
        values = ["goldfish", "tiny", 2.0, 1.0, 0, 1.0, 0, True, 8, 1]
        body = {"data": values, "fn_index": self.fn_index, "session_hash": self.session}
        return httpx.post(f"{self.api}/queue/join", json=body).raise_for_status().json()["event_id"]

    def listen(self, until_text: str) -> None:
        """Read what is sent until a line has ``until_text`` in it, and hang up."""
        with httpx.stream(
            "GET", f"{self.api}/queue/data", params={"session_hash": self.session}, timeout=10
        ) as events:
            assert any(until_text in line for line in events.iter_lines())

    def cancel(self, event_id: str) -> None:
        body = {"fn_index": self.fn_index, "session_hash": self.session, "event_id": event_id}
        httpx.post(f"{self.api}/cancel", json=body).raise_for_status()


@pytest.mark.parametrize("delay", [0.0, 0.005, 0.02, 0.05, 0.3])
def test_a_cancelled_run_leaves_and_the_next_is_served(page: Page, client: Client, delay: float):
    page.brake.seconds = 0.02
    before = page.brake.steps
    visitor = Visitor(page, f"cancels after {delay}")
    event_id = visitor.join()
    time.sleep(delay)
    visitor.cancel(event_id)
    assert page.settle(3)
    time.sleep(0.1)  # time for a run that was not stopped to show up
    assert page.settle(3)
    assert page.brake.steps - before < 200
    page.brake.seconds = 0.0
    assert states(stream(client))[-1] == "done"


def test_a_client_that_hangs_up_leaves_the_engine(page: Page, client: Client):
    page.brake.seconds = 0.02
    before = page.brake.steps
    visitor = Visitor(page, "hangs up")
    visitor.join()
    visitor.listen('"drawing"')
    assert page.settle()
    assert page.brake.steps - before < 150
    page.brake.seconds = 0.0
    assert states(stream(client))[-1] == "done"


def test_stop_ends_only_one_s_own_drawing(page: Page, client: Client, tmp_path: Path):
    page.brake.seconds = 0.01
    other = Client(page.url, verbose=False, download_files=str(tmp_path / "other"))
    mine, theirs = (
        client.submit("goldfish", api_name="/generate"),
        other.submit("goldfish", api_name="/generate"),
    )
    before = page.brake.steps
    assert until(lambda: page.brake.steps >= before + 30 and len(theirs.outputs()) > 1)
    client.predict(api_name="/stop")
    *_, last = mine
    assert last[1]["state"] == "stopped"
    assert 0 < last[1]["step"] < 256
    assert last[1]["text"] == f"Stopped at {last[1]['step']} / 256 codes"
    assert last[2:] == (None, None, None)
    assert theirs.result(timeout=30)[1]["state"] == "done"


class TestActions:
    """Handlers called as gradio calls them, where a page would need crowds or broken models."""

    @pytest.fixture
    def screen(self) -> Screen:
        return Screen(
            gr.Image(),
            gr.HTML(),
            gr.DownloadButton(),
            gr.DownloadButton(),
            gr.JSON(),
            gr.Button(),
            gr.Button(),
            gr.HTML(),
        )

    @pytest.fixture
    def act(
        self,
        make_pipe: Callable[..., tuple[Pipeline, Brake]],
        screen: Screen,
        monkeypatch: pytest.MonkeyPatch,
    ) -> Iterator[Any]:
        """Actions on a model that draws for one and lets one more wait."""
        pipe, brake = make_pipe(running=1, waiting=1)
        monkeypatch.setattr(ui_models, "load", lambda *_, **__: pipe)
        models = Models("tiny", "auto", "auto")
        yield SimpleNamespace(
            actions=Actions(models, screen, drawings.Drawings(models)),
            pipe=pipe,
            brake=brake,
            screen=screen,
        )
        pipe.close()

    @staticmethod
    def run(act: Any, session: str, model: str = "tiny") -> Iterator[dict[Any, Any]]:
        return act.actions.generate(
            "goldfish", model, 0, True, 0, 1, "none", SimpleNamespace(session_hash=session)
        )

    def test_the_line_shows_a_place_and_a_full_one_is_explained(self, act: Any):
        act.brake.seconds = 0.01
        first, second, third = (self.run(act, name) for name in "abc")
        shown = [next(first), next(first)]
        next(second)
        waiting = next(second)[act.screen.progress]
        assert (waiting["state"], waiting["place"], waiting["text"]) == (
            "waiting",
            1,
            "Number 1 in line",
        )
        next(third)
        failed = next(third)
        assert failed[act.screen.progress]["state"] == "failed"
        assert "try again" in failed[act.screen.progress]["text"]
        assert failed[act.screen.start] == gr.update(interactive=True)
        with pytest.raises(QueueFull, match="try again"):
            next(third)
        assert shown[-1][act.screen.progress]["state"] == "drawing"
        act.actions.stop(SimpleNamespace(session_hash="a"))
        assert [update[act.screen.progress]["state"] for update in first][-1] == "stopped"
        act.brake.seconds = 0.0
        assert [update[act.screen.progress]["state"] for update in second][-1] == "done"

    def test_a_closed_tab_ends_one_who_waits(self, act: Any):
        act.brake.seconds = 0.01
        first, second = self.run(act, "a"), self.run(act, "b")
        next(first), next(first), next(second), next(second)
        ended: list[Any] = []
        thread = threading.Thread(target=lambda: ended.extend(second))
        thread.start()
        # what the page does when the tab is closed
        act.actions.stop(SimpleNamespace(session_hash="b"))
        thread.join(5)
        assert ended[-1][act.screen.progress]["state"] == "stopped"
        first.close()
        assert until(lambda: act.pipe.server.engine.idle)

    def test_a_stop_while_the_model_loads_is_heard(self, act: Any, monkeypatch: pytest.MonkeyPatch):
        release = threading.Event()
        monkeypatch.setattr(ui_models, "load", lambda *_, **__: release.wait(5) and act.pipe)
        run = self.run(act, "a", "aim-b")
        next(run)
        loading = next(run)[act.screen.progress]
        assert (loading["state"], loading["text"]) == (
            "loading",
            "Loading aim-b (880 MB download) …",
        )
        act.actions.stop(SimpleNamespace(session_hash="a"))
        *_, last = run
        assert last[act.screen.progress]["state"] == "stopped"
        assert last[act.screen.start] == gr.update(interactive=True)
        release.set()

    def test_a_broken_model_frees_the_buttons_and_names_no_internals(self, act: Any):
        act.pipe.model.step = lambda *_, **__: 1 / 0
        run = self.run(act, "a")
        updates = []
        with pytest.raises((ZeroDivisionError, GenerationError)):
            updates.extend(iter(lambda: next(run), None))
        assert updates[-1][act.screen.progress]["state"] == "failed"
        assert "division" not in updates[-1][act.screen.progress]["text"]
        assert updates[-1][act.screen.start] == gr.update(interactive=True)
