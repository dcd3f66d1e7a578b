"""Clients of a page who do all that people and programs do, as a program of its own that knows
nothing of models: they draw, compare, stop, hang up and do not listen. Prints a line of JSON.

``python load_clients.py ORDERS``, ORDERS as JSON: see ``Orders``.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import secrets
import sys
import time
from dataclasses import asdict, dataclass, field
from typing import Any

import httpx

# of those who come: how often they do what
DOES = {"draw": 12, "stop": 3, "hang_up": 2, "deaf": 1, "sweep": 1}
PATIENCE = 300.0  # seconds without a word after which a drawing is lost
OFTEN = 0.1  # seconds between two questions for /healthz


@dataclass(frozen=True)
class Orders:
    """``draws`` are values of the endpoint generate, each with the key of its reference; ``sweep``
    those of a sweep; ``functions`` the numbers of both.
    """

    url: str
    clients: int
    seconds: float
    functions: dict[str, int]
    draws: list[tuple[str, list[Any]]]
    sweep: list[Any]


@dataclass
class Found:
    """What became of it all. Times in seconds."""

    served: dict[str, list[str]] = field(default_factory=dict)  # of each key, SHA-256 of the PNGs
    sweeps: int = 0
    stopped: int = 0
    left: int = 0
    refused: list[str] = field(default_factory=list)  # with these words
    unexplained: list[str] = field(default_factory=list)  # without any
    lost: list[str] = field(default_factory=list)
    told: list[float] = field(default_factory=list)  # to a place in line, of those who had one
    prompt: list[float] = field(default_factory=list)  # to a first code, of those who had none
    first: list[float] = field(default_factory=list)  # to a first code, of all
    health: list[float] = field(default_factory=list)


class Client:
    """One who does one thing after another."""

    def __init__(self, http: httpx.AsyncClient, orders: Orders, found: Found, number: int) -> None:
        self.http, self.orders, self.found = http, orders, found
        self.api = orders.url + "/gradio_api"
        self.rng = random.Random(number)

    async def run(self, end: float) -> None:
        """Until ``end``; what was begun is seen through."""
        while time.perf_counter() < end:
            does = self.rng.choices(list(DOES), list(DOES.values()))[0]
            try:
                await (self._sweep() if does == "sweep" else self._draw(does))
            except httpx.HTTPError as error:
                self.found.lost.append(f"{does}: {error!r}")
            await asyncio.sleep(self.rng.random())

    async def _draw(self, does: str) -> None:
        key, values = self.rng.choice(self.orders.draws)
        patience = PATIENCE if does == "draw" else self.rng.random() * 5
        ended = await self._call("generate", values, patience, does)
        if ended:
            path = ended["data"][2]["path"]
            png = await self.http.get(f"{self.api}/file={path}")
            if png.status_code != 200:
                self.found.lost.append(f"the file of a drawing: {png.status_code}")
            else:
                digest = hashlib.sha256(png.content).hexdigest()
                self.found.served.setdefault(key, []).append(digest)

    async def _sweep(self) -> None:
        ended = await self._call("sweep", self.orders.sweep, PATIENCE, "sweep")
        self.found.sweeps += ended is not None

    async def _call(
        self, name: str, values: list[Any], patience: float, does: str
    ) -> dict[str, Any] | None:
        """What a call ended with; None where it was refused, stopped or left."""
        session, index = secrets.token_hex(6), self.orders.functions[name]
        body = {"data": values, "fn_index": index, "session_hash": session}
        began = time.perf_counter()
        joined = await self.http.post(f"{self.api}/queue/join", json=body)
        if joined.status_code != 200:
            self._refused(joined.json().get("detail"))
            return None
        body["event_id"] = joined.json()["event_id"]
        if does == "deaf":
            await asyncio.sleep(patience)  # and never listens
            self.found.left += 1
            return None
        try:
            return await asyncio.wait_for(self._listen(session, began), patience)
        except asyncio.TimeoutError:
            if does == "stop":
                await self.http.post(f"{self.api}/cancel", json=body)
                self.found.stopped += 1
            elif does == "hang_up":
                self.found.left += 1
            else:
                self.found.lost.append(f"{name}: no word for {patience:g} s")
        return None

    async def _listen(self, session: str, began: float) -> dict[str, Any] | None:
        told = first = False
        where = f"{self.api}/queue/data"
        async with self.http.stream("GET", where, params={"session_hash": session}) as stream:
            async for line in stream.aiter_lines():
                if not line.startswith("data:"):
                    continue
                message = json.loads(line[5:])
                if message["msg"] == "process_generating":
                    text = json.dumps(message["output"].get("data", [])[1:2])
                    drawn = '"drawing"' in text or '["step"]' in text
                    now = time.perf_counter() - began
                    if not told and not first and '"waiting"' in text:
                        told = True
                        self.found.told.append(now)
                    if not first and drawn:
                        first = True
                        self.found.first.append(now)
                        if not told:
                            self.found.prompt.append(now)
                if message["msg"] == "process_completed":
                    output: dict[str, Any] = message["output"]
                    if message["success"]:
                        return output
                    self._refused(output.get("error"))
                    return None
        self.found.lost.append("the stream ended before the drawing did")
        return None

    def _refused(self, why: Any) -> None:
        said = isinstance(why, str) and len(why.split()) > 3
        (self.found.refused if said else self.found.unexplained).append(str(why)[:200])


async def _health(http: httpx.AsyncClient, url: str, found: Found) -> None:
    while True:
        began = time.perf_counter()
        (await http.get(url + "/healthz")).raise_for_status()
        found.health.append(time.perf_counter() - began)
        await asyncio.sleep(OFTEN)


async def load(orders: Orders) -> Found:
    """All of them at once."""
    found = Found()
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(timeout=PATIENCE, limits=limits, trust_env=False) as http:
        end = time.perf_counter() + orders.seconds
        asked = asyncio.create_task(_health(http, orders.url, found))
        clients = [Client(http, orders, found, number) for number in range(orders.clients)]
        await asyncio.gather(*(client.run(end) for client in clients))
        asked.cancel()
    return found


if __name__ == "__main__":
    print(json.dumps(asdict(asyncio.run(load(Orders(**json.loads(sys.argv[1])))))))
