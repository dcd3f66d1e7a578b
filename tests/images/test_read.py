"""Whatever a person drops is a picture or a clear refusal."""

from __future__ import annotations

import contextlib
import io
import random
import subprocess
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms, ImageOps

from aim.errors import InvalidInput
from aim.images import read, write
from tests.launching import call

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
    image = read.open_image(content)
    assert (image.mode, image.size) == ("RGB", (40, 20))
    assert near(image, (5, 10), RED)
    assert near(image, (35, 10), BLUE)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "I", "F", "I;16", "YCbCr", "HSV", "LAB"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    image = Image.new(mode, (6, 4))
    assert read.open_image(image).mode == "RGB"


def test_sixteen_bits_keep_their_shades() -> None:
    shades = np.array([[0, 16384, 65535]], np.uint16)
    image = read.open_image(saved(Image.fromarray(shades), "PNG"))
    assert [image.getpixel((x, 0))[0] for x in range(3)] == [0, 64, 255]  # type: ignore[index]


def test_what_is_transparent_is_white() -> None:
    image = read.open_image(Image.new("RGBA", (4, 4), (0, 0, 0, 0)))
    assert image.getpixel((1, 1)) == (255, 255, 255)


def test_a_photo_that_lies_on_its_side_is_put_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn it clockwise
    image = read.open_image(saved(halves(), "JPEG", exif=exif, quality=95))
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


def colour(image: Image.Image, x: int = 0, y: int = 0) -> tuple[int, ...]:
    found = image.getpixel((x, y))
    assert isinstance(found, tuple)
    return found


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_every_orientation_is_put_upright(kind: str, turn: int) -> None:
    image = Image.new("RGB", (48, 32), (0, 0, 0))
    image.paste(RED, (0, 0, 24, 16))
    exif = Image.Exif()
    exif[0x0112] = turn
    content = saved(image, kind, exif=exif)
    wanted = ImageOps.exif_transpose(Image.open(io.BytesIO(content))).convert("RGB")
    found = read.open_image(content)
    assert found.size == wanted.size
    assert np.array_equal(np.asarray(found), np.asarray(wanted))


@pytest.mark.parametrize(
    "exif",
    [
        b"no header at all",
        b"Exif\0\0",
        b"Exif\0\0MM\0*\xff\xff\xff\xff",
        # orientation 6, then a rational of no denominator under a tag that is a text
        b"Exif\0\0MM\0*\0\0\0\x08\0\x02\x01\x12\0\x03\0\0\0\x01\0\x06\0\0"
        b"\x01\x31\0\x05\0\0\0\x01\0\0\0\x26\0\0\0\0\0\0\0\0\0\0\0\0",
    ],
    ids=["garbage", "nothing", "far away", "cannot be written back"],
)
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_bad_exif_does_no_harm(kind: str, exif: bytes) -> None:
    image = read.open_image(saved(Image.new("RGB", (24, 24), RED), kind, exif=exif))
    assert near(image, (10, 10), RED)


SHADES = (0.0, 0.25, 0.5, 1.0)


@pytest.mark.parametrize(
    ("pixels", "kind"),
    [
        (np.array([SHADES]) * 65535, "PNG"),
        (np.array([SHADES]) * 65535, "TIFF"),
        (np.array([SHADES]) * 65535, "JPEG2000"),
        (np.array([SHADES], np.float32), "TIFF"),
        (np.array([SHADES], np.float32) * 255, "TIFF"),
        (np.array([SHADES], np.float32) * 65535, "TIFF"),
        (np.array([SHADES], np.float32) * 1e9, "TIFF"),
        ((np.array([SHADES]) * 65535).astype(np.int32), "TIFF"),
        ((np.array([SHADES]) * 2e9).astype(np.int32), "TIFF"),
    ],
    ids=lambda value: value if isinstance(value, str) else f"{value.dtype}-{value.max():g}",
)
def test_a_ramp_stays_a_ramp(pixels: np.ndarray, kind: str) -> None:
    pixels = pixels.repeat(8, 0).repeat(8, 1)
    image = Image.fromarray(pixels.astype(np.uint16) if pixels.dtype == np.float64 else pixels)
    found = read.open_image(saved(image, kind))
    assert [colour(found, 8 * x + 4, 4)[0] for x in range(4)] == pytest.approx(
        [0, 64, 128, 255], abs=1
    )


def test_a_dark_image_of_sixteen_bits_stays_dark() -> None:
    dark = np.full((4, 4), 200, np.uint16)
    assert colour(read.open_image(saved(Image.fromarray(dark), "PNG"))) == (1, 1, 1)
    assert colour(read.open_image(b"P5 4 4 65535\n" + dark.astype(">u2").tobytes())) == (1, 1, 1)


def test_what_is_no_number_is_black_and_beyond_all_white() -> None:
    pixels = np.array([[np.nan, -np.inf, -1, 0, 1, np.inf]], np.float32)
    found = read.open_image(saved(Image.fromarray(pixels), "TIFF"))
    assert [colour(found, x)[0] for x in range(6)] == [0, 0, 0, 0, 255, 255]
    nothing = Image.fromarray(np.full((2, 2), np.nan, np.float32))
    assert colour(read.open_image(saved(nothing, "TIFF"))) == (0, 0, 0)


def hidden(mode: str) -> Image.Image:
    """A green square in which a red one is all that is not transparent, in a mode."""
    whole = Image.new("RGBA", (30, 30), (0, 255, 0, 0))
    whole.paste((*RED, 255), (10, 10, 20, 20))
    if mode != "P":
        return whole.convert(mode)
    palette = whole.convert("RGB").quantize(8)
    palette.info["transparency"] = palette.getpixel((0, 0))
    return palette


@pytest.mark.parametrize(
    ("mode", "kind"),
    [("RGBA", "PNG"), ("RGBA", "WEBP"), ("RGBA", "TIFF"), ("RGBA", "AVIF"), ("RGBA", "QOI"),
     ("P", "PNG"), ("P", "GIF"), ("LA", "PNG")],
)  # fmt: skip
def test_what_is_transparent_shows_paper(mode: str, kind: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    found = read.open_image(saved(hidden(mode), kind, **options))
    assert near(found, (2, 2), (255, 255, 255), 4)
    assert near(found, (15, 15), RED if mode != "LA" else (82, 82, 82), 8)


@pytest.mark.parametrize(
    ("pixels", "key"),
    [
        (np.full((4, 4, 3), 7, np.uint8), (7, 7, 7)),
        (np.full((4, 4), 7, np.uint8), 7),
        (np.full((4, 4), 40_000, np.uint16), 40_000),
        (np.zeros((4, 4), bool), 0),
    ],
    ids=["colour", "grey", "sixteen bits", "one bit"],
)
def test_a_transparent_colour_shows_paper(pixels: np.ndarray, key: object) -> None:
    content = saved(Image.fromarray(pixels), "PNG", transparency=key)
    assert colour(read.open_image(content)) == (255, 255, 255)


def test_colours_are_those_of_the_profile() -> None:
    content = (Path(__file__).parent / "adobe_rgb.png").read_bytes()
    stored = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))[0, 0] / 255
    to_xyz = [[0.57667, 0.18556, 0.18823], [0.29734, 0.62736, 0.07529], [0.02703, 0.07069, 0.99134]]
    to_linear = [[3.24097, -1.53738, -0.49861], [-0.96924, 1.87597, 0.04156], [0.05563, -0.20398, 1.05697]]  # fmt: skip # noqa: E501
    linear = np.clip(np.array(to_linear) @ np.array(to_xyz) @ stored ** (563 / 256), 0, 1)
    wanted = 255 * np.where(
        linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055
    )
    assert np.abs(wanted - stored * 255).max() > 20
    assert colour(read.open_image(content)) == pytest.approx(wanted, abs=2)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "L", "LA", "CMYK", "1"])
@pytest.mark.parametrize("profile", ["srgb", "other", "damaged"])
def test_profiles_that_change_nothing(mode: str, profile: str) -> None:
    stored = {
        "srgb": ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
        "other": ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes(),
        "damaged": b"no profile",
    }[profile]
    image = halves(mode)
    found = read.open_image(saved(image, "TIFF", icc_profile=stored))
    assert np.array_equal(np.asarray(found), np.asarray(image.convert("RGB")))


def test_transparency_and_profile_go_together() -> None:
    adobe = Image.open(Path(__file__).parent / "adobe_rgb.png")
    image = adobe.convert("RGBA")
    image.paste((0, 0, 0, 0), (0, 0, 9, 9))
    found = read.open_image(saved(image, "PNG", icc_profile=adobe.info["icc_profile"]))
    assert colour(found) == (255, 255, 255)
    assert colour(found, 20, 20) == colour(read.open_image(adobe), 20, 20)


def test_no_program_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    def started(*_: object, **__: object) -> None:
        raise AssertionError("a program is started")

    monkeypatch.setattr(subprocess, "Popen", started)
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"
    assert Image.open(io.BytesIO(postscript)).format == "EPS"
    with pytest.raises(InvalidInput, match="its format is not known"):
        read.open_image(postscript)


def samples() -> list[bytes]:
    """A noisy image in every format and in many of their kinds."""
    noise = np.random.default_rng(0).integers(0, 256, (24, 40, 3), np.uint8)
    image = Image.fromarray(noise)
    exif = Image.Exif()
    exif[0x0112] = 6
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    extra = {"exif": exif, "icc_profile": profile}
    plain = [saved(image, kind) for kind in read.FORMATS]
    return [
        *plain,
        saved(image, "PNG", **extra),
        saved(image, "JPEG", **extra),
        saved(image, "JPEG", progressive=True),
        saved(image.convert("CMYK"), "JPEG"),
        *(saved(image, "TIFF", compression=f"tiff_{kind}", **extra) for kind in ("lzw", "jpeg")),
        saved(image.convert("F"), "TIFF"),
        saved(image.convert("P"), "PNG", transparency=3),
        write.png_bytes(image, {"seed": 7}),
        (Path(__file__).parent / "adobe_rgb.png").read_bytes(),
    ]


def damaged(rng: random.Random, content: bytes) -> bytes:
    """Cut short, or some bytes changed, mostly near the beginning."""
    broken = bytearray(content)
    if rng.random() < 0.4:
        del broken[rng.randrange(len(broken)) :]
    for _ in range(rng.choice([0, 1, 3, 20]) if broken else 0):
        at = rng.randrange(min(len(broken), rng.choice([64, 400, len(broken)])))
        broken[at] = rng.randrange(256)
    return bytes(broken)


@pytest.mark.filterwarnings("ignore")  # Pillow warns of what it then reads
@pytest.mark.parametrize("seed", range(4))
def test_a_damaged_file_is_an_image_or_a_refusal_that_names_it(seed: int) -> None:
    rng, whole = random.Random(seed), samples()
    outcomes = {"read": 0, "refused": 0}
    for _ in range(600):
        content = damaged(rng, rng.choice(whole))
        try:
            assert read.open_square(content, 16, "cats/3.png").size == (16, 16)
            outcomes["read"] += 1
        except InvalidInput as error:
            assert str(error).startswith("cats/3.png ")
            assert "take a PNG" in str(error) or "make it smaller" in str(error)
            assert "\n" not in str(error)
            outcomes["refused"] += 1
        with contextlib.suppress(InvalidInput):
            read.read_parameters(content)
    assert min(outcomes.values()) > 50


def peak() -> int:
    """The most MB that this process held; not getrusage's, which may be the parent's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) // 1024


def taken(path: Path, parameters: bool) -> tuple[str, int]:
    before = peak()
    try:
        read.read_parameters(path) if parameters else read.open_square(path, 64)
        outcome = "read"
    except InvalidInput:
        outcome = "refused"
    return outcome, peak() - before


def memory(path: Path, parameters: bool = False) -> tuple[str, int]:
    """How reading it ends, and the MB that it takes, in a process of its own."""
    return call(taken, path, parameters)


def test_a_large_image_is_refused_before_it_takes_memory(tmp_path: Path) -> None:
    bomb = tmp_path / "bomb.png"
    Image.new("1", (9999, 10000)).save(bomb)
    assert bomb.stat().st_size < 20_000
    outcome, taken = memory(bomb)
    assert (outcome, taken < 40) == ("refused", True), taken


@pytest.mark.parametrize("mode", ["1", "P", "I;16", "RGBA", "F"])
def test_the_largest_image_takes_a_bounded_memory(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("large.tif" if mode == "F" else "large.png")
    options = {"transparency": 0} if mode == "P" else {}
    image = Image.new(mode, (5000, 4000))
    profile = Image.open(Path(__file__).parent / "adobe_rgb.png").info["icc_profile"]
    image.save(path, icc_profile=profile, **options)
    outcome, taken = memory(path)
    assert (outcome, taken < 450) == ("read", True), taken


def test_a_large_photo_is_read_at_half_its_size(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    Image.new("RGB", (8064, 6048), RED).save(path)
    outcome, taken = memory(path)
    assert (outcome, taken < 150) == ("read", True), taken
    assert read.open_image(path).size == (4032, 3024)
    Image.new("RGB", (8064, 6048), RED).save(path, progressive=True)
    assert memory(path)[0] == "refused"


def test_parameters_are_read_without_the_pixels(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    path.write_bytes(write.png_bytes(Image.new("1", (8000, 8000)), {"seed": 7}))
    outcome, taken = memory(path, parameters=True)
    assert (outcome, taken < 10) == ("read", True), taken


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file cannot be read as an image"),
        (b"just some text", "its format is not known"),
        (saved(halves(size=(400, 300)), "PNG")[:600], "cannot be read as an image"),
        (saved(halves(size=(400, 300)), "JPEG")[:700], "cannot be read as an image"),
        (bomb(30_000), "take a PNG|at most 20 million can be read"),
        (bomb(11_000), "11000x11000 pixels; at most 20 million can be read, so make it smaller"),
    ],
    ids=["empty", "text", "cut png", "cut jpeg", "bomb", "large"],
)
def test_what_is_no_picture_is_refused(content: bytes, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        read.open_image(content)


def test_a_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "notes.png"
    path.write_text("not a picture")
    with pytest.raises(
        InvalidInput,
        match=r"notes\.png' cannot be read as an image \(its format is not known\); take "
        r"a PNG, JPEG or WebP",
    ):
        read.open_image(path)
    with pytest.raises(InvalidInput, match="cannot be read"):
        read.open_image(tmp_path / "nowhere.png")
