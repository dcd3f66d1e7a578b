"""The visit, laid out and connected to where its pictures go on."""

from __future__ import annotations

from typing import Any

from aim.ui.explore.handlers import ExploreActions
from aim.ui.inside.handlers import InsideActions
from aim.ui.settings.handlers import Boxes, SettingsActions
from aim.ui.visit.visit import Visit


def visit_below(
    boxes: Boxes, settings: SettingsActions, looking: InsideActions, exploring: ExploreActions
) -> None:
    """Lay the visit out below the tabs of the current row."""
    visit = Visit(elem_id="visit", elem_classes=["aim-below", "aim-flush"])
    inside, explore = looking.screen, exploring.screen
    private: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    visit.select(settings.taken, boxes.current, boxes.outputs, **private).then(
        None, None, None, js="() => window.aim.arrive()", **private
    )
    visit.input(
        looking.open,
        [inside.kind, inside.row, inside.column],
        list(inside),
        concurrency_limit=None,
        **private,
    )
    visit.submit(exploring.adopt, explore.branches, list(explore), **private)
