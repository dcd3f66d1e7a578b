"""How fast the page answers while it is idle and while a model draws: ``aim bench page``."""

from __future__ import annotations

import json
import statistics
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from rich.table import Table

from aim.bench.machine import Machine
from aim.errors import AimError
from aim.pipeline import Pipeline
from aim.tables import plain
from aim.ui import LAUNCH, build
from aim.ui.models import first_class

PATHS = ("/healthz", "/config")  # the smallest answer, and what a browser needs first
PAUSE = 0.02  # seconds between two requests
PEOPLE = 4  # who draw at once when it is busy


@dataclass(frozen=True)
class Answers:
    """Times of one kind of request in milliseconds."""

    path: str
    busy: bool
    requests: int
    median_ms: float
    p95_ms: float
    most_ms: float


def probe(
    source: str, device: str, dtype: str, backend: str, requests: int = 100
) -> tuple[list[Answers], Machine]:
    """Serve the page for ``source`` on a port of its own and ask it ``requests`` times for each
    path, idle and while PEOPLE draw.
    """
    page: Any = build(source, device=device, dtype=dtype, backend=backend)
    _, url, _ = page.launch(prevent_thread_lock=True, quiet=True, **LAUNCH)
    try:
        models = page.health.models
        pipe = models.get(models.default)
        if not page.health.warm.wait(600):
            raise AimError("the model was not warm after 10 minutes; look at the log")
        found = [_answers(url, path, False, requests) for path in PATHS]
        with _drawing(pipe):
            found += [_answers(url, path, True, requests) for path in PATHS]
        return found, Machine.of(pipe.device)
    finally:
        page.close(verbose=False)


@contextmanager
def _drawing(pipe: Pipeline) -> Iterator[None]:
    """Inside, PEOPLE draw one picture after another, with previews as on the page."""
    over = threading.Event()

    def draw(seed: int) -> None:
        while not over.is_set():
            for _ in pipe.stream(first_class(pipe), seed=seed, preview_every=8):
                if over.is_set():
                    return

    people = [threading.Thread(target=draw, args=(seed,), daemon=True) for seed in range(PEOPLE)]
    for one in people:
        one.start()
    time.sleep(0.5)
    try:
        yield
    finally:
        over.set()
        for one in people:
            one.join(60)


def _answers(url: str, path: str, busy: bool, requests: int) -> Answers:
    def ask() -> float:
        started = time.perf_counter()
        with urllib.request.urlopen(url.rstrip("/") + path, timeout=60) as answer:
            answer.read()
        return 1000 * (time.perf_counter() - started)

    ask()
    times = sorted(_every(PAUSE, ask, requests))
    p95 = times[min(len(times) - 1, round(0.95 * len(times)))]
    return Answers(
        path, busy, requests, round(statistics.median(times), 1), round(p95, 1), round(times[-1], 1)
    )


def _every(pause: float, ask: Callable[[], float], count: int) -> Iterator[float]:
    for _ in range(count):
        time.sleep(pause)
        yield ask()


def as_table(answers: list[Answers], machine: Machine) -> Table:
    """For people."""
    rows = [
        (
            one.path,
            f"{PEOPLE} people draw" if one.busy else "idle",
            *(f"{value:.1f}" for value in (one.median_ms, one.p95_ms, one.most_ms)),
        )
        for one in answers
    ]
    heads = ("request", "model", "median", "95th percentile", "most")
    return plain(f"How fast the page answers, in ms, on {machine.name}", heads, rows, left=2)


def as_json(answers: list[Answers], machine: Machine) -> str:
    """One line."""
    return json.dumps({"page": [asdict(one) for one in answers], "machine": asdict(machine)})
