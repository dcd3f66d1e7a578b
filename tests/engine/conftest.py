"""What the engine's tests share."""

from __future__ import annotations

import pytest
import torch

from aim.engine import runner as runners
from aim.engine import transfer as lanes
from tests.engine.lanes import LateLane


@pytest.fixture
def lane(monkeypatch: pytest.MonkeyPatch) -> LateLane:
    """The lane of every engine that the test makes, with batches of 4 or 8 rows."""
    lane = LateLane(torch.device("cpu"))
    monkeypatch.setattr(lanes, "connect", lambda device: lane)
    monkeypatch.setattr(runners, "batch_sizes", lambda device, dtype, slots: (4, 8))
    return lane
