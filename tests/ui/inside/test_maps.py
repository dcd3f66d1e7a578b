"""Maps of what a model thought, and the choice at one place, from numbers alone."""

from __future__ import annotations

import math

import numpy as np
import pytest

from aim.ui.inside.maps import CELL, MAPS, draw_map, place_of, table, values

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


@pytest.mark.parametrize("kind", MAPS)
def test_a_map_has_a_cell_for_each_code_and_nothing_elsewhere(kind: str) -> None:
    codes, notes = noted(6)
    image, key = draw_map(kind, codes, notes, COLOURS, GRID)
    assert image.size == (GRID * CELL, GRID * CELL)
    cells = np.asarray(image)[CELL // 2 :: CELL, CELL // 2 :: CELL].reshape(-1, 4)
    assert (cells[:6, 3] == 255).all()
    assert (cells[6:, 3] == 0).all()
    assert key.startswith(MAPS[kind].explanation)
    if kind == "colour":
        assert (cells[:6, :3] == COLOURS[codes]).all()
        return
    found = values(kind, notes)
    light = cells[:6, :3] @ [0.2126, 0.7152, 0.0722]
    assert (np.argsort(light) == np.argsort(found)).all(), "brighter is more"
    assert (
        f"Darkest {found.min():.3g}" in key
        and f"brightest {found.max():.3g}" in key
        and f"mean {found.mean():.3g}" in key
    )


def test_probabilities_are_not_logarithms() -> None:
    notes = np.full((1, 13), math.log(0.25))
    assert values("probability", notes) == pytest.approx([0.25])


def test_equal_values_and_no_values_are_no_trouble() -> None:
    codes, notes = noted(3)
    notes[:, 1] = 2.0
    image, _ = draw_map("entropy", codes, notes, COLOURS, GRID)
    assert (
        len({tuple(pixel) for pixel in np.asarray(image)[::CELL, ::CELL].reshape(-1, 4)[:3]}) == 1
    )
    empty, key = draw_map("entropy", codes[:0], notes[:0], COLOURS, GRID)
    assert np.asarray(empty)[..., 3].max() == 0
    assert key == MAPS["entropy"].explanation


def test_the_table_names_the_drawn_code_and_the_likeliest() -> None:
    codes, notes = noted(10)
    codes[6] = int(notes[6, 10])
    said = table(6, codes, notes, COLOURS, GRID)
    assert "Code 7, row 2, column 3" in said
    assert (
        f"code {codes[6]} was drawn, at a probability of {100 * math.exp(notes[6, 0]):.3g}%" in said
    )
    for code, share in zip(
        notes[6, 8:13].astype(int), ("40%", "20%", "10%", "5%", "1%"), strict=True
    ):
        assert f"{code}{' (drawn)' if code == codes[6] else ''}</td><td>{share}</td>" in said
        assert f"background: rgb{tuple(COLOURS[code].tolist())}" in said
    assert said.count("(drawn)") == 1


def test_fewer_than_five_codes_may_be_possible() -> None:
    codes, notes = noted(1)
    notes[0, 10:] = -1
    assert table(0, codes, notes, COLOURS, GRID).count("<tr>") == 3


def test_a_place_that_is_not_drawn() -> None:
    codes, notes = noted(3)
    assert (
        table(9, codes, notes, COLOURS, GRID) == "<p>Code 10, row 3, column 2: not drawn yet.</p>"
    )


@pytest.mark.parametrize(
    ("at", "place"),
    [((0, 0), 0), ((CELL, 0), 1), ((3.5 * CELL, 2 * CELL), 11), ((999, 999), 15), ((-3, 5), 0)],
)
def test_a_click_on_the_map(at: tuple[float, float], place: int) -> None:
    assert place_of(*at, GRID) == place
