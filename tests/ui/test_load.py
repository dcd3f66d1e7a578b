"""The load test: it counts what came right, and what did not."""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from aim.bench.machine import Machine
from aim.ui import load
from aim.ui.load_clients import DOES, Client, Found, Orders
from aim.ui.load_clients import load as come
from pages import Page


@pytest.fixture
def orders(page: Page, monkeypatch: pytest.MonkeyPatch) -> tuple[Orders, list[str]]:
    monkeypatch.setattr(load, "PICTURES", 4)
    blocks: Any = page.blocks
    drawn = load.references(page.pipe)
    named = {fn.api_name: i for i, fn in blocks.fns.items()}
    draws = [(str(i), load._values(blocks, "generate", told)) for i, (told, _) in enumerate(drawn)]
    several = {"across": "seed", "across_values": "1, 2", "down_values": "0.8, 1"}
    sweep = load._values(blocks, "sweep", several)
    asked = Orders(page.url.rstrip("/"), 6, 2.0, named, draws, sweep)
    return asked, [digest for _, digest in drawn]


def apart(work: Any) -> Any:
    with ThreadPoolExecutor() as thread:  # this one may have a browser's event loop
        return thread.submit(asyncio.run, work).result()


def test_clients_of_every_kind_get_what_the_model_draws_alone(
    orders: tuple[Orders, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aim.ui.load_clients.DOES", dict.fromkeys(DOES, 1))
    asked, right = orders
    found = apart(come(asked))
    watch = load._Watch()
    watch.stop()
    summed = load._summed(asked, json.loads(json.dumps(vars(found))), right, watch)
    assert summed.served > 0 and summed.sweeps + summed.stopped + summed.left > 0
    assert summed.held, summed
    assert summed.health_ms_p95 > 0 and summed.memory_mb_end > 100
    assert summed.first_ms_p95 >= max(summed.told_ms_p95, summed.prompt_ms_p95) > 0
    told = json.loads(load.as_json(summed, Machine.of(torch.device("cpu"))))
    assert told["load"]["served"] == summed.served
    other = load._summed(asked, vars(found), ["another"] * len(right), watch)
    assert other.wrong == other.served and not other.held


def test_a_refusal_has_words_or_is_counted_apart() -> None:
    found = Found()
    orders: Any = SimpleNamespace(url="http://page")
    client = Client(cast(Any, None), orders, found, 0)
    for why in ("The line is full; try again", None, "null", {"error": None}):
        client._refused(why)
    assert (len(found.refused), len(found.unexplained)) == (1, 3)
