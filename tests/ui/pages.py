"""What the tests of the page share: a page that is being served, a model that can be slowed down,
and waiting.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import gradio as gr

from aim.pipeline import Pipeline
from tests.waiting import until


@dataclass
class Brake:
    """Slows every step of a model down to ``seconds``, so that there is time to look and to
    interfere.
    """

    seconds: float = 0.0
    steps: int = 0

    def __call__(self, step: Callable[..., Any]) -> Callable[..., Any]:
        def slowed(*args: Any, **kwargs: Any) -> Any:
            if self.seconds:  # sleeping for no time lets others of a busy machine go first
                time.sleep(self.seconds)
            self.steps += 1
            return step(*args, **kwargs)

        return slowed


@dataclass
class Page:
    """A page that is being served."""

    url: str
    pipe: Pipeline
    brake: Brake
    blocks: gr.Blocks
    rivals: Brake = field(default_factory=Brake)  # of the models that race
    # names of models that were asked for and are out of reach
    attempts: list[str] = field(default_factory=list)

    def settle(self, seconds: float = 10.0) -> bool:
        """Wait until nobody draws; False if somebody still does after ``seconds``."""
        return until(lambda: self.pipe.server.engine.idle, seconds)


def show(tab: Any, name: str) -> None:
    """Open the page's tab ``name``."""
    tab.wait_for_function("() => window.aim")
    tab.get_by_role("tab", name=name, exact=True).click()
