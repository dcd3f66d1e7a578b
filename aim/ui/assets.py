"""Text that belongs to the page and is no Python: CSS, JavaScript, HTML templates."""

from __future__ import annotations

from functools import cache
from importlib.resources import files


@cache
def text(path: str) -> str:
    """A file of this package, by its path below ``aim/ui``."""
    return files("aim.ui").joinpath(path).read_text(encoding="utf-8")
