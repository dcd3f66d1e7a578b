"""What kinds of things classes are."""

from __future__ import annotations

from importlib.resources import files

import pytest

from aim.classes import imagenet
from aim.kinds import extracted, kinds, synsets


def names(index: int) -> set[str]:
    return {name for kind in kinds(imagenet()[index].wnid) for name in synsets()[kind].names}


@pytest.mark.parametrize(
    ("index", "some"),
    [(162, "dog"), (1, "fish"), (323, "insect"), (817, "car"), (950, "fruit"), (402, "guitar")],
)
def test_a_class_is_of_its_kinds(index: int, some: str) -> None:
    assert some in names(index) and "entity" not in names(index)


def test_dogs_are_counted() -> None:
    assert sum("dog" in names(entry.index) for entry in imagenet()) == 118


def test_nearest_first_and_none_of_an_unknown_class() -> None:
    assert synsets()[kinds(imagenet()[162].wnid)[0]].names[0] == "hound"
    assert kinds("") == kinds("n00000000") == []


def test_the_table_is_that_of_wordnet_s_file(monkeypatch: pytest.MonkeyPatch) -> None:
    nouns = "\n".join(
        [
            "  1 This software and database",
            "00001740 03 n 01 entity 0 001 ~ 00000002 n 0000 | all that is  ",
            "00000002 05 n 02 dog 0 domestic_dog 0 001 @ 00001740 n 0000 | a @ pet  ",
            "00000003 05 n 01 pug 0 002 @ 00000002 n 0000 #m 00000002 n 0000 | small  ",
        ]
    )
    monkeypatch.setattr("aim.kinds.imagenet", lambda: [type("Entry", (), {"wnid": "n00000003"})])
    assert extracted(nouns).splitlines() == [
        "wnid\tparents\tnames",
        "n00000002\t\tdog, domestic dog",
        "n00000003\tn00000002\tpug",
    ]


def test_its_licence_lies_beside_it() -> None:
    text = files("aim").joinpath("data", "WORDNET.txt").read_text(encoding="utf-8")
    assert "Princeton University" in text and "appear on ALL copies" in text
