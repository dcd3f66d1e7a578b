"""How many pictures a second the page gives to a crowd, against the engine alone: ``python -m aim
bench page --clients N --seconds S``.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from aim.bench.machine import Machine
from aim.engine import Request
from aim.errors import AimError
from aim.pipeline import Pipeline
from aim.tables import plain
from aim.ui import LAUNCH, build, visitors
from aim.ui.models import first_class


@dataclass(frozen=True)
class Crowd:
    """What ``clients`` got in ``seconds``, each drawing without a pause. Times in milliseconds;
    ``alone`` is how many pictures a second the engine gave at the same batch, decoded.
    """

    clients: int
    seconds: float
    pictures_a_second: float
    alone: float
    first_ms_median: float
    first_ms_p95: float
    health_ms_p95: float
    events_a_picture: float
    bytes_a_picture: float
    wrong: int

    @property
    def share(self) -> float:
        """Of what the engine alone gives."""
        return self.pictures_a_second / self.alone if self.alone else 0.0


def crowd(
    source: str, device: str, dtype: str, backend: str, clients: int, seconds: float
) -> tuple[Crowd, Machine]:
    """Serve the page for ``source`` on a port of its own to so many clients, which are in a process
    of their own, then let the engine draw alone. AimError where a picture was lost.
    """
    page: Any = build(source, device=device, dtype=dtype, backend=backend)
    _, url, _ = page.launch(prevent_thread_lock=True, quiet=True, **LAUNCH)
    try:
        models = page.health.models
        pipe = models.get(models.default)
        if not page.health.warm.wait(600):
            raise AimError("the model was not warm after 10 minutes; look at the log")
        index, fn = next((i, fn) for i, fn in page.fns.items() if fn.api_name == "generate")
        values = [block.value for block in fn.inputs]
        values[:2], values[7] = [first_class(pipe), pipe.name], True
        alone(pipe, clients, min(seconds, 5.0))  # as warm as the page will be
        rate = alone(pipe, clients, seconds)
        found = _visited(url.rstrip("/"), index, clients, seconds, values)
        if found["wrong"]:
            raise AimError(f"{len(found['wrong'])} drawings failed: {found['wrong'][0]}")
        whole = Crowd(
            clients,
            seconds,
            round(found["pictures"] / seconds, 2),
            round(rate, 2),
            _at(found["first"], 0.5),
            _at(found["first"], 0.95),
            _at(found["health"], 0.95),
            round(_mean(found["events"]), 1),
            round(_mean(found["bytes"])),
            len(found["wrong"]),
        )
        return whole, Machine.of(pipe.device)
    finally:
        page.close(verbose=False)


def _visited(url: str, fn_index: int, clients: int, seconds: float, values: list[Any]) -> Any:
    program = str(Path(visitors.__file__))
    what = [url, str(fn_index), str(clients), str(seconds), json.dumps(values)]
    done = subprocess.run([sys.executable, program, *what], capture_output=True, text=True)
    if done.returncode:
        raise AimError(f"the visitors could not draw: {done.stderr[-500:]}")
    return json.loads(done.stdout)


def alone(pipe: Pipeline, clients: int, seconds: float) -> float:
    """Pictures a second of the engine, decoded, with ``clients`` requests in flight, no page in
    between.
    """
    end, lock, pictures = time.perf_counter() + seconds, threading.Lock(), 0
    row = pipe.row(first_class(pipe))

    def draw(seed: int) -> None:
        nonlocal pictures
        while time.perf_counter() < end:
            seed += clients
            for frame in pipe.open([Request(row, pipe.sampling, seed)]):
                codes = frame.codes
            pipe.picture(codes)
            with lock:
                pictures += time.perf_counter() <= end

    threads = [threading.Thread(target=draw, args=(seed,)) for seed in range(clients)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    return pictures / seconds


def _at(times: list[float], share: float) -> float:
    """A quantile of sorted seconds, in milliseconds."""
    return round(1000 * times[min(len(times) - 1, round(share * len(times)))], 1) if times else 0.0


def _mean(counts: list[int]) -> float:
    return sum(counts) / len(counts) if counts else 0.0


def as_table(found: Crowd, machine: Machine) -> Table:
    """For people."""
    title = f"{found.clients} people draw for {found.seconds:g} s on {machine.name}"
    rows = {
        "pictures a second": f"{found.pictures_a_second:.2f}",
        "the engine alone, decoded": f"{found.alone:.2f}",
        "share of it": f"{found.share:.0%}",
        "first preview, median": f"{found.first_ms_median:.0f} ms",
        "first preview, 95th percentile": f"{found.first_ms_p95:.0f} ms",
        "/healthz, 95th percentile": f"{found.health_ms_p95:.1f} ms",
        "events a picture": f"{found.events_a_picture:.1f}",
        "bytes a picture": f"{found.bytes_a_picture:,.0f}",
    }
    return plain(title, ["of the page", ""], rows.items())


def as_json(found: Crowd, machine: Machine) -> str:
    """One line."""
    told = {**asdict(found), "share": round(found.share, 3)}
    return json.dumps({"crowd": told, "machine": asdict(machine)})
