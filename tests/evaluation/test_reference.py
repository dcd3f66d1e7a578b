"""Real images: where they come from, what is kept of them, and when they are seen again."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from eyes import SIZE, Eyes, pixels
from PIL import Image

from aim.errors import InvalidInput
from aim.evaluation.reference import CACHE, MOST, load_reference
from aim.evaluation.run import evaluate
from aim.evaluation.samples import SampleSet


def npz(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


class TestReference:
    def test_is_seen_once(self, folder: Path) -> None:
        eyes = Eyes()
        first, second = load_reference([folder], eyes, SIZE), load_reference([folder], eyes, SIZE)
        assert eyes.images == 30
        assert torch.equal(first.statistics.covariance, second.statistics.covariance)
        assert second.statistics.images == 30
        assert first.features is not None and second.features is not None
        assert torch.equal(first.features, second.features)
        assert first.spatial is not None and second.spatial is not None
        assert torch.equal(first.spatial.mean, second.spatial.mean)
        assert [
            path.name.startswith("real-eyes-") for path in (folder.parent / CACHE).iterdir()
        ] == [True]

    @pytest.mark.parametrize("change", ["picture", "more", "features", "size", "damage"])
    def test_is_seen_again_where_something_changed(
        self, folder: Path, tmp_path: Path, change: str
    ) -> None:
        eyes, size, cache = Eyes(), SIZE, tmp_path / "cache"
        load_reference([folder], eyes, size, cache=cache)
        seen, eyes.images = eyes.images, 0
        if change == "picture":
            os.utime(folder / "00.png", (1, 1))
        elif change == "more":
            Image.fromarray(pixels(1, 1)[0]).save(folder / "new.jpeg")
            seen += 1
        elif change == "features":
            eyes = Eyes("others")
        elif change == "size":
            size = 8
        else:
            kept = next(cache.iterdir())
            kept.write_bytes(kept.read_bytes()[:500])
        load_reference([folder], eyes, size, cache=cache)
        assert eyes.images == seen

    def test_without_a_place_to_keep_it(
        self, folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        (tmp_path / "file").write_text("")
        with caplog.at_level(logging.WARNING, "aim"):
            found = load_reference([folder], Eyes(), SIZE, cache=tmp_path / "file")
        assert found.statistics.images == 30
        assert "cannot be kept" in caplog.text and "--cache" in caplog.text

    def test_pictures_of_another_size_are_cut_and_scaled(self, tmp_path: Path) -> None:
        (tmp_path / "real").mkdir()
        for i, colour in enumerate(("red", "blue")):
            picture = Image.new("RGB", (64, 32), "white")
            picture.paste(colour, (16, 0, 48, 32))
            picture.save(tmp_path / "real" / f"{i}.png")
        found = load_reference([tmp_path / "real"], Eyes(), SIZE)
        assert found.features is not None
        assert torch.allclose(
            found.features[:, ::4], torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]), atol=0.02
        )

    def test_statistics_of_adm_come_before_its_images(self, tmp_path: Path) -> None:
        mean, covariance, spatial = np.full(12, 0.5), np.eye(12), np.zeros(4)
        path = npz(
            tmp_path / "adm.npz",
            arr_0=pixels(20),
            mu=mean,
            sigma=covariance,
            mu_s=spatial,
            sigma_s=np.eye(4),
        )
        found = load_reference([path], Eyes(), SIZE)
        assert torch.equal(found.statistics.mean, torch.full((12,), 0.5, dtype=torch.float64))
        assert found.spatial is not None
        assert len(found.spatial.mean) == 4
        assert found.features is not None
        assert found.features.shape == (20, 12)

    def test_statistics_of_another_network_are_left_aside(self, tmp_path: Path) -> None:
        path = npz(
            tmp_path / "adm.npz", arr_0=pixels(20), mu=np.zeros(2048), sigma=np.zeros((2048, 2048))
        )
        found = load_reference([path], Eyes(), SIZE)
        assert (len(found.statistics.mean), found.statistics.images) == (12, 20)

    def test_statistics_alone_have_no_precision(
        self, make_set: Callable[..., SampleSet], tmp_path: Path
    ) -> None:
        path = npz(
            tmp_path / "stats.npz", mu=np.zeros(12, np.float32), sigma=np.eye(12, dtype=np.float32)
        )
        for _ in range(2):  # computed, and from the cache
            result = evaluate(make_set(), [Eyes()], [path])
            assert result is not None
            assert result["fid"] > 0
            assert [
                result[name] for name in ("sfid", "precision", "recall", "reference_images")
            ] == [None] * 4

    def test_no_more_features_are_kept_than_adm_has(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert MOST == 10_000
        monkeypatch.setattr("aim.evaluation.reference.MOST", 7)
        path, eyes = npz(tmp_path / "many.npz", arr_0=pixels(20)), Eyes()
        found = load_reference([path], eyes, SIZE)
        assert (eyes.images, found.statistics.images) == (20, 20)
        wanted = eyes(torch.from_numpy(pixels(20)).permute(0, 3, 1, 2)).features[
            [0, 2, 5, 8, 11, 14, 17]
        ]
        assert found.features is not None
        assert torch.equal(found.features, wanted)

    @pytest.mark.parametrize(
        ("arrays", "message"),
        [
            (
                {"arr_0": pixels(4, size=8)},
                r"images of .* are 8x8, those that are drawn 16x16; take a reference of that size",
            ),
            (
                {"x": np.zeros(3)},
                "holds no images, arr_0, and no statistics, mu and sigma; take another reference "
                "for eyes",
            ),
            ({"mu": np.zeros(5), "sigma": np.eye(5)}, "statistics of 5 numbers, not 12"),
            (
                {"mu": np.zeros(12), "sigma": np.eye(5)},
                r"mu and sigma of .* must be floating point, \(F,\) and \(F, F\)",
            ),
            ({"arr_0": pixels(1)}, "at least 2 images"),
        ],
    )
    def test_that_will_not_do(
        self, tmp_path: Path, arrays: dict[str, np.ndarray], message: str
    ) -> None:
        with pytest.raises(InvalidInput, match=message):
            load_reference([npz(tmp_path / "r.npz", **arrays)], Eyes(), SIZE)

    def test_that_is_no_reference_at_all(self, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        (tmp_path / "r.npz").write_text("hello")
        (tmp_path / "bad").mkdir()
        (tmp_path / "bad" / "a.png").write_text("hello")
        np.save(tmp_path / "r.npy", pixels(3))
        for name, message in (
            ("r.npy", "r.npy is neither a folder"),
            ("empty", "no image in"),
            ("r.npz", "cannot be read as a .npz file"),
            ("bad", "none of the 1 images can be read; the first is"),
        ):
            with pytest.raises(InvalidInput, match=message):
                load_reference([tmp_path / name], Eyes(), SIZE)
