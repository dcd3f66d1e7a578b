"""Visitors of a page, as a program of its own that knows nothing of models: each draws one picture
after another through the page's queue, as a browser does. Prints a line of JSON.

``python visitors.py URL FN_INDEX CLIENTS SECONDS VALUES``, VALUES as JSON.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import sys
import time
from typing import Any

import httpx


class Visitor:
    """One who draws. ``pictures`` came in time; ``events`` and ``bytes`` are of each that came at
    all, ``first`` the seconds to a first preview, ``wrong`` what failed.
    """

    def __init__(self, api: str, fn_index: int, values: list[Any]) -> None:
        self.api, self.fn_index, self.values = api, fn_index, values
        self.session = secrets.token_hex(6)  # one for all that a browser asks for
        self.pictures = 0
        self.events: list[int] = []
        self.bytes: list[int] = []
        self.first: list[float] = []
        self.wrong: list[str] = []

    async def draw(self, client: httpx.AsyncClient, end: float) -> None:
        """Draw until ``end``; what is not finished then does not count."""
        while time.perf_counter() < end:
            try:
                await self._one(client, end)
            except httpx.HTTPError as error:
                self.wrong.append(repr(error))

    async def _one(self, client: httpx.AsyncClient, end: float) -> None:
        body = {"data": self.values, "fn_index": self.fn_index, "session_hash": self.session}
        began, seen, events, size = time.perf_counter(), False, 0, 0
        (await client.post(f"{self.api}/queue/join", json=body)).raise_for_status()
        where = f"{self.api}/queue/data"
        async with client.stream("GET", where, params={"session_hash": self.session}) as stream:
            async for line in stream.aiter_lines():
                size += len(line)
                if not line.startswith("data:"):
                    continue
                events += 1
                message = json.loads(line[5:])
                if message["msg"] == "process_generating" and not seen and _shows(message):
                    seen = True
                    self.first.append(time.perf_counter() - began)
                if message["msg"] == "process_completed":
                    if not message["success"]:
                        self.wrong.append(str(message.get("output"))[:200])
                        continue  # whoever hangs up before the end takes back the next call, too
                    self.pictures += time.perf_counter() <= end
                    self.events.append(events)
                    self.bytes.append(size)


def _shows(message: dict[str, Any]) -> bool:
    """Whether an event shows codes: its first has the whole status, later ones what changed."""
    text = json.dumps(message["output"]["data"][1])
    return ('"drawing"' in text and '"step": 0' not in text) or '["step"]' in text


async def _answers(client: httpx.AsyncClient, url: str, end: float) -> list[float]:
    """How long /healthz took, asked ten times a second."""
    times = []
    while time.perf_counter() < end:
        began = time.perf_counter()
        (await client.get(url + "/healthz")).raise_for_status()
        times.append(time.perf_counter() - began)
        await asyncio.sleep(0.1)
    return times


async def _visit(url: str, fn_index: int, clients: int, seconds: float, values: list[Any]) -> str:
    visitors = [Visitor(url + "/gradio_api", fn_index, values) for _ in range(clients)]
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(timeout=120, limits=limits, trust_env=False) as client:
        began = time.perf_counter()
        end = began + seconds
        asked = asyncio.create_task(_answers(client, url, end))
        await asyncio.gather(*(one.draw(client, end) for one in visitors))
        found = {
            "pictures": sum(one.pictures for one in visitors),
            "seconds": seconds,
            "events": [count for one in visitors for count in one.events],
            "bytes": [count for one in visitors for count in one.bytes],
            "first": sorted(at for one in visitors for at in one.first),
            "health": sorted(await asked),
            "wrong": [text for one in visitors for text in one.wrong],
        }
    return json.dumps(found)


if __name__ == "__main__":
    _url, _fn, _clients, _seconds, _values = sys.argv[1:]
    _work = _visit(_url, int(_fn), int(_clients), float(_seconds), json.loads(_values))
    print(asyncio.run(_work))
