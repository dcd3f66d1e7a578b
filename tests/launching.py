"""Processes of their own for commands and functions, without the seconds that each would import
for: they are forked from a process that has imported everything.
"""

from __future__ import annotations

import fcntl  # noqa: F401, see POINTS
import itertools
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

IMPORTED = [
    "aim.cli",
    "aim.evaluation.run",
    "aim.training.train_prior",
    "aim.training.train_tokenizer",
    "accelerate",
    "pytest",
    "torch._dynamo",  # by every optimizer
    "torch.distributed.fsdp",
]
T = TypeVar("T")
forking = multiprocessing.get_context("forkserver")
forking.set_forkserver_preload(IMPORTED)


def script(text: str, argument: object) -> subprocess.Popen[str]:
    """An interpreter of its own that runs ``text`` with one argument, spoken with by its standard
    input and output.
    """
    return subprocess.Popen(
        [sys.executable, "-c", text, str(argument)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        cwd=Path(__file__).resolve().parent.parent,
    )  # fmt: skip


def start(
    arguments: Sequence[object],
    output: Path,
    environment: dict[str, str] | None = None,
    dies: tuple[str, int] | None = None,
) -> ForkServerProcess:
    """One process of ``python -m aim`` with these arguments; what it prints goes to files that
    begin with ``output``. It ``dies`` by SIGKILL at one of POINTS, when it comes there for the
    so manieth time.
    """
    settings = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", **(environment or {})}
    words = [str(argument) for argument in arguments]
    process = forking.Process(target=_main, args=(words, settings, output, dies), daemon=True)
    process.start()
    return process


def run(arguments: Sequence[object], processes: int = 1, timeout: float = 150.0) -> str:
    """Run a command on so many processes, which find each other as torchrun's do and have to end
    well: what all of them print.
    """
    with TemporaryDirectory() as folder:
        shared = {"WORLD_SIZE": str(processes), **_meeting()} if processes > 1 else {}
        outputs = [Path(folder) / str(rank) for rank in range(processes)]
        started = []
        for rank, output in enumerate(outputs):
            own = {"RANK": str(rank), "LOCAL_RANK": str(rank)} if processes > 1 else {}
            started.append(start(arguments, output, {**shared, **own}))
        end = time.monotonic() + timeout
        for process in started:
            process.join(max(0.0, end - time.monotonic()))
            if process.exitcode != 0:  # the others may wait for it
                for other in started:
                    other.kill()
        said = "".join(path.read_text() for path in sorted(Path(folder).iterdir()))
        assert all(process.exitcode == 0 for process in started), said
    return said


def call(function: Callable[..., T], *arguments: object) -> T:
    """What a function of a module returns in a process of its own; for what it takes of memory and
    time.
    """
    here, there = forking.Pipe(duplex=False)
    process = forking.Process(target=_answer, args=(there, function, arguments), daemon=True)
    process.start()
    there.close()
    try:
        return here.recv()
    finally:
        process.join()


# where a process that writes a file or locks a folder may be killed: a call, and whether behind it
POINTS = {
    "half of a file": ("os", "fsync", False),
    "before it is kept": ("os", "fsync", False),
    "before it takes its place": ("os", "replace", False),
    "behind that": ("os", "replace", True),
    "with the lock": ("fcntl", "flock", True),
}


def _die(point: str, number: int) -> None:
    module, name, behind = POINTS[point]
    call, calls = getattr(sys.modules[module], name), itertools.count(1)

    def last(*arguments: Any) -> Any:
        now = next(calls) == number
        if now and point == "half of a file":
            os.ftruncate(arguments[0], os.fstat(arguments[0]).st_size // 2)
        if not now or behind:
            call(*arguments)
        if now:
            os.kill(os.getpid(), signal.SIGKILL)

    setattr(sys.modules[module], name, last)


def _answer(there: Connection, function: Callable[..., T], arguments: tuple[object, ...]) -> None:
    there.send(function(*arguments))


def _meeting() -> dict[str, str]:
    """Where processes meet: an address that is free."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}


def _main(
    arguments: list[str],
    environment: dict[str, str],
    output: Path,
    dies: tuple[str, int] | None,
) -> None:
    os.environ.update(environment)
    if dies:
        _die(*dies)
    for stream, kind in ((sys.stdout, ".out"), (sys.stderr, ".err")):
        stream.flush()
        with output.with_suffix(kind).open("wb") as file:
            os.dup2(file.fileno(), 1 if kind == ".out" else 2)
    from aim.cli import main

    main(arguments)
