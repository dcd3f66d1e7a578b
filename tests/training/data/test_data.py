"""Image folders and zip files, crops and flips, batches."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from aim.errors import InvalidInput
from aim.training.data.images import Batches, ImageSet, load_images, normalize, random_crops

GOLDFISH, RETRIEVER, CAT = "n01443537", "n02099601", "n02124075"  # ImageNet 1, 207, 285


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def put(folder: Path, name: str, pixels: np.ndarray | Image.Image) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    (Image.fromarray(pixels) if isinstance(pixels, np.ndarray) else pixels).save(path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A cat, a goldfish and another cat of 8x8, and a file that is no image."""
    for i, name in enumerate((f"{CAT}/b.png", f"{GOLDFISH}/a.PNG", f"{CAT}/a.png")):
        put(tmp_path / "images", name, noise(8, 8, 3, seed=i))
    (tmp_path / "images" / CAT / "boxes.txt").write_text("a.png 0 0 8 8")
    return tmp_path / "images"


def zipped(folder: Path) -> Path:
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*.*"), reverse=True):
            archive.write(file, Path("train") / file.relative_to(folder))
    return path


class TestLoadImages:
    @pytest.mark.parametrize("source", [lambda folder: folder, zipped], ids=["folder", "zip"])
    def test_rows_are_classes_by_index(self, folder: Path, source: Callable[[Path], Path]) -> None:
        data = load_images([source(folder)], size=8)
        assert data.classes == (1, 285)
        assert data.labels.tolist() == [0, 1, 1]
        assert len(data) == 3
        assert data.images.dtype == torch.uint8
        expected = np.stack([noise(8, 8, 3, seed=i) for i in (1, 2, 0)])  # by class, then by name
        assert (data.images.permute(0, 2, 3, 1).numpy() == expected).all()

    def test_sources_add_up(self, folder: Path, tmp_path: Path) -> None:
        put(tmp_path / "more", f"{RETRIEVER}/a.png", noise(8, 8, 3))
        data = load_images([str(zipped(folder)), tmp_path / "more"], size=8)
        assert data.classes == (1, 207, 285)
        assert data.labels.tolist() == [0, 2, 2, 1]

    def test_given_classes_fix_the_rows(self, folder: Path) -> None:
        data = load_images([folder], 8, classes=(0, 1, 207, 285))
        assert data.classes == (0, 1, 207, 285)
        assert data.labels.tolist() == [1, 3, 3]
        with pytest.raises(
            InvalidInput, match=rf"class '{CAT}' of .* is not among the 2 asked for"
        ):
            load_images([folder], 8, classes=(1, 207))

    def test_classes_of_one_s_own(self, folder: Path, tmp_path: Path) -> None:
        put(tmp_path / "own", "dogs/a.png", noise(8, 8, 3))
        put(tmp_path / "own", "cats/a.png", noise(8, 8, 3))
        data = load_images([tmp_path / "own"], 8)
        assert (data.classes, data.names, data.labels.tolist()) == ((), ("cats", "dogs"), [0, 1])
        with pytest.raises(InvalidInput, match="'cats' is not an ImageNet wnid"):
            load_images([tmp_path / "own", folder])

    def test_nothing_to_read(self, tmp_path: Path) -> None:
        with pytest.raises(InvalidInput, match=r"no image in .*; expected <class>"):
            load_images([tmp_path])
        (tmp_path / "images.rar").write_bytes(b"not a zip file")
        for name in ("absent", "images.rar"):
            with pytest.raises(InvalidInput, match=f"{name} is neither a folder, a zip file"):
                load_images([tmp_path / name])

    def test_the_shorter_side_is_scaled_and_the_centre_kept(self, tmp_path: Path) -> None:
        stripes = np.zeros((32, 96, 3), np.uint8)  # red, green, blue
        for i in range(3):
            stripes[:, 32 * i : 32 * (i + 1), i] = 200
        put(tmp_path, f"{CAT}/a_wide.png", stripes)
        put(tmp_path, f"{CAT}/b_tall.png", stripes.transpose(1, 0, 2))
        put(tmp_path, f"{CAT}/c_odd.png", noise(37, 23, 3))
        put(tmp_path, f"{CAT}/d_small.png", noise(5, 3, 3))
        data = load_images([tmp_path], size=16)
        assert data.images.shape == (4, 3, 16, 16)
        inner = data.images[:2, :, 3:-3, 3:-3].float()  # the filter blurs the edges
        for i, wanted in enumerate((0, 200, 0)):
            assert (inner[:, i] - wanted).abs().max() <= 2

    @pytest.mark.parametrize(
        ("mode", "suffix", "colour", "wanted"),
        [
            ("L", "png", 77, (77, 77, 77)),
            ("1", "png", 1, (255, 255, 255)),
            ("CMYK", "JPEG", (0, 255, 255, 0), (255, 0, 0)),
            ("RGBA", "png", (10, 20, 30, 255), (10, 20, 30)),
            ("P", "png", 0, (0, 0, 0)),
        ],
    )
    def test_other_modes_become_rgb(
        self, tmp_path: Path, mode: str, suffix: str, colour: int, wanted: tuple[int, ...]
    ) -> None:
        put(tmp_path, f"{CAT}/a.{suffix}", Image.new(mode, (12, 10), colour))
        pixels = load_images([tmp_path], size=8).images[0].flatten(1).T
        assert (pixels.int() - torch.tensor(wanted)).abs().max() <= 3  # JPEG is lossy

    @pytest.mark.parametrize("how", ["cut short", "no image", "empty"])
    @pytest.mark.parametrize("pack", [lambda folder: folder, zipped], ids=["folder", "zip"])
    def test_a_damaged_image_is_named_and_left_out(
        self, folder: Path, how: str, pack: Callable[[Path], Path], caplog: pytest.LogCaptureFixture
    ) -> None:
        whole = load_images([folder], 8)
        bad = put(folder, f"{CAT}/ab.JPEG", noise(40, 40, 3))
        bad.write_bytes(
            {"cut short": bad.read_bytes()[:400], "no image": b"hello", "empty": b""}[how]
        )
        found = load_images([pack(folder)], 8)
        assert f"{CAT}/ab.JPEG cannot be read as an image" in caplog.text
        assert "1 of 4 images cannot be read" in caplog.text
        assert (found.images == whole.images).all()
        assert found.labels.tolist() == whole.labels.tolist()

    def test_no_image_can_be_read(self, tmp_path: Path) -> None:
        (tmp_path / CAT).mkdir()
        (tmp_path / CAT / "a.png").write_bytes(b"hello")
        with pytest.raises(
            InvalidInput, match=rf"none of the 1 images can be read; the first is .*{CAT}/a.png"
        ):
            load_images([tmp_path])

    def test_a_damaged_zip_file_names_the_image(
        self, folder: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        path = zipped(folder)
        content = bytearray(path.read_bytes())
        content[content.index(b"IDAT") + 8] ^= 255  # the pixels of the first member
        path.write_bytes(content)
        assert len(load_images([path], 8)) == 2
        assert f"images.zip/train/{CAT}/b.png cannot be read" in caplog.text


def test_to_keeps_everything() -> None:
    data = ImageSet(torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.tensor([0, 1]), (1, 285)).to(
        "meta"
    )
    assert data.images.is_meta
    assert data.labels.is_meta
    assert data.classes == (1, 285)


def test_normalize() -> None:
    assert normalize(torch.tensor([0, 51, 255], dtype=torch.uint8)).tolist() == pytest.approx(
        [-1, -0.6, 1]
    )


class TestRandomCrops:
    def test_at_full_scale_an_image_is_itself_or_its_mirror_image(self) -> None:
        images = torch.from_numpy(noise(200, 3, 8, 8))
        out = random_crops(images, 1.0, torch.Generator().manual_seed(0))
        itself = (out - normalize(images)).abs().amax((1, 2, 3)) < 1e-3
        mirrored = (out - normalize(images.flip(3))).abs().amax((1, 2, 3)) < 1e-3
        assert (itself ^ mirrored).all()
        assert 70 < mirrored.sum() < 130

    def test_values_shape_and_repetition(self) -> None:
        images = torch.from_numpy(noise(32, 3, 8, 8))
        out = random_crops(images, 0.5, torch.Generator().manual_seed(3))
        assert out.shape == images.shape
        assert out.dtype == torch.float32
        assert -1 <= out.min() < -0.9 < 0.9 < out.max() <= 1
        assert torch.equal(out, random_crops(images, 0.5, torch.Generator().manual_seed(3)))
        assert not torch.equal(out, random_crops(images, 0.5, torch.Generator().manual_seed(4)))

    @pytest.mark.parametrize("axis", [2, 3])
    def test_a_crop_is_a_square_within_the_image(self, axis: int) -> None:
        """Of a ramp it is a ramp: the slope tells the scale, the values where it lies."""
        ramp = torch.arange(0, 256, 4, dtype=torch.uint8)
        images = ramp.view(1, 1, 64, 1).expand(500, 3, 64, 64).transpose(2, axis)
        out = (
            (random_crops(images, 0.6, torch.Generator().manual_seed(0)) + 1)
            .mul(127.5)
            .transpose(2, axis)[:, 0]
        )
        line = out[..., 32]
        slope = (line[:, 40] - line[:, 24]) / 16 / 4
        scale = slope.abs()
        assert 0.599 < scale.min() < 0.65 < 0.95 < scale.max() < 1.001
        assert (slope.min() < 0) == (axis == 3), "flipped left to right, never upside down"
        centre = (line[:, 31] + line[:, 32]) / 2 / 4 + 0.5  # in pixels
        assert ((centre - 32).abs() <= (1 - scale) * 32 + 0.01).all()
        assert ((centre - 32) / (1 - scale)).abs()[scale < 0.9].max() > 28, (
            "all the room there is, is used"
        )


class TestBatches:
    def test_every_item_once_a_pass(self) -> None:
        batches = Batches(12, 4, seed=0)
        passes = [torch.cat([next(batches) for _ in range(3)]).tolist() for _ in range(3)]
        assert all(sorted(items) == list(range(12)) for items in passes)
        assert passes[0] != passes[1] != passes[2]

    def test_what_does_not_fill_a_batch_is_left(self) -> None:
        batches = Batches(11, 4, seed=0)
        passes = [torch.cat([next(batches), next(batches)]).tolist() for _ in range(40)]
        assert all(len(set(items)) == 8 for items in passes)
        assert set().union(*passes) == set(range(11)), "not always the same"

    @pytest.mark.parametrize("step", [0, 1, 2, 3, 7])
    def test_goes_on_from_a_step(self, step: int) -> None:
        straight, resumed = Batches(10, 3, seed=5), Batches(10, 3, seed=5)
        for _ in range(step):
            next(straight)
        resumed.step = step
        assert [next(resumed).tolist() for _ in range(8)] == [
            next(straight).tolist() for _ in range(8)
        ]
        assert resumed.step == step + 8

    def test_seeds_differ(self) -> None:
        assert next(Batches(100, 100, 0)).tolist() != next(Batches(100, 100, 1)).tolist()

    @pytest.mark.parametrize("batch", [0, -1, 11])
    def test_a_batch_that_cannot_be(self, batch: int) -> None:
        with pytest.raises(InvalidInput, match=rf"batch is {batch}; it must be in \[1, 10\]"):
            Batches(10, batch, 0)
