"""Exceptions that tell a user what was wrong and what to do about it."""

from __future__ import annotations

import traceback


class AimError(Exception):
    """Base of every error that this package raises on purpose."""


class InvalidInput(AimError, ValueError):
    """A value from outside is out of range or unknown; the message names it and what is allowed."""


class CheckpointError(AimError):
    """A checkpoint is damaged, of another layout, or does not fit its configuration."""


class HubError(AimError):
    """A checkpoint could not be fetched from the hub."""


class QueueFull(AimError):
    """The engine's waiting line is full; try again later."""


class GenerationError(AimError):
    """The model failed while it drew an image."""


def let_go(error: BaseException) -> None:
    """Let the calls that ``error`` came through hold nothing any more, models and pools among it:
    for whoever keeps an error.
    """
    seen: BaseException | None = error
    while seen is not None:
        traceback.clear_frames(seen.__traceback__)
        seen = seen.__cause__ or seen.__context__
