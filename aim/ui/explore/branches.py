"""What somebody explored: pictures that grew out of each other, as a tree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from aim.checks import whole
from aim.errors import InvalidInput
from aim.pipeline import Pipeline
from aim.ui.assets import text
from aim.ui.stage.reel import served
from aim.ui.stage.widgets import Shown

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


class Tree(Shown):
    """All of them, each below the one that it grew out of; the value is a list as of ``tree``. A
    click tells the ``number``.
    """

    def __init__(self, **kwargs: Any) -> None:
        templates = {
            "html_template": text("explore/tree.html"),
            "js_on_load": text("explore/tree.js"),
        }
        super().__init__([], **{**templates, **kwargs})


def tree(branches: Sequence[Branch], chosen: int) -> list[dict[str, Any]]:
    """What a ``Tree`` shows of them, of which ``chosen`` is the number of the one to go on from."""
    return [
        {
            "number": one.number,
            "parent": one.parent,
            "chosen": one.number == chosen,
            "caption": one.caption,
            "details": "; ".join(part for part in (one.settings, one.cost) if part),
            "image": served(one.picture) if one.picture else None,
        }
        for one in branches
    ]


def parent_of(pipe: Pipeline, branches: Sequence[Branch], chosen: int, rows: Any) -> Branch | None:
    """The picture numbered ``chosen``, of which ``pipe`` keeps ``rows`` rows; None for no rows.
    InvalidInput where there is none, and where its codes are not those of the model.
    """
    rows = whole("rows kept", rows, 0, pipe.tokenizer.config.grid - 1)
    if rows == 0:
        return None
    if not chosen:
        raise InvalidInput(
            f"rows kept is {rows}, and there is no picture yet to keep them of; keep 0, "
            "or give a picture first"
        )
    branch = branches[chosen - 1]
    if not pipe.reads(branch.pipe):
        raise InvalidInput(
            f"picture {chosen} is in codes of {branch.pipe.name}, which {pipe.name} cannot go on "
            f"from; keep 0 rows, or pick {branch.pipe.name} again"
        )
    if (there := len(branch.codes) // pipe.tokenizer.config.grid) < rows:
        raise InvalidInput(f"rows kept is {rows}; picture {chosen} was stopped after {there} rows")
    return branch
