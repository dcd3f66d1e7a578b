"""Whatever a person drops is a picture or a clear refusal."""

from __future__ import annotations

import io
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from aim.errors import InvalidInput
from aim.images import read, write

RED, BLUE = (200, 30, 30), (20, 40, 220)


def halves(mode: str = "RGB", size: tuple[int, int] = (40, 20)) -> Image.Image:
    """Red on the left, blue on the right."""
    image = Image.new("RGB", size, RED)
    image.paste(BLUE, (size[0] // 2, 0, *size))
    return image.convert(mode)


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def near(
    image: Image.Image, at: tuple[int, int], colour: tuple[int, int, int], far: int = 40
) -> bool:
    return max(abs(a - b) for a, b in zip(image.getpixel(at), colour, strict=True)) <= far  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "content",
    [
        saved(halves(), "PNG"),
        saved(halves(), "JPEG", quality=95, subsampling=0),
        saved(halves("CMYK"), "JPEG", quality=95, subsampling=0),
        saved(halves(), "WEBP", lossless=True),
        saved(halves("P"), "PNG"),
        saved(halves("RGBA"), "PNG"),
        saved(halves(), "GIF"),
        saved(
            halves(),
            "GIF",
            save_all=True,
            append_images=[Image.new("RGB", (40, 20), (0, 255, 0))],
            duration=50,
        ),
        saved(halves(), "BMP"),
        saved(halves(), "TIFF"),
    ],
    ids=["png", "jpeg", "cmyk", "webp", "palette", "rgba", "gif", "animated", "bmp", "tiff"],
)
def test_every_kind_of_file_is_the_same_picture(content: bytes) -> None:
    image = read.open_picture(content)
    assert (image.mode, image.size) == ("RGB", (40, 20))
    assert near(image, (5, 10), RED)
    assert near(image, (35, 10), BLUE)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "I", "F", "I;16", "YCbCr", "HSV", "LAB"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    image = Image.new(mode, (6, 4))
    assert read.open_picture(image).mode == "RGB"


def test_sixteen_bits_keep_their_shades() -> None:
    shades = np.array([[0, 16384, 65535]], np.uint16)
    image = read.open_picture(saved(Image.fromarray(shades), "PNG"))
    assert [image.getpixel((x, 0))[0] for x in range(3)] == [0, 64, 255]  # type: ignore[index]


def test_what_is_transparent_is_white() -> None:
    image = read.open_picture(Image.new("RGBA", (4, 4), (0, 0, 0, 0)))
    assert image.getpixel((1, 1)) == (255, 255, 255)


def test_a_photo_that_lies_on_its_side_is_put_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn it clockwise
    image = read.open_picture(saved(halves(), "JPEG", exif=exif, quality=95))
    assert image.size == (20, 40)
    assert near(image, (10, 5), RED)
    assert near(image, (10, 35), BLUE)


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (700, 3), (4000, 3000)])
def test_any_size_is_cut_to_a_square(size: tuple[int, int]) -> None:
    square = read.open_square(Image.new("RGB", size, RED), 16)
    assert square.size == (16, 16)
    assert square.getpixel((8, 8)) == RED


def test_the_middle_is_kept() -> None:
    wide = Image.new("RGB", (60, 20), BLUE)
    wide.paste(RED, (20, 0, 40, 20))
    square = read.open_square(wide, 10)
    assert all(near(square, (x, 5), RED, 60) for x in (1, 5, 8))


def test_pixels_are_what_images_are_made_of() -> None:
    image = halves()
    pixels = read.to_pixels(image)
    assert (pixels.shape, pixels.dtype) == ((3, 20, 40), torch.float32)
    assert np.array_equal(np.asarray(write.to_image(pixels)), np.asarray(image))


def chunk(kind: bytes, content: bytes) -> bytes:
    return (
        len(content).to_bytes(4, "big")
        + kind
        + content
        + zlib.crc32(kind + content).to_bytes(4, "big")
    )


def bomb(side: int) -> bytes:
    """A PNG that says it is huge and has no pixels."""
    header = side.to_bytes(4, "big") * 2 + bytes([8, 2, 0, 0, 0])
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b""))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file cannot be read as a picture"),
        (b"just some text", "its format is not known"),
        (saved(halves(size=(400, 300)), "PNG")[:600], "cannot be read as a picture"),
        (saved(halves(size=(400, 300)), "JPEG")[:700], "cannot be read as a picture"),
        (bomb(30_000), "take a PNG|at most 100 million can be read"),
        (bomb(11_000), "11000x11000 pixels; at most 100 million can be read, so make it smaller"),
    ],
    ids=["empty", "text", "cut png", "cut jpeg", "bomb", "large"],
)
def test_what_is_no_picture_is_refused(content: bytes, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        read.open_picture(content)


def test_a_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "notes.png"
    path.write_text("not a picture")
    with pytest.raises(
        InvalidInput,
        match=r"notes\.png' cannot be read as a picture \(its format is not known\); take a PNG, JPEG or WebP",
    ):
        read.open_picture(path)
    with pytest.raises(InvalidInput, match="cannot be read"):
        read.open_picture(tmp_path / "nowhere.png")
