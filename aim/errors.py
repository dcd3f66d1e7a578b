"""Exceptions that tell a user what was wrong and what to do about it."""


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
