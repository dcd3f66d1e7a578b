"""Many requests on one model: they join and leave a running batch at any step."""

from aim.engine.engine import Engine
from aim.engine.requests import (
    Cancelled,
    Event,
    Failed,
    Finished,
    Preparing,
    Progress,
    Queued,
    Request,
    Started,
)
from aim.engine.server import Server, Subscription

__all__ = [
    "Cancelled",
    "Engine",
    "Event",
    "Failed",
    "Finished",
    "Preparing",
    "Progress",
    "Queued",
    "Request",
    "Server",
    "Started",
    "Subscription",
]
