"""What a supervisor asks the server: is it up, is it ready, what has it done. Answered while models
draw, without waiting for them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from aim._version import __version__
from aim.ui.models import Models

METRICS = "text/plain; version=0.0.4; charset=utf-8"
COUNTERS = {
    "requests": "Drawings asked for.",
    "finished": "Drawings that were finished.",
    "failed": "Drawings that failed.",
    "cancelled": "Drawings that were stopped.",
    "codes": "Codes of finished drawings.",
    "seconds": "Seconds of model time of finished drawings.",
}


class Health:
    """The state of one page; ``warm`` is set when the first model has drawn a little, ``rate`` is
    how many codes a second it drew, 0 before that is known.
    """

    def __init__(self, models: Models) -> None:
        self.models, self.warm, self.rate = models, threading.Event(), 0.0
        self._started = time.monotonic()

    def metrics(self) -> Iterator[str]:
        """Lines in Prometheus' text format."""
        yield from _metric(
            "aim_up_seconds",
            "gauge",
            "Seconds since the page was built.",
            {"": time.monotonic() - self._started},
        )
        yield from _metric(
            "aim_ready",
            "gauge",
            "Whether the page's own model is warm.",
            {"": int(self.warm.is_set())},
        )
        pipes = self.models.loaded
        told = {
            _labels(
                model=pipe.name, version=pipe.version, package=__version__, device=str(pipe.device)
            ): 1
            for pipe in pipes
        }
        yield from _metric("aim_model_info", "gauge", "A model that is loaded.", told)
        for name, text in COUNTERS.items():
            found = {
                _labels(model=pipe.name): getattr(pipe.started.tally, name) if pipe.started else 0
                for pipe in pipes
            }
            yield from _metric(f"aim_{name}_total", "counter", text, found)
        for name, text in (("running", "Drawings in the batch."), ("waiting", "Drawings in line.")):
            found = {
                _labels(model=pipe.name): getattr(pipe.started.engine, name) if pipe.started else 0
                for pipe in pipes
            }
            yield from _metric(f"aim_{name}", "gauge", text, found)


def _metric(name: str, kind: str, text: str, values: dict[str, Any]) -> Iterator[str]:
    yield f"# HELP {name} {text}"
    yield f"# TYPE {name} {kind}"
    for labels, value in values.items():
        yield f"{name}{labels} {value:.10g}"


def _labels(**values: str) -> str:
    escaped = {
        name: value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
        for name, value in values.items()
    }
    return "{" + ",".join(f'{name}="{value}"' for name, value in escaped.items()) + "}"


def _of(request: Request) -> Health:
    health: Health = request.app.blocks.health
    return health


async def _healthz(_request: Request) -> Response:
    return JSONResponse({"status": "up"})


async def _readyz(request: Request) -> Response:
    if _of(request).warm.is_set():
        return JSONResponse({"status": "ready"})
    return JSONResponse(
        {"status": "not ready", "reason": "the model is loading or warming up"}, 503
    )


async def _metrics(request: Request) -> Response:
    return PlainTextResponse("\n".join(_of(request).metrics()) + "\n", media_type=METRICS)


ROUTES = [Route("/healthz", _healthz), Route("/readyz", _readyz), Route("/metrics", _metrics)]
"""For the server of a page whose ``health`` is a ``Health``."""
