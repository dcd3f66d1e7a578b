"""How fast the page answers: measured idle and while people draw, told as a table and a line of
JSON.
"""

from __future__ import annotations

import json

from rich.console import Console

from aim.ui import probe
from pages import Page


def test_it_is_measured_and_told(page: Page) -> None:
    before = page.pipe.server.tally.requests
    answers, machine = probe.probe("tiny", "cpu", "auto", "eager", requests=6)
    assert [(one.path, one.busy, one.requests) for one in answers] == [
        (path, busy, 6) for busy in (False, True) for path in probe.PATHS
    ]
    assert all(0 < one.median_ms <= one.p95_ms <= one.most_ms for one in answers)
    assert page.pipe.server.tally.requests >= before + probe.PEOPLE, "people drew"
    assert page.settle(), "and left"
    console = Console(width=120, record=True, quiet=True)
    console.print(probe.as_table(answers, machine))
    parsed = json.loads(probe.as_json(answers, machine))
    assert len(parsed["page"]) == 4 and parsed["machine"]["cores"]
