"""Images to shards of codes: which versions, resumed, checked, and what is refused."""

from __future__ import annotations

import copy
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor

from aim.errors import AimError, CheckpointError, InvalidInput
from aim.models.vq.model import VQ
from aim.training.data import decoding
from aim.training.data.codes import CodeSet, read_classes, read_file, shard_name
from aim.training.data.images import crops, load_images, normalize
from aim.training.data.shards import check
from aim.training.data.sources import Images, open_images
from aim.training.data.tokenize import Report, tokenize_shards
from aim.training.data.versions import MIN_SCALE, Versions


@pytest.fixture
def source(tmp_path: Path, smooth_images: Callable[..., Tensor]) -> Images:
    """12 images of 20x20 in two classes of one's own, cats first."""
    for i, pixels in enumerate(smooth_images(12, 20)):
        path = tmp_path / "images" / ("cats" if i < 6 else "dogs") / f"{i:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(path)
    return open_images([tmp_path / "images"])


@pytest.fixture
def shards(tiny_vq: VQ, source: Images, out: Path) -> Callable[..., Report]:
    def make(**changes: Any) -> Report:
        settings = {
            "model": tiny_vq,
            "source": source,
            "out": out,
            "versions": "flip",
            "shard_size": 5,
            "batch": 4,
        }
        return tokenize_shards(**{**settings, **changes})

    return make


def images(source: Images, size: int) -> Tensor:
    return load_images([source.parts[0].where], size).images


class TestVersions:
    @pytest.mark.parametrize(
        ("text", "wanted"),
        [("plain", 1), ("flip", 2), ("ten-crop", 10), ("random", 8), ("random:3", 3)],
    )
    def test_parse(self, text: str, wanted: int) -> None:
        assert Versions.parse(text).number == wanted

    @pytest.mark.parametrize(
        "text", ["", "plain:2", "random:2", "random:x", "random:101", "five-crop"]
    )
    def test_others_are_refused(self, text: str) -> None:
        with pytest.raises(
            InvalidInput, match=f"versions is '{text}'; it must be plain, flip, ten-crop or random"
        ):
            Versions.parse(text)

    def test_ten_crop_is_centre_and_corners_with_their_mirror_images(
        self, shards: Any, tiny_vq: VQ, source: Images, out: Path
    ) -> None:
        shards(versions="ten-crop")
        whole = images(source, 17)  # 1.1 times 16
        # the centre of one pixel more lies at its corner
        at = [(0, 0), (0, 0), (0, 1), (1, 0), (1, 1)]
        found = CodeSet.load(out).codes.long()
        for i, (top, left) in enumerate(at):
            square = whole[:, :, top : top + 16, left : left + 16]
            assert torch.equal(found[2 * i], tiny_vq.encode(normalize(square)))
            assert torch.equal(found[2 * i + 1], tiny_vq.encode(normalize(square.flip(3))))

    def test_random_crops_are_the_same_in_whichever_batch(
        self, shards: Any, tiny_vq: VQ, source: Images, out: Path
    ) -> None:
        shards(versions="random:4", seed=3)
        found, plan = CodeSet.load(out).codes.long(), Versions.parse("random:4")
        whole = images(source, 16)
        assert torch.equal(found[0], tiny_vq.encode(normalize(whole)))
        assert torch.equal(found[1], tiny_vq.encode(normalize(whole.flip(3))))
        draws = torch.stack([plan.draws(3, i) for i in range(12)])
        for i in (0, 1):
            assert torch.equal(found[2 + i], tiny_vq.encode(crops(whole, MIN_SCALE, draws[:, i].T)))
        shards(versions="random:4", seed=3, batch=1, out=out.with_name("other"))
        assert torch.equal(CodeSet.load(out.with_name("other")).codes.long(), found)


def test_shards_are_one_set_with_its_classes(shards: Any, source: Images, out: Path) -> None:
    told: list[tuple[int, int]] = []
    report = shards(progress=lambda done, total: told.append((done, total)))
    assert (report.images, report.encoded, report.skipped, report.complete) == (12, 12, 0, True)
    assert told[0] == (0, 12) and told[-1] == (12, 12) and told == sorted(told)
    found = CodeSet.load(out)
    assert found.codes.shape == (2, 12, 16) and found.codes.dtype == torch.int16
    assert found.labels.tolist() == [0] * 6 + [1] * 6
    assert (
        found.names == ("cats", "dogs") and found.codebook_size == 64 and len(found.tokenizer) == 12
    )
    assert read_classes(out) == ((), ("cats", "dogs"))
    assert [shard.images for shard in check(out).shards] == [5, 5, 2]


@pytest.mark.skipif(sys.platform != "linux", reason="forks")
@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_workers_give_the_same(
    shards: Any, source: Images, out: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Processes, which share what is open: each must have its own place in a file."""
    Path(source.name(7)).write_bytes(b"hello")
    shards(workers=0)
    root = Path(source.parts[0].where)
    if kind == "zip":
        archive = shutil.make_archive(str(out.with_name("images")), "zip", root)
        source = open_images([archive])
    caplog.clear()
    forked = out.with_name("forked")
    report = shards(source=source, out=forked, workers=2)
    assert (report.encoded, report.skipped) == (11, 1)
    assert "dogs/07.png cannot be read as an image" in caplog.text
    one, other = CodeSet.load(out), CodeSet.load(forked)
    assert torch.equal(one.codes, other.codes) and torch.equal(one.labels, other.labels)


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc")
def test_a_forked_process_opens_a_zip_file_for_itself(source: Images, out: Path) -> None:
    out.parent.mkdir(parents=True)
    root = Path(source.parts[0].where)
    archive = Path(shutil.make_archive(str(out), "zip", root)).resolve()
    images = open_images([archive])

    assert images[3].content == source[3].content
    [held] = [fd for fd in Path("/proc/self/fd").iterdir() if fd.resolve() == archive]

    def place() -> str:
        return Path("/proc/self/fdinfo", held.name).read_text().splitlines()[0]

    before = place()
    if (child := os.fork()) == 0:
        os._exit(images[9].content != source[9].content)
    assert os.waitpid(child, 0)[1] == 0
    assert place() == before


def test_how_many_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding.os, "sched_getaffinity", lambda _: set(range(48)), raising=False)
    monkeypatch.setattr(decoding.sys, "platform", "linux")
    assert [decoding.reading_workers(n) for n in (4_999, 5_000)] == [0, 16]
    monkeypatch.setenv("WORLD_SIZE", "8")
    assert decoding.reading_workers(10**6) == 6
    monkeypatch.setattr(decoding.sys, "platform", "darwin")
    assert decoding.reading_workers(10**6) == 0


def test_in_bfloat16_codes_are_still_the_tokenizer_s(
    shards: Any, tiny_vq: VQ, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards()
    half = copy.deepcopy(tiny_vq)
    with pytest.raises(InvalidInput, match="made with other settings, its dtype"):
        shards(model=half, dtype=torch.bfloat16)
    to = out.with_name("half")
    shards(model=copy.deepcopy(tiny_vq), dtype=torch.bfloat16, out=to)
    assert half.dtype == torch.bfloat16
    assert CodeSet.load(to).tokenizer == CodeSet.load(out).tokenizer


def test_processes_share_the_shards(shards: Any, out: Path) -> None:
    second = shards(rank=1, world=2)
    assert (second.images, second.complete) == (5, False)
    with pytest.raises(
        InvalidInput,
        match=r"has no codes\.json: its codes are not finished; run `python -m aim tokenize` again",
    ):
        CodeSet.load(out)
    first = shards(rank=0, world=2)
    assert (first.images, first.complete) == (7, True)
    whole = CodeSet.load(out)
    shards(out=out.with_name("alone"))
    assert torch.equal(CodeSet.load(out.with_name("alone")).codes, whole.codes)


def test_what_is_sound_is_kept_and_what_is_damaged_made_again(
    shards: Any, out: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shards()
    before = CodeSet.load(out)
    path, kept = out / shard_name(1), (out / shard_name(0)).stat().st_mtime_ns
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(
        CheckpointError, match="is damaged: its content is not what was written as shard 1"
    ):
        check(out)
    with pytest.raises(CheckpointError, match="holds other codes than were written; delete it"):
        CodeSet.load(out)
    (out / shard_name(2)).write_bytes(b"cut")
    assert shards().encoded == 7
    assert caplog.text.count("made again") == 2
    assert (out / shard_name(0)).stat().st_mtime_ns == kept
    assert torch.equal(CodeSet.load(out).codes, before.codes)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"versions": "plain"}, "versions is 'flip:2', not 'plain:1'"), ({"seed": 1}, "seed is 0")],
)
def test_codes_made_otherwise_are_not_mixed_in(
    shards: Any, out: Path, change: dict[str, Any], message: str
) -> None:
    shards()
    with pytest.raises(
        InvalidInput, match=f"was made with other settings, its {message}.*choose another folder"
    ):
        shards(**change)


def test_what_a_shard_says_of_itself_is_checked(shards: Any, out: Path) -> None:
    shards()
    path = out / shard_name(1)
    found, about = read_file(path)
    for wrong in (
        found._replace(names=("cats", "dogz")),
        found._replace(classes=(1, 285)),
        found._replace(tokenizer="0" * 12),
    ):
        wrong.save(
            path, {name: about[name] for name in ("settings", "shard", "first", "skipped", "hash")}
        )
        with pytest.raises(
            CheckpointError, match="is damaged: its content is not what was written as shard 1"
        ):
            check(out)


@pytest.mark.parametrize("name", [shard_name(0), "codes.json"])
def test_no_byte_that_is_changed_brings_the_check_down(shards: Any, out: Path, name: str) -> None:
    """It is named, or it is one that nothing reads."""
    shards()
    whole, named = (out / name).read_bytes(), 0
    places = range(0, len(whole), 3)
    for at in places:
        (out / name).write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        try:
            check(out)
        except AimError:
            named += 1
    assert named > 0.8 * len(places)


def test_a_full_disk_is_told(shards: Any, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise SafetensorError("No space left on device")

    monkeypatch.setattr("aim.checkpoint.weights.save_file", full)
    with pytest.raises(
        InvalidInput,
        match=r"cannot write .*No space left on device; make room, or choose another folder",
    ):
        shards()
    assert list(out.iterdir()) == []


def test_a_shard_that_is_gone(shards: Any, out: Path) -> None:
    shards()
    (out / shard_name(2)).unlink()
    for read in (check, CodeSet.load):
        with pytest.raises(CheckpointError, match="there is no file"):
            read(out)
    values = json.loads((out / "codes.json").read_text())
    values["shards"].pop()
    (out / "codes.json").write_text(json.dumps(values))
    with pytest.raises(InvalidInput, match=r"lists 2 shards; its settings need 3"):
        check(out)


class TestDamagedImages:
    def spoil(self, source: Images, *items: int) -> None:
        for i in items:
            Path(source.name(i)).write_bytes(b"hello")

    def test_they_are_named_counted_and_left_out(
        self, shards: Any, source: Images, out: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        self.spoil(source, 2, 11)
        report = shards()
        assert (report.images, report.skipped) == (10, 2)
        assert "cats/02.png cannot be read as an image" in caplog.text
        assert len(CodeSet.load(out).labels) == 10
        index = json.loads((out / "codes.json").read_text())
        assert (index["images"], index["skipped"]) == (10, 2)
        assert [len(shard["skipped"]) for shard in index["shards"]] == [1, 0, 1]
        check(out)

    def test_too_many_in_a_row(
        self, shards: Any, source: Images, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(decoding, "MOST_BAD", 3)
        self.spoil(source, 1, 2, 3)
        with pytest.raises(
            InvalidInput, match=r"3 images in a row cannot be read; the last: .*cats/03\.png"
        ):
            shards()

    def test_not_one_can_be_read(self, shards: Any, source: Images) -> None:
        self.spoil(source, *range(12))
        with pytest.raises(
            InvalidInput, match=r"none of the 12 images can be read; the first is .*cats/00\.png"
        ):
            shards()


@pytest.mark.parametrize(
    "change", [{"shard_size": 0}, {"batch": 0}, {"world": 0}, {"rank": 1}, {"rank": -1}]
)
def test_numbers_out_of_range(shards: Any, change: dict[str, int]) -> None:
    with pytest.raises(
        InvalidInput, match=f"{next(iter(change))} is {next(iter(change.values()))}; it must be"
    ):
        shards(**change)
