"""Files that the page keeps: swept by age, whoever made them, but for what somebody looks at."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import pytest

from aim.ui import temporary
from pages import Page, until


def file(path: Path, age: float = 0.0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    os.utime(path, (time.time() - age,) * 2)
    return path


def test_what_is_old_goes_with_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # a file's change cannot be dated back
    monkeypatch.setattr(temporary, "_times", lambda path: (os.stat(path).st_mtime,))
    monkeypatch.setattr(temporary, "EMPTY", -1.0)
    old, cut = file(tmp_path / "a" / "old.png", 200), file(tmp_path / "tmpcut", 200)
    shown, new = file(tmp_path / "b" / "shown.png", 200), file(tmp_path / "c" / "new.png", 50)
    assert temporary.sweep(tmp_path, 100, {str(shown)}) == 2
    assert not old.parent.exists() and not cut.exists()
    assert shown.exists() and new.exists()


def test_files_are_found_in_whatever_a_session_holds() -> None:
    @dataclass
    class Branch:
        picture: str

    held = {"a": [("/place/1.png", "caption"), {"path": "/place/2.png"}], "b": Branch("/place/3")}
    found = temporary.files_in([held, "/elsewhere/4", 5, None], "/place/")
    assert set(found) == {"/place/1.png", "/place/2.png", "/place/3"}


def test_a_folder_is_one_process_s_own_and_goes_with_it(tmp_path: Path) -> None:
    """Also that of a process that was killed, when the next one starts."""
    program = (
        "import sys, os; from aim.ui import temporary; print(temporary.folder(), flush=True); "
        "sys.stdin.read(1); os.kill(os.getpid(), 9) if len(sys.argv) > 1 else None"
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": os.getcwd()}
    environment.pop(temporary.VARIABLE, None)
    living, killed = (
        subprocess.Popen(
            [sys.executable, "-c", program, *more],
            env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for more in ((), ("killed",))
    )  # fmt: skip
    theirs = [Path(one.stdout.readline().strip()) for one in (living, killed)]  # type: ignore[union-attr]
    killed.communicate("x")
    assert all(path.is_dir() for path in theirs)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(tmp_path))
        patch.setenv(temporary.VARIABLE, "")
        mine = temporary.folder()
        assert os.environ[temporary.VARIABLE] == str(mine) and mine.is_dir()
    assert theirs[0].exists() and not theirs[1].exists()
    living.communicate("x")
    assert not theirs[0].exists()


def test_what_an_open_page_shows_stays(page: Page) -> None:
    blocks: Any = page.blocks
    api, place = page.url.rstrip("/") + "/gradio_api", Path(os.environ[temporary.VARIABLE])
    index = next(i for i, fn in blocks.fns.items() if fn.api_name == "generate")

    def draw(session: str) -> Path:
        body = {"data": ["goldfish"], "fn_index": index, "session_hash": session}
        httpx.post(f"{api}/queue/join", json=body).raise_for_status()
        where = {"session_hash": session}
        with httpx.stream("GET", f"{api}/queue/data", params=where, timeout=30) as events:
            last = [line for line in events.iter_lines() if "process_completed" in line][-1]
        return Path(json.loads(last[6:])["output"]["data"][2]["path"])

    with httpx.stream("GET", f"{api}/heartbeat/looks") as heart:
        beats = heart.iter_bytes()  # to be held, as it closes the connection
        next(beats)
        shown, left = draw("looks"), draw("left")
        assert shown.is_relative_to(place) and left.is_relative_to(place)
        time.sleep(0.05)
        assert temporary.sweep(place, 0.01, blocks.forget()) > 0
        assert shown.exists() and not left.exists()
    assert until(lambda: "looks" not in blocks.tabs)
    temporary.sweep(place, 0.01, blocks.forget())
    assert not shown.exists()
    assert httpx.get(page.url).status_code == 200


def test_a_session_holds_what_was_changed_and_no_copy_of_the_page(page: Page) -> None:
    api, holder = page.url.rstrip("/") + "/gradio_api", page.blocks.app.state_holder
    before = len(holder.session_data)
    event = httpx.post(f"{api}/call/classes", json={"data": [""]}).json()["event_id"]
    httpx.get(f"{api}/call/classes/{event}")
    assert len(holder.session_data) == before + 1
    assert len(holder[event].config_values) < 5 < len(page.blocks.blocks)
    # values alone, not each component described again
    assert all(set(told) == {"props"} for told in holder[event].components)


def test_gradio_makes_no_summary_of_calls_and_looks_for_them_without_a_rush(page: Page) -> None:
    queue: Any = page.blocks._queue
    api = page.url.rstrip("/") + "/gradio_api"
    event = httpx.post(f"{api}/call/classes", json={"data": [""]}).json()["event_id"]
    assert "complete" in httpx.get(f"{api}/call/classes/{event}").text
    assert not queue.event_analytics and not queue.cached_event_analytics_summary["functions"]
    assert queue.sleep_when_free >= 0.01
    if find_spec("matplotlib") is None:  # which Gradio asks for around every update
        with pytest.raises(ImportError, match=r"None in sys\.modules"):
            import_module("matplotlib")


def test_messages_that_nobody_fetched_go_with_their_session(page: Page) -> None:
    api, holder = page.url.rstrip("/") + "/gradio_api", page.blocks.app.state_holder
    queue: Any = page.blocks._queue
    event = httpx.post(f"{api}/call/classes", json={"data": [""]}).json()["event_id"]
    assert until(lambda: event not in queue.event_ids_to_events)
    page.blocks.forget()
    assert event in queue.pending_messages_per_session, "somebody may still come for them"
    holder.session_data.pop(event)
    page.blocks.forget()
    assert event not in queue.pending_messages_per_session
    assert event not in queue.pending_event_ids_session
