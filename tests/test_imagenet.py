"""Classes by index, name, synonym, wnid and title; what is unknown or ambiguous is said with the
way out.
"""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aim import imagenet
from aim.errors import InvalidInput


def test_the_table_is_whole():
    table = imagenet.classes()
    assert [entry.index for entry in table] == list(range(1000))
    assert len({entry.wnid for entry in table}) == 1000
    assert all(
        re.fullmatch(r"n\d{8}", entry.wnid) and entry.name in entry.synonyms for entry in table
    )
    assert table is imagenet.classes()
    assert table[1] == imagenet.ImageNetClass(
        1, "n01443537", "goldfish", ("goldfish", "Carassius auratus")
    )


def test_title_shows_the_index():
    assert imagenet.title(1) == "goldfish (1)"
    assert imagenet.title(134) == "crane (134)" and imagenet.title(517) == "crane (517)"
    for bad in (-1, 1000):
        with pytest.raises(InvalidInput, match=str(bad)):
            imagenet.title(bad)


@pytest.mark.parametrize(
    "label, index",
    [
        (1, 1),
        (np.int64(207), 207),
        ("1", 1),
        (" 207 ", 207),
        ("goldfish", 1),
        ("GoldFish", 1),
        ("  great   white shark ", 2),
        ("carassius AURATUS", 1),
        ("goldfish, Carassius auratus", 1),
        ("n01443537", 1),
        ("N01443537", 1),
        ("goldfish (1)", 1),
        ("Carassius auratus (1)", 1),
        ("CRANE (517)", 517),
        ("missile", 657),  # also a synonym of 744, whose first name is another
        (0, 0),
        ("999", 999),
    ],
)
def test_what_is_understood(label: int | str, index: int):
    assert imagenet.resolve(label) == index


@given(st.integers(0, 999))
def test_every_class_is_found_by_index_wnid_and_title(index: int):
    entry = imagenet.classes()[index]
    for label in (
        index,
        str(index),
        entry.wnid,
        imagenet.title(index),
        imagenet.title(index).upper(),
    ):
        assert imagenet.resolve(label) == index
        assert imagenet.resolve(label, known=[0, 999, index]) == index


@pytest.mark.parametrize(
    "label, candidates",
    [
        ("crane", [134, 517]),
        ("Maillot", [638, 639]),
        ("cardigan", [264, 474]),
        ("panther", [286, 290]),
    ],
)
def test_ambiguous_names_list_their_classes(label: str, candidates: list[int]):
    with pytest.raises(InvalidInput, match="ambiguous") as caught:
        imagenet.resolve(label)
    assert label in str(caught.value)
    assert all(imagenet.title(index) in str(caught.value) for index in candidates)


def test_a_model_that_knows_one_of_several_takes_it():
    assert imagenet.resolve("crane", known=[1, 517]) == 517
    assert imagenet.resolve("missile", known=[744]) == 744
    with pytest.raises(InvalidInput, match="ambiguous"):
        imagenet.resolve("crane", known=[134, 517])


def suggested(message: str) -> list[int]:
    return [
        int(index)
        for index in re.findall(r"\((\d+)\)", message.split("nearest that are known:")[1])
    ]


@pytest.mark.parametrize(
    "label, expected",
    [("goldfihs", 1), ("golden retreiver", 207), ("retriever", 207), ("white shark fish", 2)],
)
def test_unknown_names_come_with_the_nearest_three(label: str, expected: int):
    with pytest.raises(InvalidInput) as caught:
        imagenet.resolve(label)
    assert repr(label) in str(caught.value)
    nearest = suggested(str(caught.value))
    assert len(set(nearest)) == 3 and expected in nearest


def test_suggestions_are_only_what_the_model_knows():
    known = (1, 281, 285, 985)
    for label in ("goldfihs", "tiger shark", 3, "3", "n01491361", 5000, -1):
        with pytest.raises(InvalidInput) as caught:
            imagenet.resolve(label, known)
        assert set(suggested(str(caught.value))) <= set(known)
        assert len(suggested(str(caught.value))) == 3


def test_a_class_that_the_model_does_not_know_is_named():
    with pytest.raises(
        InvalidInput, match=r"this model does not know tiger shark \(3\); .*goldfish \(1\)"
    ):
        imagenet.resolve(3, known=[985, 1, 281])
    with pytest.raises(InvalidInput, match=r"does not know crane \(134\) or crane \(517\)"):
        imagenet.resolve("crane", known=[1])


def test_a_model_that_knows_fewer_than_three_classes():
    with pytest.raises(InvalidInput, match=r"known: goldfish \(1\)$"):
        imagenet.resolve("daisy", known=[1])
    with pytest.raises(InvalidInput, match="no class is known"):
        imagenet.resolve("daisy", known=[])


def test_a_title_that_contradicts_itself_is_refused():
    with pytest.raises(InvalidInput, match=r"goldfish \(2\).*great white shark \(2\)"):
        imagenet.resolve("goldfish (2)")


@pytest.mark.parametrize(
    "label",
    ["", "   ", "()", "(1)", "goldfish (1000)", "-1", "1.0", "x" * 100_000, "1000", 1000, 10**30],
)
def test_odd_labels_are_refused(label: int | str):
    with pytest.raises(InvalidInput, match="nearest that are known"):
        imagenet.resolve(label)


@pytest.mark.parametrize("label", [True, None, 1.0, [1], b"goldfish"])
def test_other_types_are_refused(label: object):
    with pytest.raises(InvalidInput, match="a name or an ImageNet index"):
        imagenet.resolve(label)  # type: ignore[arg-type]
