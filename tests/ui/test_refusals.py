"""What comes from others: text stays text, every bad input gets a sentence, and a request is only
so large and takes only so long.
"""

from __future__ import annotations

import asyncio
import errno
import io
import json
import os
import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import httpx
import pytest
from PIL import Image
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from aim.checks import quoted
from aim.errors import GenerationError, InvalidInput
from aim.settings import Limits
from aim.ui.gate import POLICY, REST, Gate
from aim.ui.page import Page as Blocks
from aim.ui.page import Refusal
from aim.ui.stage.updates import DISK, MOST_TOLD, explain, keep, verdict, warn
from pages import Page
from tests.fuzz import TIMES

FORM = "<form action=https://elsewhere.example><input type=password></form>"
ODD: tuple[Any, ...] = (
    *(None, float("nan"), float("inf"), -float("inf"), [], [1], [[[]]], {}, {"a": 1}, True),
    *("", "zz", FORM, "x" * 5000, "\0", "1,nan", "class", "/etc/passwd", -1, 2**70, 1e300, 1.5),
    *({"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}, {"path": None}),
)
USUAL = {
    **{"label": 1, "first": 1, "second": 207, "model": "tiny", "pair": "none", "batch": 1},
    **{"across": "cfg_scale", "down": "temperature", "across_values": "1,2", "down_values": "1"},
    **{"seed": 3, "random_seed": False, "count": 1, "movie": "none", "steps": 2, "rows": 2},
}
ENDPOINTS = "generate sweep blend complete classes random_class stop race scaling".split()


def told(client: httpx.Client, api: str, name: str, values: list[Any]) -> str | None:
    """What a call was refused with, None for one that went through."""
    sent = {"content": json.dumps({"data": values}), "headers": {"content-type": "text/json"}}
    sent["headers"]["content-type"] = "application/json"
    found = client.post(f"{api}/call/{name}", **sent)
    if found.status_code != 200:
        assert found.status_code in (400, 422), found.text
        detail = found.text
        wrong = [one["message"] for one in detail if one.get("is_valid") is False] if (
            isinstance(detail, list)
        ) else [detail]  # fmt: skip
        return "; ".join(wrong)
    event = client.get(f"{api}/call/{name}/{found.json()['event_id']}").text
    if "event: error" not in event:
        return None
    text: str = json.loads(event[event.rindex("data: ") + 6 :])["error"]
    return text


def usual(parameters: list[dict[str, Any]]) -> list[Any]:
    """Values that an endpoint takes."""
    return [USUAL.get(p["parameter_name"], p.get("parameter_default")) for p in parameters]


def picture(client: httpx.Client, api: str) -> bytes:
    """The PNG of a drawing, which is the same every time."""
    asked = client.get(f"{api}/info").json()["named_endpoints"]["/generate"]["parameters"]
    body = {"data": usual(asked)}
    event = client.post(f"{api}/call/generate", json=body).json()["event_id"]
    text = client.get(f"{api}/call/generate/{event}").text
    assert "event: complete" in text, text
    done = json.loads(text[text.rindex("data: ") + 6 :])
    return client.get(f"{api}/file={done[2]['path']}").content


def check(text: str | None, what: Any) -> bool:
    """Whether something was refused, which is in a sentence that tells nothing of the server."""
    if text is None:
        return False
    assert isinstance(text, str) and len(text.split()) > 3, (what, text)
    assert len(text) <= 3 * MOST_TOLD and "\n" not in text, what
    for inside in ("Traceback", "gradio/", "/tmp", "site-packages", "<form"):
        assert inside not in text, (what, text)
    return True


def test_whatever_is_sent_gets_a_sentence_and_the_next_drawing_is_right(page: Page) -> None:
    api, rng = page.url.rstrip("/") + "/gradio_api", random.Random(16)
    refused = 0
    with httpx.Client(timeout=30) as client:
        right = picture(client, api)
        named = client.get(f"{api}/info").json()["named_endpoints"]
        for _ in range(70 * TIMES):
            name = rng.choice(ENDPOINTS)
            values = usual(named[f"/{name}"]["parameters"])
            for _ in range(rng.choice((1, 1, 2))):
                if values:
                    values[rng.randrange(len(values))] = rng.choice(ODD)
            refused += check(told(client, api, name, values), (name, values))
        assert refused > 30 * TIMES
        assert picture(client, api) == right


def test_whatever_is_uploaded_gets_a_sentence_and_the_next_drawing_is_right(page: Page) -> None:
    api, rng = page.url.rstrip("/") + "/gradio_api", random.Random(16)
    noise, files = Image.effect_noise((48, 40), 60), []
    for kind in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"):
        noise.save(out := io.BytesIO(), kind)
        files.append((f"a.{kind.lower()}", out.getvalue()))
    names = ("a", FORM, "../../etc/passwd", "x" * 300 + ".png", "a.svg", "\u202egnp.exe", ".png")
    refused = 0
    with httpx.Client(timeout=30) as client:
        right = picture(client, api)
        for _ in range(20 * TIMES):
            name, whole = rng.choice(files)
            data = bytearray(whole)
            for _ in range(rng.choice((0, 1, 20))):
                data[rng.randrange(len(data))] = rng.randrange(256)
            data = data[: rng.choice((len(data), rng.randrange(len(data))))]
            sent = {"files": (rng.choice((name, *names)), bytes(data))}
            came = client.post(f"{api}/upload", files=sent)
            if came.status_code != 200:
                refused += check(came.json()["detail"], sent)
                continue
            given = {"path": came.json()[0], "meta": {"_type": "gradio.FileData"}}
            refused += check(told(client, api, "complete", [given, 8, 1]), sent)
        assert refused > 5 * TIMES
        assert picture(client, api) == right


def test_nothing_is_fetched_for_a_visitor(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of whatever size it is: into memory first, then onto the disk."""
    fetched: list[str] = []

    async def fetch(url: str, cache_dir: str) -> str:
        fetched.append(url)
        return ""

    monkeypatch.setattr("gradio.processing_utils.async_ssrf_protected_download", fetch)
    api = page.url.rstrip("/") + "/gradio_api"
    vast = {"path": "https://example.com/vast.png", "meta": {"_type": "gradio.FileData"}}
    with httpx.Client() as client:
        for name, value in (("complete", vast), ("classes", [{"a": vast}])):
            text = told(client, api, name, [value, 2, 1] if name == "complete" else [value])
            assert text and "is to be uploaded" in text
    assert not fetched


def test_a_toast_shows_no_html(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []
    monkeypatch.setattr(gr, "Warning", shown.append)
    warn(f"there is no class {FORM}")
    refusal = Refusal(f"there is no class {FORM}")
    verdicts = verdict(lambda: Limits() and (_ for _ in ()).throw(InvalidInput(FORM)))
    for text in (shown[0], str(refusal), verdicts["message"]):
        assert "<" not in text and "&lt;form" in text


def test_a_message_is_a_line_and_internals_stay_here() -> None:
    assert len(explain(InvalidInput("word " * 500))) == MOST_TOLD
    assert "\n" not in explain(GenerationError("one\ntwo"))
    assert "secret" not in explain(RuntimeError("secret"))
    assert explain(OSError(errno.ENOSPC, "No space left on device")) == DISK
    assert len(quoted("x" * 10**7)) == 80 and quoted(float("nan")) == "nan"
    deep: list[Any] = []
    for _ in range(10**5):
        deep = [deep]
    assert quoted(deep) == "a list"
    while deep:  # which a collector would do by recursion
        deep = deep[0]


def test_on_a_full_disk_a_drawing_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, data: bytes) -> None:
        path.touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    component: Any = SimpleNamespace(GRADIO_CACHE=str(tmp_path))
    assert keep(b"", "preview.png", component) is None
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_who_reads_a_file_that_another_writes_again_sees_all_of_it(tmp_path: Path) -> None:
    component: Any = SimpleNamespace(GRADIO_CACHE=str(tmp_path))
    path = keep(b"x" * 1000, "a.png", component)
    assert path is not None
    with open(path, "rb") as reader:
        assert keep(b"x" * 1000, "a.png", component) == path
        assert len(reader.read()) == 1000
        assert os.stat(path).st_ino != os.fstat(reader.fileno()).st_ino, "not written over"


def test_a_call_that_lacks_values_says_how_many_are_needed() -> None:
    with Blocks() as page:
        one, other = gr.Number(None), gr.Number(None)
        one.change(lambda a, b: None, [one, other])
    (fn,) = page.fns.values()
    with pytest.raises(InvalidInput, match="1 values came, and 2 are needed"):
        page.validate_inputs(fn, [1])


class Asked:
    """A server behind the gate that reads what it is sent."""

    def __init__(self, **limits: int) -> None:
        async def read(request: Request) -> PlainTextResponse:
            return PlainTextResponse(str(len(await request.body())))

        async def full(request: Request) -> PlainTextResponse:
            raise OSError(errno.ENOSPC, "No space left on device")

        app: Any = Starlette(routes=[
            Route("/", read, methods=["POST"]), Route("/full", full)
        ])  # fmt: skip
        app.add_middleware(Gate)
        app.blocks = SimpleNamespace(limits=Limits(**limits), tabs=Counter())
        self.app = app

    def __call__(self, method: str, path: str = "/", **sent: Any) -> httpx.Response:
        async def ask() -> httpx.Response:
            transport = httpx.ASGITransport(self.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://page") as client:
                return await client.request(method, path, **sent)

        with ThreadPoolExecutor() as apart:  # this thread may have a browser's event loop
            return apart.submit(asyncio.run, ask()).result()


async def chunks(size: int, pause: float = 0.0) -> Any:
    """A body whose length is not told before."""
    for _ in range(size):
        await asyncio.sleep(pause)
        yield b"x" * 10**6


def test_a_body_has_a_size_whether_it_is_told_or_not() -> None:
    ask = Asked(upload_mb=5)
    for size in (b"x" * (REST + 1), chunks(3)):
        found = ask("POST", content=size)
        assert found.status_code == 413 and "at most 2 MB" in found.text
        assert found.headers["connection"] == "close"
    files = [("files", ("a.png", b"x" * 2 * 10**6)) for _ in range(3)]
    found = ask("POST", files=files)
    assert found.status_code == 413 and "at most 5 MB" in found.text
    assert ask("POST", files=files[:2]).status_code == 200, "each file by itself may come"


def test_a_body_that_trickles_is_given_up() -> None:
    found = Asked(receive_seconds=0)("POST", content=chunks(2, 0.05))
    assert found.status_code == 408 and "send it again" in found.text


def test_a_full_disk_is_said_and_what_goes_out_bears_the_policy() -> None:
    ask = Asked()
    found = ask("GET", "/full")
    assert (found.status_code, found.json()["detail"]) == (507, DISK)
    for answer in (found, ask("POST", content=b"x")):
        assert answer.headers["content-security-policy"] == POLICY
        assert answer.headers["x-content-type-options"] == "nosniff"
    assert "form-action 'none'" in POLICY
