"""The tree of what somebody explored."""

from __future__ import annotations

import numpy as np

from aim.ui.explore.branches import GIVEN, Branch, tree


def branch(
    number: int,
    parent: int = 0,
    rows: int = 0,
    title: str = "goldfish (1)",
    settings: str = "seed 1",
    cost: str = "fast",
) -> Branch:
    return Branch(
        number, parent, rows, title, settings, cost, None, np.zeros(4, np.int64), f"/{number}.png"
    )


def test_captions_say_where_a_picture_comes_from() -> None:
    assert branch(1).caption == "1: goldfish (1)"
    assert branch(3, 1, 1).caption == "3: goldfish (1), 1 row of 1"
    assert branch(4, 3, 8, "lion (291)").caption == "4: lion (291), 8 rows of 3"


def test_everyone_tells_what_it_grew_out_of_and_one_is_chosen() -> None:
    given = branch(2, title=GIVEN, settings="", cost="encoded")
    told = tree([branch(1), given, branch(3, 1, 8)], chosen=3)
    assert [(one["number"], one["parent"], one["chosen"]) for one in told] == [
        (1, 0, False),
        (2, 0, False),
        (3, 1, True),
    ]
    assert [one["details"] for one in told] == ["seed 1; fast", "encoded", "seed 1; fast"]
    assert told[0]["image"]["path"] == "/1.png"
    assert tree([], 0) == []
