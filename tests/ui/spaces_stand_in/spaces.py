"""Stands in for the package of ZeroGPU Spaces: as there, a decorated generator runs in a process
that is forked for the call.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Generator
from typing import Any

fork = multiprocessing.get_context("fork")
calls: list[int] = []  # process ids


def GPU(
    duration: int,
) -> Callable[
    [Callable[..., Generator[Any, None, None]]], Callable[..., Generator[Any, None, None]]
]:
    """The decorator; closing the generator ends the process."""
    assert 0 < duration <= 120

    def decorate(
        function: Callable[..., Generator[Any, None, None]],
    ) -> Callable[..., Generator[Any, None, None]]:
        def call(*arguments: Any) -> Generator[Any, None, None]:
            queue: Any = fork.SimpleQueue()

            def run() -> None:
                try:
                    for value in function(*arguments):
                        queue.put(("value", value))
                    queue.put(("end", None))
                except Exception as error:
                    queue.put(("error", error))
                os._exit(0)  # without what the page does at its exit

            process = fork.Process(target=run, daemon=True)
            process.start()
            calls.append(process.pid or 0)
            try:
                while True:
                    kind, value = queue.get()
                    if kind == "end":
                        return
                    if kind == "error":
                        raise value
                    yield value
            finally:
                process.terminate()
                process.join()

        return call

    return decorate
