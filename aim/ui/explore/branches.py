"""What somebody explored: pictures that grew out of each other, as a tree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from aim.pipeline import Pipeline

GIVEN = "your picture"


@dataclass(frozen=True, eq=False)
class Branch:
    """A picture, and where it comes from. Numbered from 1, in the order in which they were made."""

    number: int
    parent: int  # number of the picture whose rows it kept; 0 for none
    rows: int  # kept of it
    title: str  # its class, or GIVEN
    settings: str  # seed, guidance and temperature; empty for one that was given
    cost: str  # how it was made
    pipe: Pipeline  # whose codes they are
    codes: np.ndarray  # (num_tokens,)
    picture: str | None  # path of its PNG; None on a full disk

    @property
    def caption(self) -> str:
        """One line to stand under it."""
        origin = (
            f", {self.rows} {'row' if self.rows == 1 else 'rows'} of {self.parent}"
            if self.parent
            else ""
        )
        return f"{self.number}: {self.title}{origin}"


def tree(branches: Sequence[Branch]) -> str:
    """All of them as nested lists in Markdown, each under the one that it grew out of; empty for
    none.
    """
    return "\n".join(_lines(branches, 0, 0))


def _lines(branches: Sequence[Branch], parent: int, depth: int) -> list[str]:
    lines = []
    for branch in branches:
        if branch.parent == parent:
            details = "; ".join(part for part in (branch.settings, branch.cost) if part)
            lines.append(f"{'  ' * depth}- **{branch.caption}**{': ' if details else ''}{details}")
            lines += _lines(branches, branch.number, depth + 1)
    return lines
