"""Maps of what a model thought, and the choice at one place, from numbers alone."""

from __future__ import annotations

import base64
import math
from typing import Any

import numpy as np
import pytest

from aim.ui.inside.maps import GREY, MAPS, drawn_map, said, table, values

GRID = 4
COLOURS = np.arange(64 * 3, dtype=np.uint8).reshape(64, 3)


def noted(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Codes, and notes as ``explain`` makes them."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 64, count)
    notes = np.zeros((count, 13), np.float32)
    notes[:, 0] = -rng.random(count) * 4
    notes[:, 1] = rng.random(count) * 4
    notes[:, 2] = rng.random(count)
    notes[:, 3:8] = np.log([0.4, 0.2, 0.1, 0.05, 0.01])
    notes[:, 8:13] = rng.permuted(np.tile(np.arange(64), (count, 1)), axis=1)[:, :5]
    return codes, notes


def cells(shown: dict[str, Any]) -> np.ndarray:
    return np.frombuffer(base64.b64decode(shown["colours"]), np.uint8).reshape(-1, 3)


@pytest.mark.parametrize("kind", MAPS)
def test_a_map_has_a_colour_for_each_code_and_says_what_its_ends_mean(kind: str) -> None:
    codes, notes = noted(6)
    shown, key = drawn_map(kind, codes, notes, COLOURS)
    assert key.startswith(MAPS[kind].explanation) and shown["title"] == MAPS[kind].title
    assert np.allclose(shown["facts"], notes[:, :3], atol=5e-4)
    if kind == "colour":
        assert (cells(shown) == COLOURS[codes]).all() and shown["ends"] is None
        return
    found = values(kind, notes)
    light = cells(shown) @ [0.2126, 0.7152, 0.0722]
    assert (np.argsort(light) == np.argsort(found)).all(), "brighter is more"
    for end, value in zip(shown["ends"], (found.min(), found.max()), strict=True):
        assert f"{100 * value if kind == 'probability' else value:.3g}" in end
    assert key.endswith(f"On average {said(kind, found.mean())}.")


def test_numbers_are_said_in_plain_words() -> None:
    assert said("entropy", math.log(214)) == "5.37 nats, as if 214 codes were equally likely"
    assert said("entropy", 0.0) == "0 nats, as if 1.0 codes were equally likely"
    assert said("probability", 0.1234) == "12.3%"
    assert said("guidance", 0.5) == "0.5 nats"


def test_probabilities_are_not_logarithms() -> None:
    notes = np.full((1, 13), math.log(0.25))
    assert values("probability", notes) == pytest.approx([0.25])


def test_equal_values_and_no_values_are_no_trouble() -> None:
    codes, notes = noted(3)
    notes[:, 1] = 2.0
    shown, _ = drawn_map("entropy", codes, notes, COLOURS)
    assert len(set(map(tuple, cells(shown).tolist()))) == 1
    empty, key = drawn_map("entropy", codes[:0], notes[:0], COLOURS)
    assert (empty["colours"], empty["facts"], empty["ends"]) == ("", [], None)
    assert key == MAPS["entropy"].explanation


def test_the_table_names_the_drawn_code_and_the_likeliest() -> None:
    codes, notes = noted(10)
    codes[6] = int(notes[6, 10])
    html = table(6, codes, notes, COLOURS, GRID)
    assert "Code 7, row 2, column 3" in html
    assert (
        f"code {codes[6]} was drawn, at a probability of {100 * math.exp(notes[6, 0]):.3g}%" in html
    )
    for code, share in zip(
        notes[6, 8:13].astype(int), ("40%", "20%", "10%", "5%", "1%"), strict=True
    ):
        assert f"{code}{' (drawn)' if code == codes[6] else ''}</td><td>{share}</td>" in html
        assert f"background: rgb{tuple(COLOURS[code].tolist())}" in html
    assert html.count("(drawn)") == 1


def test_fewer_than_five_codes_may_be_possible() -> None:
    codes, notes = noted(1)
    notes[0, 10:] = -1
    assert table(0, codes, notes, COLOURS, GRID).count("<tr>") == 3


def test_a_place_that_is_not_drawn() -> None:
    codes, notes = noted(3)
    assert (
        table(9, codes, notes, COLOURS, GRID) == "<p>Code 10, row 3, column 2: not drawn yet.</p>"
    )


def test_what_was_given_is_told_apart() -> None:
    codes, notes = noted(6)
    shown, key = drawn_map("entropy", codes, notes, COLOURS, 2)
    alone, _ = drawn_map("entropy", codes[2:], notes[2:], COLOURS)
    assert np.array_equal(cells(shown)[:2], [GREY, GREY]) and shown["ends"] == alone["ends"]
    assert shown["facts"] == [None, None, *alone["facts"]] and "The first 2 codes" in key
    assert "was given, not drawn" in table(1, codes, notes, COLOURS, GRID, 2)
    given, _ = drawn_map("entropy", codes, notes, COLOURS, len(codes))
    assert given["ends"] is None and set(given["facts"]) == {None}
