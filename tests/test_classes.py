"""Classes by index, name, synonym, wnid and title; what is unknown or ambiguous is said with the
way out.
"""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from aim.classes import Class, Labels, imagenet
from aim.config import AiMConfig
from aim.errors import InvalidInput


def resolve(label: Any, known: Sequence[int] | None = None) -> int:
    return Labels(imagenet(), known).resolve(label)


def title(index: int) -> str:
    return imagenet()[index].title


def test_the_table_is_whole():
    table = imagenet()
    assert [entry.index for entry in table] == list(range(1000))
    assert len({entry.wnid for entry in table}) == 1000
    assert all(
        re.fullmatch(r"n\d{8}", entry.wnid) and entry.name in entry.synonyms for entry in table
    )
    assert table is imagenet()
    assert table[1] == Class(1, "n01443537", "goldfish", ("goldfish", "Carassius auratus"))


def test_title_shows_the_index():
    assert title(1) == "goldfish (1)"
    assert title(134) == "crane (134)" and title(517) == "crane (517)"


@pytest.mark.parametrize(
    "label, index",
    [
        (1, 1),
        (np.int64(207), 207),
        (torch.tensor(207), 207),
        (np.array(207), 207),
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
    assert resolve(label) == index


@settings(deadline=None)  # the first reads the table
@given(st.integers(0, 999))
def test_every_class_is_found_by_index_wnid_and_title(index: int):
    entry = imagenet()[index]
    for label in (
        index,
        str(index),
        entry.wnid,
        title(index),
        title(index).upper(),
    ):
        assert resolve(label) == index
        assert resolve(label, known=[0, 999, index]) == index


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
        resolve(label)
    assert label in str(caught.value)
    assert all(title(index) in str(caught.value) for index in candidates)


def test_a_model_that_knows_one_of_several_takes_it():
    assert resolve("crane", known=[1, 517]) == 517
    assert resolve("missile", known=[744]) == 744
    with pytest.raises(InvalidInput, match="ambiguous"):
        resolve("crane", known=[134, 517])


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
        resolve(label)
    assert repr(label) in str(caught.value)
    nearest = suggested(str(caught.value))
    assert len(set(nearest)) == 3 and expected in nearest


def test_suggestions_are_only_what_the_model_knows():
    known = (1, 281, 285, 985)
    for label in ("goldfihs", "tiger shark", 3, "3", "n01491361", 5000, -1):
        with pytest.raises(InvalidInput) as caught:
            resolve(label, known)
        assert set(suggested(str(caught.value))) <= set(known)
        assert len(suggested(str(caught.value))) == 3


def test_a_class_that_the_model_does_not_know_is_named():
    with pytest.raises(
        InvalidInput, match=r"this model does not know tiger shark \(3\); .*goldfish \(1\)"
    ):
        resolve(3, known=[985, 1, 281])
    with pytest.raises(InvalidInput, match=r"does not know crane \(134\) or crane \(517\)"):
        resolve("crane", known=[1])


def test_a_model_that_knows_fewer_than_three_classes():
    with pytest.raises(InvalidInput, match=r"known: goldfish \(1\)$"):
        resolve("daisy", known=[1])
    with pytest.raises(InvalidInput, match="no class is known"):
        resolve("daisy", known=[])


def test_a_title_that_contradicts_itself_is_refused():
    with pytest.raises(InvalidInput, match=r"goldfish \(2\).*great white shark \(2\)"):
        resolve("goldfish (2)")


@pytest.mark.parametrize(
    "label",
    ["", "   ", "()", "(1)", "goldfish (1000)", "-1", "1.0", "x" * 100_000, "1000", 1000, 10**30],
)
def test_odd_labels_are_refused(label: int | str):
    with pytest.raises(InvalidInput, match="nearest that are known"):
        resolve(label)


@pytest.mark.parametrize(
    "label",
    [
        True,
        None,
        1.0,
        [1],
        b"goldfish",
        np.True_,
        torch.tensor(True),
        torch.tensor([1, 2]),
        torch.tensor(1.0),
    ],
)
def test_other_types_are_refused(label: object):
    with pytest.raises(InvalidInput, match="a name or an index"):
        resolve(label)  # type: ignore[arg-type]


def own(*names: str) -> Labels:
    return Labels.of(AiMConfig(64, 2, num_classes=len(names), num_groups=1, class_names=names))


def test_a_number_is_an_index_and_a_text_a_name_first():
    labels = own("1", "2", "3", "10")
    assert [labels.resolve(name) for name in ("1", "2", "3", "10")] == [0, 1, 2, 3]
    assert [labels.resolve(index) for index in range(4)] == [0, 1, 2, 3]
    assert labels.resolve("0") == 0
    assert [labels.resolve(labels.title(index)) for index in range(4)] == [0, 1, 2, 3]
    with pytest.raises(InvalidInput, match=r"there is no class 10; indices go from 0 to 3; .*10"):
        labels.resolve(10)


def test_accents_are_one_name_however_they_are_encoded():
    one, two = "caf\u00e9", "cafe\u0301"
    for stored in (one, two):
        labels = own("tea", stored)
        assert labels.resolve(one) == labels.resolve(two) == labels.resolve(two.upper()) == 1
        assert labels.name(1) == stored


def test_case_matters_only_where_names_differ_by_it():
    labels = own("Cat", "cat", "Dog", "cat (0)")
    assert [labels.resolve(name) for name in ("Cat", "cat", "dog", "cat (0)")] == [0, 1, 2, 3]
    with pytest.raises(InvalidInput, match=r"'CAT' is ambiguous; give one of Cat \(0\), cat \(1\)"):
        labels.resolve("CAT")


def test_classes_that_nobody_named():
    labels = Labels.of(AiMConfig(64, 2, num_classes=4, num_groups=1))
    assert labels.indices == (0, 1, 2, 3)
    assert labels.title(3) == labels.name(3) == "class 3"
    assert labels.resolve("class 3") == labels.resolve("3") == labels.resolve(np.int8(3)) == 3
    for unknown in ("goldfish", 4, "4", "class 4"):
        with pytest.raises(InvalidInput, match="there is no class"):
            labels.resolve(unknown)


def test_a_model_of_some_of_imagenets():
    labels = Labels.of(AiMConfig(64, 2, num_classes=2, num_groups=1, classes=(985, 1)))
    assert labels.indices == (985, 1)
    assert labels.row(labels.resolve("goldfish")) == 1
