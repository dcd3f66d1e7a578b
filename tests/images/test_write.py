"""Pictures keep their pixels and carry their parameters; what is not ours is refused."""

import io
import json
import zlib
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from aim.errors import InvalidInput
from aim.images import read, write


def picture(width: int = 8, height: int = 8, seed: int = 0, mode: str = "RGB") -> Image.Image:
    shape = (height, width, len(mode))
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))


def test_to_image_maps_the_range_and_cuts_the_rest():
    pixels = torch.tensor([-1.0, 0.0, 1.0, -5.0, 5.0, 0.5]).expand(3, 2, 6).clone()
    pixels[0] = 1
    image = write.to_image(pixels)
    assert image.mode == "RGB" and image.size == (6, 2)
    assert np.asarray(image)[1].tolist() == [[255, v, v] for v in (0, 128, 255, 0, 255, 191)]


def test_to_image_returns_every_byte():
    values = torch.arange(256).float() / 127.5 - 1
    image = write.to_image(values.view(1, 1, 256).expand(3, 1, 256))
    assert np.array_equal(np.asarray(image)[0, :, 0], np.arange(256))


def test_enlarge_by_a_whole_number_repeats_pixels():
    image = picture(4, 3)
    big = write.enlarge(image, 20)
    assert big.size == (20, 15)
    assert np.array_equal(np.asarray(big), np.asarray(image).repeat(5, 0).repeat(5, 1))
    assert write.enlarge(image, 10).size == (10, 8)
    assert write.enlarge(image, 4).tobytes() == image.tobytes()
    assert write.enlarge(picture(4, 4, mode="RGBA"), 8).mode == "RGBA"


def test_flatten_shows_the_background_where_nothing_is_drawn():
    image = picture(32, 32, mode="RGBA")
    pixels = np.asarray(image).copy()
    pixels[:16, :, 3], pixels[16:, :, 3] = 255, 0
    flat = np.asarray(write.flatten(Image.fromarray(pixels), (10, 20, 30)))
    assert np.array_equal(flat[:16], pixels[:16, :, :3])
    assert (flat[16:] == (10, 20, 30)).all()
    checker = np.asarray(write.flatten(Image.fromarray(pixels)))
    assert np.array_equal(checker[:16], pixels[:16, :, :3])
    assert {tuple(p) for p in checker[16:].reshape(-1, 3).tolist()} == set(write.CHECKER)
    assert all(r == g == b for r, g, b in write.CHECKER)
    rgb = picture()
    assert write.flatten(rgb) is rgb
    assert write.flatten(Image.new("L", (2, 2), 7)).getpixel((1, 1)) == (7, 7, 7)


json_values = st.one_of(
    st.integers(-(2**53), 2**53),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(),
    st.booleans(),
    st.none(),
)


@given(
    st.dictionaries(
        st.text(st.characters(codec="utf-8", exclude_characters="\0")), json_values, max_size=8
    )
)
def test_parameters_come_back(parameters: dict[str, object]):
    readable = {name: value for name, value in parameters.items() if "\0" not in str(value)}
    png = write.png_bytes(picture(), readable)
    assert read.read_parameters(png) == readable


def test_png_keeps_pixels_and_is_readable_by_people(tmp_path: Path):
    image = picture()
    parameters = {"class": "goldfish (1)", "seed": 7, "cfg_scale": 2.5, "note": "Größe – 日本"}
    png = write.png_bytes(image, parameters)
    opened = Image.open(io.BytesIO(png))
    assert opened.format == "PNG" and opened.tobytes() == image.tobytes()
    assert json.loads(opened.text["aim"]) == parameters
    assert "class: goldfish (1)\nseed: 7" in opened.text["parameters"]
    path = tmp_path / "a.png"
    path.write_bytes(png)
    for source in (png, path, str(path), opened):
        assert read.read_parameters(source) == parameters


def test_parameters_after_the_pixels_are_found():
    png = write.png_bytes(picture(), {})
    chunk_type, data = b"tEXt", b'aim\0{"seed": 3}'
    plain = io.BytesIO()
    picture().save(plain, "PNG")
    body, end = plain.getvalue()[:-12], plain.getvalue()[-12:]
    late = (
        len(data).to_bytes(4, "big")
        + chunk_type
        + data
        + zlib.crc32(chunk_type + data).to_bytes(4, "big")
    )
    assert read.read_parameters(body + late + end) == {"seed": 3}
    assert read.read_parameters(png) == {}


def png_with(text: str) -> bytes:
    chunks = PngImagePlugin.PngInfo()
    chunks.add_text("aim", text)
    out = io.BytesIO()
    picture().save(out, "PNG", pnginfo=chunks)
    return out.getvalue()


@pytest.mark.parametrize("text", ["{", "[1]", "null", '"a"', "[" * 100_000])
def test_damaged_parameters_are_refused(text: str):
    with pytest.raises(InvalidInput, match="damaged"):
        read.read_parameters(png_with(text))


def test_pictures_without_parameters_are_refused(tmp_path: Path):
    plain = io.BytesIO()
    picture().save(plain, "PNG")
    for source in (plain.getvalue(), picture()):
        with pytest.raises(InvalidInput, match="carries no parameters"):
            read.read_parameters(source)
    good = write.png_bytes(picture(64, 64), {"a": 1})
    cut = good[: good.index(b"aim\0") - 4] + good[good.index(b"IDAT") - 4 : -60]
    for source in (b"", b"not a picture", cut, tmp_path / "absent.png", str(tmp_path)):
        with pytest.raises(InvalidInput, match="cannot be read as an image"):
            read.read_parameters(source)


def test_parameters_must_be_json():
    with pytest.raises(ValueError):
        write.png_bytes(picture(), {"x": float("nan")})


def test_gif_has_every_frame_and_holds_the_last():
    frames = [picture(16, 16, seed) for seed in range(5)]
    frames[0] = picture(16, 16, 9, "RGBA")
    gif = Image.open(io.BytesIO(write.gif_bytes(frames, fps=20, hold_seconds=1.5)))
    assert (
        gif.format == "GIF" and gif.n_frames == 5 and gif.size == (16, 16) and gif.info["loop"] == 0
    )
    durations = []
    for i in range(5):
        gif.seek(i)
        durations.append(gif.info["duration"])
    assert durations == [50, 50, 50, 50, 1550]


def test_film_has_every_frame_and_holds_the_last():
    frames = [Image.new("RGB", (15, 16), (40 * i, 120, 200 - 40 * i)) for i in range(5)]
    film = iio.imread(
        write.mp4_bytes(frames, fps=10, hold_seconds=1, at_least=64),
        extension=".mp4",
        plugin="pyav",
    )
    assert film.shape == (15, 64, 60, 3)
    for i in range(15):
        assert np.abs(film[i].astype(int) - frames[min(i, 4)].getpixel((4, 4))).mean() < 6, (
            "compressed, and the same colours"
        )
    with pytest.raises(InvalidInput, match="needs at least one frame"):
        write.mp4_bytes([])


def test_mosaic():
    images = [Image.new("RGB", (2, 2), (i, 0, 0)) for i in range(4)]
    whole = write.mosaic(images)
    assert whole.mode == "RGB" and whole.size == (4, 4)
    assert [whole.getpixel(at)[0] for at in ((0, 0), (3, 0), (0, 3), (3, 3))] == [0, 1, 2, 3]
    part = write.mosaic([images[0], None, images[1].convert("RGBA")])
    assert part.mode == "RGBA" and part.size == (4, 4)
    assert [part.getpixel(at)[3] for at in ((0, 0), (2, 0), (0, 2), (2, 2))] == [255, 0, 255, 0]
    assert write.mosaic(images[:1]).size == (2, 2)
    with pytest.raises(InvalidInput, match="at least one image"):
        write.mosaic([None])


def test_gif_keeps_the_colours():
    frames = [
        Image.new("RGB", (8, 8), colour) for colour in ((255, 0, 0), (0, 255, 0), (12, 34, 56))
    ]
    gif = Image.open(io.BytesIO(write.gif_bytes(frames)))
    for i, frame in enumerate(frames):
        gif.seek(i)
        assert gif.convert("RGB").getpixel((4, 4)) == frame.getpixel((4, 4))


@pytest.mark.parametrize("count", [1, 3])
def test_gif_of_one_picture(count: int):
    gif = Image.open(io.BytesIO(write.gif_bytes([picture()] * count, fps=10, hold_seconds=1)))
    assert gif.n_frames == 1, "equal frames become one"
    assert gif.info["duration"] == 1000 + 100 * count


@pytest.mark.parametrize(
    "arguments",
    [
        {"fps": 0},
        {"fps": -1},
        {"fps": 51},
        {"fps": float("nan")},
        {"hold_seconds": -1},
        {"hold_seconds": 61},
    ],
)
def test_gif_timing_out_of_range(arguments: dict[str, float]):
    with pytest.raises(InvalidInput, match=next(iter(arguments))):
        write.gif_bytes([picture()], **arguments)
    with pytest.raises(InvalidInput, match="at least one frame"):
        write.gif_bytes([])


@pytest.mark.parametrize("count, columns, scale", [(6, 3, 1), (5, 3, 2), (1, 4, 1)])
def test_contact_sheet_places_every_image(count: int, columns: int, scale: int):
    images = [picture(10, 6, seed) for seed in range(count)]
    sheet = np.asarray(write.contact_sheet(images, columns, scale=scale))
    gap, width, height = 2 * scale, 10 * scale, 6 * scale
    for i, image in enumerate(images):
        y, x = gap + i // columns * (height + gap), gap + i % columns * (width + gap)
        assert np.array_equal(
            sheet[y : y + height, x : x + width],
            np.asarray(image).repeat(scale, 0).repeat(scale, 1),
        )
    assert sheet.shape == (
        -(-count // columns) * (height + gap) + gap,
        columns * (width + gap) + gap,
        3,
    )


def test_labels_are_written_under_rows_or_images():
    images = [Image.new("RGB", (64, 64), (255, 255, 255))] * 4
    plain = write.contact_sheet(images, 2)
    by_row = np.asarray(write.contact_sheet(images, 2, ["goldfish (1)", ""]))
    by_image = np.asarray(
        write.contact_sheet(images, 2, ["", "", "", "a name that is far too long for its picture"])
    )
    assert by_row.shape[0] > plain.height and by_row.shape[1] == plain.width
    middle, half = by_row.shape[0] // 2, by_row.shape[1] // 2
    assert (by_row[:middle] < 128).any() and (by_row[middle:] == 255).all()
    assert (
        (by_image[middle:, half:] < 128).any()
        and (by_image[:, :half] == 255).all()
        and (by_image[:middle] == 255).all()
    )


def test_contact_sheet_refuses_what_does_not_fit():
    with pytest.raises(InvalidInput, match="got 3 labels; give 2, one a row, or 4, one an image"):
        write.contact_sheet([picture()] * 4, 2, ["a", "b", "c"])
    for arguments in (([], 2), ([picture()], 0)):
        with pytest.raises(InvalidInput, match="contact sheet"):
            write.contact_sheet(*arguments)
