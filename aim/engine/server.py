"""One thread that drives an engine for everybody."""

from __future__ import annotations

import threading
from queue import SimpleQueue

import torch

from aim.device import all_threads, threads
from aim.engine.desk import Desk
from aim.engine.engine import Engine
from aim.engine.requests import Request


class Server(Desk):
    """Drives ``engine`` from one daemon thread, which sleeps when nothing is to do. Everything here
    is thread-safe.

    On a CPU it computes with ``cores`` threads, for None with as many as PyTorch would take.
    """

    reports = ()  # as of ``Service``: there are no replicas

    def __init__(self, engine: Engine, cores: int | None = None) -> None:
        super().__init__("aim-engine")
        self.engine = engine
        # may be put to from a garbage collector, anywhere
        self._woken: SimpleQueue[None] = SimpleQueue()
        self._begun = threading.Event()
        if engine.model.device.type == "cpu":
            self._start(cores or all_threads())
        else:
            self._thread.start()

    def why_not(self) -> str:
        """Why nothing can be drawn now, empty where all is well."""
        return "" if self.alive else "its engine has ended; another one begins"

    def cancel(self, request_id: int) -> None:
        """As ``Engine.cancel``."""
        self.engine.cancel(request_id)

    def _enter(self, request: Request) -> None:
        self.engine.submit(request)

    def _leave(self, request_id: int) -> None:
        """The engine knows."""

    def _wake(self) -> None:
        self._woken.put(None)

    def _start(self, cores: int) -> None:
        """Start the thread with so many CPU threads of PyTorch's, which gives a new thread as many
        as were asked for last.
        """
        with threads(cores):
            self._thread.start()
            self._begun.wait()

    def _run(self) -> None:
        torch.get_num_threads()  # from here on, what this thread has
        self._begun.set()
        while not self._closing:
            if self.engine.idle:
                self._woken.get()
            self._tell(*self.engine.step())
        for request_id in self._left():
            self.engine.cancel(request_id)
        self._tell(*self.engine.step())
        self.engine.drain()
