"""Layouts and archives as people have them: read, and told where something is left out or
guessed.
"""

from __future__ import annotations

import gzip
import io
import logging
import tarfile
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from aim.classes import imagenet
from aim.errors import InvalidInput
from aim.images.read import open_square
from aim.training.data.images import in_memory
from aim.training.data.sources import open_images

GOLDFISH, CAT = "n01443537", "n02124075"  # ImageNet 1, 285


def picture(kind: str = "PNG") -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (4, 4), "red").save(out, kind)
    return out.getvalue()


def folder(path: Path, *names: str) -> Path:
    for name in names:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(picture())
    return path


@pytest.mark.parametrize(
    ("suffix", "kind"),
    [("bmp", "BMP"), ("gif", "GIF"), ("tif", "TIFF"), ("jfif", "JPEG"), ("avif", "AVIF")],
)
def test_kinds_that_are_read(tmp_path: Path, suffix: str, kind: str) -> None:
    path = tmp_path / "bird" / f"0.{suffix.upper()}"
    path.parent.mkdir()
    path.write_bytes(picture(kind))
    found = open_images([tmp_path])
    assert found.names == ("bird",)
    assert open_square(found[0].content, 4).getpixel((1, 1))[0] > 200  # type: ignore[index]


def test_what_is_left_out_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder(tmp_path, "cat/0.png", "cat/.DS_Store", "bird/0.svg", "bird/1.svg", "notes.txt")
    with caplog.at_level(logging.WARNING, "aim"):
        assert open_images([tmp_path]).names == ("cat",)
    assert "3 files are no images that are read: 2 .svg, 1 .txt" in caplog.text
    assert "without any image: bird" in caplog.text


def test_train_of_a_root_with_val(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder(tmp_path, "train/cat/0.png", "train/dog/0.png", "val/cat/1.png", "val/dog/1.png")
    with caplog.at_level(logging.WARNING, "aim"):
        found = open_images([tmp_path])
    assert [name.split("/")[0] for name in found.parts[0].names] == ["train", "train"]
    assert "train/ is taken; name val of it as sources of their own" in caplog.text
    held = open_images([tmp_path / "val"], names=found.names)
    assert [held[i].row for i in range(2)] == [0, 1]


def test_tiny_imagenet_as_it_is_distributed(tmp_path: Path) -> None:
    root = folder(
        tmp_path, f"train/{CAT}/images/0.png", f"train/{GOLDFISH}/images/0.png",
        "val/images/val_0.png", "val/images/val_1.png",
    )  # fmt: skip
    (root / "train" / CAT / "boxes.txt").write_text("0.png 0 0 1 1")
    lines = (f"val_{i}.png\t{wnid}\t0\t0\t1\t1\n" for i, wnid in enumerate((CAT, GOLDFISH)))
    (root / "val" / "val_annotations.txt").write_text("".join(lines))
    found = open_images([root])
    assert (found.classes, [found[i].row for i in range(2)]) == ((1, 285), [0, 1])
    held = open_images([root / "val"], classes=found.classes)
    assert [held[i].row for i in range(2)] == [1, 0]


def test_a_class_may_be_called_images(tmp_path: Path) -> None:
    assert open_images([folder(tmp_path, "pets/images/0.png", "pets/cat/0.png")]).names == (
        "cat",
        "images",
    )


def raw_zip(path: Path, *names: bytes) -> Path:
    """A zip whose members have these bytes as names, unmarked."""
    marks = [f"{i}".rjust(len(name), "_") for i, name in enumerate(names)]
    with zipfile.ZipFile(path, "w") as archive:
        for mark in marks:
            archive.writestr(mark, picture())
    content = path.read_bytes()
    for mark, name in zip(marks, names, strict=True):
        content = content.replace(mark.encode(), name)
    path.write_bytes(content)
    return path


class TestZipNames:
    def test_backslashes_separate_folders(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        path = raw_zip(tmp_path / "a.zip", b"pets\\cat\\0.png", b"pets\\dog\\0.png")
        with caplog.at_level(logging.WARNING, "aim"):
            found = open_images([path])
        assert (found.names, found[1].content) == (("cat", "dog"), picture())
        assert "names have backslashes" in caplog.text

    @pytest.mark.parametrize("encoding", ["gbk", "utf-8"])
    def test_names_that_are_not_marked(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture, encoding: str
    ) -> None:
        names = [f"数据/{kind}/0.png".encode(encoding) for kind in ("猫", "狗")]
        with caplog.at_level(logging.WARNING, "aim"):
            found = open_images([raw_zip(tmp_path / "a.zip", *names)])
        assert (set(found.names), len(in_memory(found, 4))) == ({"猫", "狗"}, 2)
        assert ("are read as GBK" in caplog.text) == (encoding == "gbk")

    def test_other_names_are_refused(self, tmp_path: Path) -> None:
        path = raw_zip(tmp_path / "a.zip", b"\xff\xff/cat/0.png")
        with pytest.raises(InvalidInput, match="neither UTF-8 nor GBK; pack it again"):
            open_images([path])


def shard(path: Path, *members: tuple[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def test_a_shard_whose_labels_stand_apart_says_so(tmp_path: Path) -> None:
    path = shard(
        tmp_path / "a.tar", ("0.cls", b"1"), ("1.cls", b"2"), ("0.png", b""), ("1.png", b"")
    )
    with pytest.raises(InvalidInput, match=r"0\.png and 0\.cls, but apart.*tar --sort=name"):
        open_images([path])


def test_shards_by_number_and_compressed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for i in range(8, 11):
        path = tmp_path / f"train-{i:03d}.tar"
        shard(path, ("0.png", picture()), ("0.cls", f"{i}".encode()))
        packed = gzip.compress(path.read_bytes())
        path.with_suffix(".tar.gz").write_bytes(packed)
        with caplog.at_level(logging.WARNING, "aim"):
            found = open_images([path.with_suffix(".tar.gz")])
        assert found.classes == (i,)
        assert found[0] == (f"{tmp_path}/train-{i:03d}.tar.gz/0.png", picture(), 0)
        assert f"train-{i:03d}.tar.gz is compressed" in caplog.text
        path.with_suffix(".tar.gz").unlink()
    found = open_images([str(tmp_path / "train-{008..010}.tar")])
    assert found.classes == (8, 9, 10)
    assert [imagenet()[index].wnid for index in found.classes] == found.keys()
    with pytest.raises(InvalidInput, match=r"train-011\.tar of .* is not there"):
        open_images([str(tmp_path / "train-{008..012}.tar")])
    cut = tmp_path / "cut.tar.gz"
    cut.write_bytes(packed[:-20])
    with pytest.raises(InvalidInput, match=r"cut\.tar\.gz cannot be listed"):
        open_images([cut])
