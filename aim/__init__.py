"""AiM: images drawn code by code with a Mamba-2 model. ``pipe = aim.load(); images =
pipe.generate(["goldfish"])``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aim._version import __version__
from aim.config import AiMConfig, SamplingParams, VQConfig
from aim.errors import AimError, CheckpointError, GenerationError, HubError, InvalidInput, QueueFull

if TYPE_CHECKING:
    from aim.pipeline import Frame, Pipeline, Stream, load

__all__ = [
    "AiMConfig",
    "AimError",
    "CheckpointError",
    "Frame",
    "GenerationError",
    "HubError",
    "InvalidInput",
    "Pipeline",
    "QueueFull",
    "SamplingParams",
    "Stream",
    "VQConfig",
    "__version__",
    "load",
]


def __getattr__(name: str) -> Any:
    """What needs PyTorch is imported when it is first used: ``python -m aim --help`` answers at
    once.
    """
    if name in __all__:
        from aim import pipeline

        return getattr(pipeline, name)
    raise AttributeError(f"module 'aim' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
