"""Many requests on one model: they join and leave a running batch at any step."""

from aim.engine.desk import Mailbox, Subscription, Tally
from aim.engine.engine import Engine
from aim.engine.interface import Feed, Load, Report, Service
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
from aim.engine.server import Server

__all__ = [
    "Cancelled",
    "Engine",
    "Event",
    "Failed",
    "Feed",
    "Finished",
    "Load",
    "Mailbox",
    "Preparing",
    "Progress",
    "Queued",
    "Report",
    "Request",
    "Server",
    "Service",
    "Started",
    "Subscription",
    "Tally",
]
