"""What the engine's tests share."""

from __future__ import annotations

import pytest
import torch

from aim.engine import runner as runners
from aim.engine import transfer
from tests.engine.late import LateQueue


@pytest.fixture
def queue(monkeypatch: pytest.MonkeyPatch) -> LateQueue:
    """The queue of every engine that the test makes, with batches of 4 or 8 rows."""
    queue = LateQueue(torch.device("cpu"))
    monkeypatch.setattr(transfer, "device_queue", lambda device: queue)
    monkeypatch.setattr(runners, "batch_sizes", lambda device, dtype, slots: (4, 8))
    return queue
