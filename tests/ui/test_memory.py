"""What a page keeps of visits that are over, in a process of its own."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.launching import call
from tests.waiting import until

SEVERAL = 40


def megabytes() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def kept(checkpoint: Path) -> tuple[float, int, int, int]:
    """MB that ``SEVERAL`` visits left after as many before them, sessions, messages and calls."""
    os.environ |= {"AIM_SESSIONS": "30", "GRADIO_ANALYTICS_ENABLED": "False"}
    os.environ["SSL_CERT_DIR"] = str(Path(__file__).parent)  # none, which would take memory
    import aim.ui

    page: Any = aim.ui.build(str(checkpoint), device="cpu", backend="eager")
    _, url, _ = page.launch(prevent_thread_lock=True, quiet=True, **aim.ui.LAUNCH)
    api, took = f"{url.rstrip('/')}/gradio_api", []
    assert page.health.warm.wait(60)
    with httpx.Client(timeout=60, trust_env=False) as client:
        for _ in range(2):
            for i in range(SEVERAL):
                asked = client.post(f"{api}/call/generate", json={"data": ["goldfish"]})
                if i % 5:  # the others never listen
                    done = client.get(f"{api}/call/generate/{asked.json()['event_id']}").text
                    assert "event: complete" in done
            assert until(lambda: not page._queue.event_ids_to_events, 60)
            took.append(megabytes())
    page.forget()
    queue, sessions = page._queue, page.app.state_holder
    found = len(sessions.session_data), len(queue.pending_messages_per_session)
    page.close(verbose=False)
    page.health.models.loaded[0].close()
    return took[1] - took[0], *found, len(queue.pending_event_ids_session)


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_visits_that_are_over_leave_nothing_but_the_last(tiny_checkpoint: Path) -> None:
    grown, sessions, messages, calls = call(kept, tiny_checkpoint / "tiny.safetensors")
    assert sessions <= 30 and messages <= 30 and calls <= 30
    assert grown < 25, "MB; a session of a page that is described again takes 0.3"
