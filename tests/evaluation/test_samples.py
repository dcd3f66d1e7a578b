"""The set of images: the same however it is drawn, finished when it was cut off, and checked."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from aim.config import MAX_SEED, SamplingParams
from aim.errors import AimError, GenerationError, InvalidInput
from aim.evaluation.check import check
from aim.evaluation.images import npz_shape, read_npz, write_npz
from aim.evaluation.samples import SampleSet
from aim.images import read, write
from aim.pipeline import Pipeline
from aim.training.data.images import load_pixels

COUNT, SEED = 13, 70
PARAMS = SamplingParams(cfg_scale=2.0, temperature=0.9, top_k=40)


@pytest.fixture
def make(tiny_pipeline: Pipeline, tmp_path: Path) -> Callable[..., SampleSet]:
    """A set of 13 images in the folder called ``name``, opened."""

    def build(
        name: str = "set",
        count: int = COUNT,
        params: SamplingParams = PARAMS,
        seed: int = SEED,
        batch: int = 4,
    ) -> SampleSet:
        images = SampleSet(tiny_pipeline, tmp_path / name, count, params, seed, batch)
        images.open()
        return images

    return build


def contents(images: SampleSet) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((images.folder / "png").iterdir())}


@pytest.fixture
def drawn(make: Callable[..., SampleSet]) -> SampleSet:
    """All of it, by one process."""
    images = make()
    assert images.draw() == COUNT
    return images


class TestDrawing:
    def test_image_i_is_that_of_its_class_and_seed(
        self, drawn: SampleSet, tiny_pipeline: Pipeline
    ) -> None:
        labels = [tiny_pipeline.classes[i % 5] for i in range(COUNT)]
        wanted = tiny_pipeline.pictures(tiny_pipeline.draw(labels, SEED, PARAMS))
        found = list(drawn.arrays())
        assert [image.tobytes() for image in found] == [
            np.asarray(image).tobytes() for image in wanted
        ]
        assert drawn.classes() == labels
        assert read.read_parameters(drawn.path(7)) == {
            **tiny_pipeline.parameters(labels[7], SEED + 7, PARAMS),
            "device": "cpu",
        }

    @pytest.mark.parametrize("world", [2, 3, 20])
    @pytest.mark.parametrize("batch", [1, 64])
    def test_is_the_same_by_several_processes_and_in_any_batch(
        self, drawn: SampleSet, make: Callable[..., SampleSet], world: int, batch: int
    ) -> None:
        others = make("shared", batch=batch)
        assert sum(others.draw(rank, world) for rank in reversed(range(world))) == COUNT
        assert contents(others) == contents(drawn)

    def test_of_fewer_images_than_classes(self, make: Callable[..., SampleSet]) -> None:
        images = make(count=2)
        images.draw()
        assert images.classes() == [1, 281]
        assert check(images)["most"] == 1

    def test_says_how_far_it_is(self, make: Callable[..., SampleSet]) -> None:
        heard: list[tuple[int, int]] = []
        make().draw(1, 3, lambda done, total: heard.append((done, total)))
        assert heard == [(1, 4), (2, 4), (3, 4), (4, 4)]

    def test_a_failure_is_raised_and_what_is_done_is_kept(
        self, make: Callable[..., SampleSet], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        images = make()
        codes = images.codes

        def break_down(indices: Any) -> Any:
            yield from list(codes(indices))[:5]
            raise GenerationError("not finite")

        monkeypatch.setattr(images, "codes", break_down)
        with pytest.raises(GenerationError, match="not finite"):
            images.draw()
        monkeypatch.undo()
        assert images.draw() < COUNT

    def test_a_batch_is_filled_up_where_its_size_matters(
        self, drawn: SampleSet, make: Callable[..., SampleSet]
    ) -> None:
        images = make("filled")
        images._padded = True
        together = list(images.codes(range(COUNT)))
        assert len(together) == 16
        assert sorted(i for i, _ in together if i is not None) == list(range(COUNT))
        assert images.draw() == COUNT
        assert contents(images) == contents(drawn)


class TestResuming:
    def test_only_what_is_missing_is_drawn(self, drawn: SampleSet) -> None:
        before = contents(drawn)
        for i in (0, 5, 12):
            drawn.path(i).unlink()
        times = {path: path.stat().st_mtime_ns for path in (drawn.folder / "png").iterdir()}
        assert drawn.missing(range(COUNT)) == [0, 5, 12]
        assert drawn.draw() == 3
        assert contents(drawn) == before
        assert {path: path.stat().st_mtime_ns for path in times} == times
        assert drawn.draw() == 0

    @pytest.mark.parametrize(
        "damage", ["cut", "empty", "noise", "pixels", "text", "other seed", "other size"]
    )
    def test_a_damaged_file_is_drawn_again(self, drawn: SampleSet, damage: str) -> None:
        before, path = contents(drawn), drawn.path(3)
        whole, parameters = path.read_bytes(), read.read_parameters(path)
        flipped = bytearray(whole)
        flipped[whole.index(b"IDAT") + 20] ^= 255
        image = Image.open(path)
        path.write_bytes(
            {
                "cut": whole[: len(whole) // 2],
                "empty": b"",
                "noise": bytes(range(256)),
                "pixels": bytes(flipped),
                "text": write.png_bytes(image, {}),
                "other seed": write.png_bytes(image, {**parameters, "seed": 9}),
                "other size": write.png_bytes(image.resize((8, 8)), parameters),
            }[damage]
        )
        assert drawn.read(3) is None
        assert drawn.draw() == 1
        assert contents(drawn) == before

    def test_a_file_cut_anywhere_is_seen(self, drawn: SampleSet) -> None:
        whole = drawn.path(3).read_bytes()
        # the last chunk, of 12 bytes, only says that it is the last
        for length in range(0, len(whole) - 12, 17):
            drawn.path(3).write_bytes(whole[:length])
            assert drawn.read(3) is None, length

    def test_in_a_folder_of_the_same_set(
        self, drawn: SampleSet, make: Callable[..., SampleSet]
    ) -> None:
        assert make(batch=2).draw() == 0
        assert json.loads((drawn.folder / "settings.json").read_text()) == drawn.settings()

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"count": 14}, "its count is 13, not 14"),
            ({"seed": 71}, "its seed is 70, not 71"),
            ({"params": SamplingParams(cfg_scale=2.0, temperature=0.9)}, "its top_k is 40, not 0"),
        ],
    )
    def test_not_in_a_folder_of_another(
        self, make: Callable[..., SampleSet], change: dict[str, Any], message: str
    ) -> None:
        make()
        with pytest.raises(InvalidInput, match=f"{message}; draw into another folder with --out"):
            make(**change)

    def test_not_with_another_model_tokenizer_or_number_of_threads(
        self, make: Callable[..., SampleSet], tiny_pipeline: Pipeline, tmp_path: Path
    ) -> None:
        make()
        for change in (
            {"version": "other"},
            {"tokenizer": "other"},
            {"threads": 99},
            {"dtype": "bfloat16"},
        ):
            path = tmp_path / "set" / "settings.json"
            before = path.read_text()
            path.write_text(json.dumps({**json.loads(before), **change}))
            with pytest.raises(
                InvalidInput,
                match=f"its {next(iter(change))} is {next(iter(change.values()))}, not ",
            ):
                make()
            path.write_text(before)
        make()

    @pytest.mark.parametrize("settings", [None, "{", "[]"])
    def test_not_over_pictures_that_nothing_is_known_of(
        self, drawn: SampleSet, make: Callable[..., SampleSet], settings: str | None
    ) -> None:
        path = drawn.folder / "settings.json"
        path.unlink() if settings is None else path.write_text(settings)
        with pytest.raises(InvalidInput, match="draw into another folder with --out"):
            make()


class TestSelfCheck:
    def test_counts_classes_and_rounding(self, drawn: SampleSet) -> None:
        found = check(drawn)
        assert (found["images"], found["fewest"], found["most"]) == (13, 2, 3)
        assert (found["redrawn"], found["equal"]) == (4, 4)
        assert abs(found["rounding_mean"]) < 0.02
        assert 0.45 < found["rounding_most"] <= 0.501

    def test_sees_pixels_that_were_cut_instead_of_rounded(
        self, make: Callable[..., SampleSet], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        images = make()
        with monkeypatch.context() as patch:
            patch.setattr(
                write,
                "to_bytes",
                lambda pixels: pixels.detach().clamp(-1, 1).add(1).mul(127.5).to(torch.uint8),
            )
            images.draw()
            with pytest.raises(
                AimError, match=r"differ from their files .*'rounding_mean': -0\.[45]"
            ):
                check(images)
        with pytest.raises(AimError, match="draw into another folder"):
            check(images)

    def test_sees_a_file_that_is_missing(self, drawn: SampleSet) -> None:
        drawn.path(4).unlink()
        with pytest.raises(
            AimError, match="holds 12 of 13 images; the same command draws the others"
        ):
            check(drawn)
        with pytest.raises(AimError, match=r"000004.png is missing or damaged"):
            list(drawn.arrays())

    def test_sees_a_file_too_many(self, drawn: SampleSet) -> None:
        shutil.copy(drawn.path(4), drawn.path(13))
        with pytest.raises(AimError, match=r"000013.png, which is not of this set; remove it"):
            check(drawn)

    def test_sees_classes_out_of_balance(self, make: Callable[..., SampleSet]) -> None:
        images = make()
        images.rows[5:] = [0] * 8
        images.draw()
        with pytest.raises(AimError, match="not balanced: 1 images of one and 9 of another"):
            check(images)


class TestArray:
    def test_is_adm_s(self, drawn: SampleSet) -> None:
        path = drawn.pack()
        with np.load(path) as file:
            assert file.files == ["arr_0", "arr_1"]
            assert file["arr_0"].dtype == np.uint8
            assert np.array_equal(file["arr_0"], np.stack(list(drawn.arrays())))
            assert file["arr_0"].shape == (13, 16, 16, 3)
            assert file["arr_1"].tolist() == drawn.classes()
        assert npz_shape(path) == (13, 16, 16)
        parts = list(read_npz(path, 5))
        assert [len(part) for part in parts] == [5, 5, 3]
        assert torch.equal(torch.cat(parts), torch.cat(list(drawn.images(7))))
        pictures = load_pixels([drawn.folder / "png"], 16).images
        assert torch.equal(pictures, torch.cat(parts))

    @pytest.mark.parametrize(
        ("arrays", "message"),
        [
            ({"mu": np.zeros(3)}, "holds no arr_0"),
            ({"arr_0": np.zeros((2, 4, 4, 3))}, r"is float64 \(2, 4, 4, 3\); it must be uint8"),
            ({"arr_0": np.zeros((2, 3, 4, 4), np.uint8)}, r"is uint8 \(2, 3, 4, 4\)"),
            ({"arr_0": np.zeros((0, 4, 4, 3), np.uint8)}, r"is uint8 \(0, 4, 4, 3\)"),
        ],
    )
    def test_of_something_else(
        self, tmp_path: Path, arrays: dict[str, np.ndarray], message: str
    ) -> None:
        np.savez(tmp_path / "other.npz", **arrays)  # type: ignore[arg-type]
        with pytest.raises(InvalidInput, match=message):
            list(read_npz(tmp_path / "other.npz", 4))

    def test_that_is_damaged(self, drawn: SampleSet) -> None:
        path = drawn.pack()
        whole = path.read_bytes()
        for content in (whole[:3000], b"", b"nothing", whole.replace(b"NUMPY", b"NOMPY")):
            path.write_bytes(content)
            with pytest.raises(InvalidInput, match=r"samples.npz cannot be read as a .npz file"):
                list(read_npz(path, 4))

    def test_nothing_is_left_of_one_that_is_not_finished(self, tmp_path: Path) -> None:
        for some in (np.zeros((2, 4, 4, 3), np.uint8), np.zeros((3, 5, 5, 3), np.uint8)):
            with pytest.raises(
                InvalidInput, match=r"there are 2 images and 3 labels|image 0 is uint8 \(5, 5, 3\)"
            ):
                write_npz(tmp_path / "x.npz", some, [1, 2, 3], 4)
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"count": 0}, "count is 0; it must be a whole number of at least 1"),
        ({"count": True}, "count is True"),
        ({"batch": 0}, "batch is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": MAX_SEED - 3}, f"seed is {MAX_SEED + 9}"),
    ],
)
def test_what_cannot_be_drawn(
    make: Callable[..., SampleSet], change: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidInput, match=message):
        make(**change)


def test_a_folder_that_cannot_be_made(tiny_pipeline: Pipeline, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(
        InvalidInput, match=r"cannot write .*settings\.json: .*choose another folder"
    ):
        SampleSet(tiny_pipeline, tmp_path / "file", 3).open()
