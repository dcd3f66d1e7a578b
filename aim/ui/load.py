"""What a page bears: many clients who draw, compare, stop, hang up and do not listen, and whether
each got what the model draws alone: ``python -m aim bench load --clients N --minutes M``.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from aim.bench.machine import Machine
from aim.engine import Request
from aim.errors import AimError
from aim.pipeline import Pipeline
from aim.tables import plain
from aim.ui import LAUNCH, build, load_clients, temporary
from aim.ui.drawings import Drawn

PICTURES = 16  # that are drawn again and again
SETTINGS: tuple[dict[str, Any], ...] = ({}, {"cfg_scale": 1.0}, {"temperature": 0.8, "top_k": 100})
EARLY = 120.0  # seconds after which memory should not grow much
SAMPLE = 2.0  # seconds between two looks at memory and files


@dataclass(frozen=True)
class Load:
    """What ``clients`` got in ``seconds``. Memory in MB of the whole process, times in
    milliseconds.
    """

    clients: int
    seconds: float
    served: int  # drawings, each compared with what the model draws alone
    wrong: int
    sweeps: int
    stopped: int
    left: int  # who hung up or did not listen
    refused: int
    unexplained: int
    lost: int
    memory_mb_start: float
    memory_mb_early: float  # after ``EARLY`` seconds, or in the middle of less
    memory_mb_end: float
    files_most: int
    files_end: int
    told_ms_p95: float  # to a place in line, of those who had one
    prompt_ms_p95: float  # to a first code, of those who had none
    first_ms_median: float
    first_ms_p95: float
    health_ms_p95: float
    words: dict[str, int]  # of refusals and of what was lost, how often

    @property
    def held(self) -> bool:
        """Whether nothing was wrong, lost or refused without a word."""
        return not (self.wrong or self.lost or self.unexplained)


def load(
    source: str, device: str, dtype: str, backend: str, clients: int, seconds: float
) -> tuple[Load, Machine]:
    """Serve the page for ``source`` on a port of its own to so many clients, in a process of their
    own. In float32 every picture is compared; ``dtype`` auto is that.
    """
    dtype = "float32" if dtype == "auto" else dtype
    page: Any = build(source, device=device, dtype=dtype, backend=backend)
    _, url, _ = page.launch(prevent_thread_lock=True, quiet=True, **LAUNCH)
    try:
        models = page.health.models
        pipe = models.get(models.default)
        if not page.health.warm.wait(600):
            raise AimError("the model was not warm after 10 minutes; look at the log")
        drawn = references(pipe)
        functions = {fn.api_name: i for i, fn in page.fns.items() if fn.api_name}
        several = {"across": "seed", "across_values": "1, 2", "down_values": "0.8, 1"}
        orders = load_clients.Orders(
            url.rstrip("/"),
            clients,
            seconds,
            {name: functions[name] for name in ("generate", "sweep")},
            [(str(i), _values(page, "generate", told)) for i, (told, _) in enumerate(drawn)],
            _values(page, "sweep", several),
        )
        watch = _Watch()
        found = _run(orders)
        watch.stop()
        return _summed(orders, found, [digest for _, digest in drawn], watch), Machine.of(
            pipe.device
        )
    finally:
        page.close(verbose=False)


def references(pipe: Pipeline) -> list[tuple[dict[str, Any], str]]:
    """Of each picture that is drawn again and again, what the endpoint is told, and the SHA-256 of
    the PNG that it must give.
    """
    labels = [pipe.classes[i % len(pipe.classes)] for i in range(PICTURES)]
    params = [pipe.params(**SETTINGS[i % len(SETTINGS)]) for i in range(PICTURES)]
    asked = [Request(pipe.row(label), params[i], i) for i, label in enumerate(labels)]
    found = []
    for i, codes in enumerate(pipe.draw_all(asked)):
        drawn = Drawn(pipe, (codes,), (pipe.parameters(labels[i], i, params[i]),))
        digest = hashlib.sha256(drawn.png(pipe.pictures([codes]))).hexdigest()
        told = {"label": labels[i], "model": pipe.name, "seed": i, "random_seed": False}
        found.append(({**told, **asdict(params[i])}, digest))
    return found


def _values(page: Any, name: str, told: dict[str, Any]) -> list[Any]:
    """Values of an endpoint in its order: ``told`` by name, and else what the page begins with."""
    asked = page.get_api_info()["named_endpoints"][f"/{name}"]["parameters"]
    inputs = next(fn.inputs for fn in page.fns.values() if fn.api_name == name)
    each = zip(asked, inputs, strict=True)
    return [told.get(one["parameter_name"], block.value) for one, block in each]


class _Watch:
    """Memory of this process and files that it keeps, over time."""

    def __init__(self) -> None:
        self.memory: list[tuple[float, float]] = []  # seconds, MB
        self.files: list[int] = []
        self._over, self._began = threading.Event(), time.monotonic()
        self._place = temporary.folder()
        self._look()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """A last look."""
        self._over.set()
        self._thread.join()
        self._look()

    def at(self, seconds: float) -> float:
        """MB then."""
        return min(self.memory, key=lambda one: abs(one[0] - seconds))[1]

    def _run(self) -> None:
        while not self._over.wait(SAMPLE):
            self._look()

    def _look(self) -> None:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        now = time.monotonic() - self._began
        self.memory.append((now, pages * os.sysconf("SC_PAGE_SIZE") / 1e6))
        self.files.append(sum(len(names) for *_, names in os.walk(self._place)))


def _run(orders: load_clients.Orders) -> Any:
    program = str(Path(load_clients.__file__))
    command = [sys.executable, program, json.dumps(asdict(orders))]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise AimError(f"the clients could not go on: {done.stderr[-500:]}")
    return json.loads(done.stdout)


def _summed(orders: load_clients.Orders, found: Any, right: list[str], watch: _Watch) -> Load:
    served = [(key, digest) for key, digests in found["served"].items() for digest in digests]
    words = Counter([*found["refused"], *found["unexplained"], *found["lost"]])
    return Load(
        orders.clients,
        orders.seconds,
        served=len(served),
        wrong=sum(right[int(key)] != digest for key, digest in served),
        **{name: found[name] for name in ("sweeps", "stopped", "left")},
        **{name: len(found[name]) for name in ("refused", "unexplained", "lost")},
        memory_mb_start=round(watch.memory[0][1]),
        memory_mb_early=round(watch.at(min(EARLY, orders.seconds / 2))),
        memory_mb_end=round(watch.memory[-1][1]),
        files_most=max(watch.files),
        files_end=watch.files[-1],
        told_ms_p95=_at(found["told"], 0.95),
        prompt_ms_p95=_at(found["prompt"], 0.95),
        first_ms_median=_at(found["first"], 0.5),
        first_ms_p95=_at(found["first"], 0.95),
        health_ms_p95=_at(found["health"], 0.95),
        words=dict(words.most_common(5)),
    )


def _at(times: list[float], share: float) -> float:
    """A quantile of seconds, in milliseconds."""
    if not times:
        return 0.0
    return round(1000 * sorted(times)[min(len(times) - 1, round(share * len(times)))], 1)


def as_table(found: Load, machine: Machine) -> Table:
    """For people."""
    title = f"{found.clients} clients for {found.seconds:g} s on {machine.name}"
    counts = (
        *("served", "wrong", "sweeps", "stopped", "left"),
        *("refused", "unexplained", "lost"),
    )
    rows = {name: f"{getattr(found, name)}" for name in counts}
    early = f"{min(EARLY, found.seconds / 2):g} s"
    rows |= {
        f"memory at first, after {early}, at the end": f"{found.memory_mb_start:.0f}, "
        f"{found.memory_mb_early:.0f}, {found.memory_mb_end:.0f} MB",
        "files at the most, at the end": f"{found.files_most}, {found.files_end}",
        "a place in line, 95th percentile": f"{found.told_ms_p95:.0f} ms",
        "first code without waiting, 95th percentile": f"{found.prompt_ms_p95:.0f} ms",
        "first code of all, median": f"{found.first_ms_median:.0f} ms",
        "first code of all, 95th percentile": f"{found.first_ms_p95:.0f} ms",
        "/healthz, 95th percentile": f"{found.health_ms_p95:.1f} ms",
    }
    rows |= {f"“{text}”": f"{count} times" for text, count in found.words.items()}
    return plain(title, ["of the page", ""], rows.items())


def as_json(found: Load, machine: Machine) -> str:
    """One line."""
    return json.dumps({"load": asdict(found), "machine": asdict(machine)})
