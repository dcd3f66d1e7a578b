"""Where images come from: class folders, zip files, tar shards, data sets of the hub; and what is
refused.
"""

from __future__ import annotations

import io
import os
import sys
import tarfile
import zipfile
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from aim.classes import imagenet
from aim.errors import HubError, InvalidInput
from aim.training.data.sources import open_images

GOLDFISH, CAT = "n01443537", "n02124075"  # ImageNet 1, 285


def png(shade: int = 0) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (4, 4), (shade, shade, shade)).save(out, "PNG")
    return out.getvalue()


def tar(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def folder(path: Path, *names: str) -> Path:
    for i, name in enumerate(names):
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(png(i))
    return path


def zipped(path: Path) -> Path:
    with zipfile.ZipFile(path.with_suffix(".zip"), "w") as archive:
        for file in path.rglob("*.*"):
            archive.write(file, file.relative_to(path))
    return path.with_suffix(".zip")


@pytest.mark.parametrize("pack", [lambda path: path, zipped], ids=["folder", "zip"])
def test_class_folders(tmp_path: Path, pack: Any) -> None:
    names = (
        f"train/{CAT}/b.png",
        f"train/{GOLDFISH}/a.PNG",
        f"train/{CAT}/a.jpeg",
        f"train/{CAT}/boxes.txt",
        f"train/{CAT}/._a.png",
    )
    found = open_images([pack(folder(tmp_path / "set", *names))])
    assert found.classes == (1, 285)
    assert found.names == ()
    assert [found.name(i).rpartition("train/")[2] for i in range(len(found))] == [
        f"{GOLDFISH}/a.PNG",
        f"{CAT}/a.jpeg",
        f"{CAT}/b.png",
    ]
    assert [found[i].row for i in range(3)] == [0, 1, 1]
    assert found[2].content == png(0)
    with pytest.raises(IndexError):
        found[3]


def test_the_fingerprint_is_of_names_and_classes_not_of_the_place(tmp_path: Path) -> None:
    first, same, other = (
        folder(tmp_path / name, "cats/a.png", f"dogs/{name[0]}.png") for name in ("b1", "b2", "c")
    )
    marks = [open_images([path]).fingerprint() for path in (first, same, other)]
    assert marks[0] == marks[1] != marks[2]
    assert open_images([first]).fingerprint() != open_images([first, same]).fingerprint()


def test_classes_of_one_s_own_are_sorted_numbers_by_value(tmp_path: Path) -> None:
    assert open_images([folder(tmp_path / "words", "tea cup/a.png", "Cat/a.png")]).names == (
        "Cat",
        "tea cup",
    )
    numbers = open_images([folder(tmp_path / "numbers", "10/a.png", "9/a.png")])
    assert numbers.names == ("9", "10")
    assert numbers.classes == ()


def test_rows_may_be_given(tmp_path: Path) -> None:
    found = open_images([folder(tmp_path / "own", "b/a.png")], names=("a", "b"))
    assert (found.names, found[0].row) == (("a", "b"), 1)
    with pytest.raises(
        InvalidInput, match=r"class 'b' of .*own is not among the 2 asked for, 'a' to 'c'"
    ):
        open_images([tmp_path / "own"], names=("a", "c"))
    found = open_images([folder(tmp_path / "wnids", f"{CAT}/a.png")], classes=(1, 285))
    assert (found.classes, found[0].row) == ((1, 285), 1)


def test_accents_of_a_class_may_be_encoded_in_two_ways(tmp_path: Path) -> None:
    found = open_images([folder(tmp_path, "caf\u00e9/a.png", "cafe\u0301/b.png", "tea/c.png")])
    assert found.names == ("caf\u00e9", "tea")
    assert sorted(found[i].row for i in range(3)) == [0, 0, 1]
    given = open_images([tmp_path], names=("tea", "cafe\u0301"))
    assert sorted(given[i].row for i in range(3)) == [0, 1, 1]


def test_kinds_of_classes_do_not_mix(tmp_path: Path) -> None:
    with pytest.raises(
        InvalidInput,
        match=f"'cats' is not an ImageNet wnid, and '{CAT}' is; classes must be of one kind",
    ):
        open_images([folder(tmp_path, "cats/a.png", f"{CAT}/a.png")])


def test_an_image_in_no_class_folder(tmp_path: Path) -> None:
    with pytest.raises(
        InvalidInput, match=r"a\.png lies in no class folder; expected <class>/a\.png"
    ):
        open_images([folder(tmp_path, "a.png", "cats/b.png")])


class TestTar:
    def test_numbers_are_imagenet_s(self, tmp_path: Path) -> None:
        members = {
            "000/a.jpg": png(1),
            "000/a.cls": b"285\n",
            "000/a.json": b"{}",
            "b.cls": b"1",
            "b.png": png(2),
        }
        found = open_images([tar(tmp_path / "train-0.tar", members)])
        assert found.classes == (1, 285)
        assert [(found[i].row, found[i].content) for i in range(2)] == [(1, png(1)), (0, png(2))]
        assert found.name(0) == f"{tmp_path}/train-0.tar/000/a.jpg"

    def test_or_one_s_own(self, tmp_path: Path) -> None:
        tar(tmp_path / "a-0.tar", {"a.png": png(), "a.cls": b"7"})
        tar(tmp_path / "a-1.tar", {"b.png": png(), "b.cls": b"12"})
        tar(tmp_path / "other.tar", {"c.png": png(), "c.cls": b"99"})
        found = open_images([str(tmp_path / "a-*.tar")], own=True)
        assert (found.names, [found[i].row for i in range(2)]) == (("7", "12"), [0, 1])
        assert open_images([tmp_path], own=True).names == ("7", "12", "99"), "a folder of shards"

    @pytest.mark.parametrize(
        ("members", "message"),
        [
            (
                {"a.png": png()},
                r"a\.tar/a\.png has no a\.cls beside it; unpack a tar of class folders first",
            ),
            ({"a.png": png(), "a.cls": b" "}, r"a\.tar/a\.cls is empty"),
            (
                {"a.png": png(), "a.cls": b"1000"},
                r"says class 1000, which is no ImageNet index; say so .*--own-classes",
            ),
            ({"a.txt": b"hello"}, r"no image in .*a\.tar"),
        ],
    )
    def test_what_lacks_a_class(
        self, tmp_path: Path, members: dict[str, bytes], message: str
    ) -> None:
        with pytest.raises(InvalidInput, match=message):
            open_images([tar(tmp_path / "a.tar", members)])

    @pytest.mark.parametrize("end", [700, 1600, -1024])
    def test_one_that_is_cut_short_is_named(self, tmp_path: Path, end: int) -> None:
        path = tar(tmp_path / "a.tar", {"a.png": png() * 20, "a.cls": b"1"})
        with tarfile.open(path) as archive:
            last = archive.getmembers()[-1]
        path.write_bytes(path.read_bytes()[: end if end > 0 else last.offset_data + 512])
        with pytest.raises(
            InvalidInput, match=r"a\.tar cannot be listed .*cut short, damaged or compressed"
        ):
            open_images([path])


@pytest.mark.parametrize("name", ["absent", "notes.txt", "no*.tar"])
def test_other_sources(tmp_path: Path, name: str) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(
        InvalidInput, match="is neither a folder, a zip file, a tar shard nor hf:<name> of the hub"
    ):
        open_images([tmp_path / name])


def test_no_source_at_all() -> None:
    with pytest.raises(InvalidInput, match="there are no sources"):
        open_images([])


def test_a_folder_that_cannot_be_listed_is_not_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder(tmp_path / "set", "cats/a.png", "dogs/a.png")
    scandir = os.scandir

    def refuse(path: Any) -> Any:
        if str(path).endswith("cats"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(InvalidInput, match=r"set/cats cannot be listed \(Permission denied\)"):
        open_images([tmp_path / "set"])


def test_a_damaged_member_of_an_lzma_zip_is_named(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("cats/a.png", png())
        start = len("cats/a.png") + 30 + 4  # header, then version and size of the properties
    content = bytearray((tmp_path / "a.zip").read_bytes())
    content[start] = 255
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(InvalidInput, match=r"a\.zip/cats/a\.png cannot be read as an image"):
        open_images([tmp_path / "a.zip"])[0]


def test_a_damaged_image_is_named_when_it_is_read(tmp_path: Path) -> None:
    found = open_images([folder(tmp_path, "cats/a.png")])
    (tmp_path / "cats" / "a.png").unlink()
    with pytest.raises(InvalidInput, match=r"cats/a\.png cannot be read as an image"):
        found[0]


class ClassLabel(SimpleNamespace):
    """As of ``datasets``."""


class Image_(SimpleNamespace):
    """As of ``datasets``."""


Image_.__name__ = "Image"


class Data:
    """As much of a data set of the hub as is used."""

    def __init__(self, names: list[str], labels: list[int]) -> None:
        self.features: dict[str, Any] = {"picture": Image_(), "kind": ClassLabel(names=names)}
        self._labels = labels

    def cast_column(self, name: str, kind: Any) -> Data:
        assert name == "picture" and kind.decode is False
        return self

    def __getitem__(self, key: Any) -> Any:
        return self._labels if key == "kind" else {"picture": {"bytes": png(key), "path": None}}


class TestHub:
    @pytest.fixture
    def hub(self, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
        module: Any = ModuleType("datasets")
        module.Image = Image_
        monkeypatch.setitem(sys.modules, "datasets", module)
        return module

    def test_a_data_set(self, hub: Any) -> None:
        asked = []
        hub.load_dataset = lambda name, split: (
            asked.append((name, split)) or Data(["tea", "cake"], [1, 0, 1])
        )
        found = open_images(["hf:me/sweets:validation"])
        assert asked == [("me/sweets", "validation")]
        assert found.names == ("cake", "tea")
        assert [found[i].row for i in range(3)] == [0, 1, 0]
        assert found[2].content == png(2)
        assert open_images(["hf:me/sweets"]) and asked[-1] == ("me/sweets", "train")

    def test_imagenet_is_known_by_its_names(self, hub: Any) -> None:
        names = [", ".join(entry.synonyms) for entry in imagenet()]
        hub.load_dataset = lambda name, split: Data(names, [285, 1])
        assert open_images(["hf:imagenet-1k"]).classes == (1, 285)

    @pytest.mark.parametrize("stored", [None, {"bytes": None, "path": None}])
    def test_an_image_that_is_missing_is_named(
        self, hub: Any, monkeypatch: pytest.MonkeyPatch, stored: Any
    ) -> None:
        hub.load_dataset = lambda name, split: Data(["a"], [0])
        monkeypatch.setattr(
            Data, "__getitem__", lambda self, key: [0] if key == "kind" else {"picture": stored}
        )
        with pytest.raises(InvalidInput, match="hf:x/0 cannot be read as an image"):
            open_images(["hf:x"])[0]

    def test_an_image_without_a_label(self, hub: Any) -> None:
        labels: Any = [0, None]
        hub.load_dataset = lambda name, split: Data(["a"], labels)
        with pytest.raises(
            InvalidInput, match=r"hf:x, image 1, has no class \(its label is None\)"
        ):
            open_images(["hf:x"])

    def test_what_does_not_fit(self, hub: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        hub.load_dataset = lambda name, split: Data(["a"], [0, -1])
        with pytest.raises(
            InvalidInput,
            match=r"hf:x, image 1, has no class \(its label is -1\); take another split",
        ):
            open_images(["hf:x"])
        bare = Data(["a"], [0])
        bare.features.pop("kind")
        hub.load_dataset = lambda name, split: bare
        with pytest.raises(
            InvalidInput, match="needs a column of kind Image and one of kind ClassLabel; it has"
        ):
            open_images(["hf:x"])

        def offline(name: str, split: str) -> Any:
            raise OSError("no network")

        hub.load_dataset = offline
        with pytest.raises(
            HubError,
            match=r"hf:x, split 'train', cannot be had \(no network\); check name, "
            r"connection and login",
        ):
            open_images(["hf:x"])
        monkeypatch.setitem(sys.modules, "datasets", None)
        with pytest.raises(
            InvalidInput, match="hf:x needs the library datasets: pip install datasets"
        ):
            open_images(["hf:x"])


def test_without_labels_images_may_lie_anywhere(tmp_path: Path) -> None:
    root = folder(tmp_path / "set", "a.png", "cats/b.png", f"{CAT}/c.png")
    archive = tmp_path / "set.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(root.rglob("*.png")):
            file.write(path, path.relative_to(root).as_posix())
    shard = tar(tmp_path / "a.tar", {"x/0.png": png(), "x/1.png": png(), "x/1.cls": b"7"})
    for source, keys in (
        (root, ["", "cats", CAT]),
        (archive, ["", "cats", CAT]),
        (shard, ["", imagenet()[7].wnid]),
    ):
        found = open_images([source], labels=False)
        assert (found.keys(), found.classes, found.names) == (keys, (), ())
        assert [found[i].row for i in range(len(found))] == [0] * len(keys)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidInput, match=r"no image in .*empty; it must hold .*\.png"):
        open_images([tmp_path / "empty"], labels=False)


HIDDEN = (
    "cats/.ipynb_checkpoints/a.png",
    ".ipynb_checkpoints/a.png",
    ".thumbnails/normal/a.png",
    "cats/@eaDir/a.png",
    "__MACOSX/cats/a.png",
    "cats/._a.png",
)


def test_hidden_files_and_folders_are_left_out_everywhere(tmp_path: Path) -> None:
    root = folder(tmp_path / "set", "cats/a.png", "dogs/b.png", *HIDDEN)
    archive = tmp_path / "set.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(root.rglob("*.png")):
            file.write(path, path.relative_to(root).as_posix())
    for source in (root, archive):
        found = open_images([source])
        assert (len(found), found.names) == (2, ("cats", "dogs"))


def test_links_to_class_folders_are_followed_everywhere(tmp_path: Path) -> None:
    real = folder(tmp_path / "real", "cats/a.png", "dogs/b.png")
    linked = tmp_path / "linked"
    linked.mkdir()
    for name in ("cats", "dogs"):
        (linked / name).symlink_to(real / name)
    (real / "cats" / "again").symlink_to(linked)  # which would have no end
    assert open_images([linked]).names == ("cats", "dogs")
    assert 2 <= len(open_images([linked])) < 10
