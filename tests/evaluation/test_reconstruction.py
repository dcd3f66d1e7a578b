"""What a tokenizer keeps of images, of any size; and the command that says it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from eyes import Eyes
from PIL import Image
from torch import Tensor
from typer.testing import CliRunner

from aim.cli import app
from aim.errors import InvalidInput
from aim.evaluation.metrics import frechet_distance, ssim
from aim.evaluation.observe import observe
from aim.evaluation.reconstruction import as_table, last, measure_tokenizer
from aim.models.vq.model import VQ
from aim.training.data.images import normalize
from aim.training.data.sources import Images, open_images
from aim.training.perceptual import LPIPS
from aim.training.reconstruct import psnr, reconstruct


@pytest.fixture
def pictures(tmp_path: Path, smooth_images: Callable[..., Tensor]) -> tuple[Path, Tensor, Tensor]:
    """A folder of 5 pictures of 16 pixels among 4 of 32; the pixels of both."""
    small, large = smooth_images(5, 16, seed=1), smooth_images(4, 32, seed=2)
    (tmp_path / "pictures").mkdir()
    for i, pixels in enumerate([*small, *large]):
        name = f"{i if i < 5 else f'{i}-large'}.png"
        Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(tmp_path / "pictures" / name)
    return tmp_path / "pictures", small, large


def source(folder: Path) -> Images:
    return open_images([folder], labels=False)


class TestFigures:
    def test_each_size_is_compared_at_its_own(
        self, larger_vq: VQ, pictures: tuple[Path, Tensor, Tensor]
    ) -> None:
        folder, *sets = pictures
        found = measure_tokenizer(larger_vq, source(folder), range(9), [Eyes()], batch=2)
        assert (found["images"], found["unread"]) == (9, 0)
        for size, images in zip(("16", "32"), sets, strict=True):
            part, made = found["sizes"][size], reconstruct(larger_vq, images)
            assert part["images"] == len(images)
            assert part["psnr"] == pytest.approx(psnr(made, images), rel=1e-5)
            assert part["ssim"] == pytest.approx(ssim(made, images).mean().item(), rel=1e-4)
            real, kept = (observe(Eyes(), [batch]) for batch in (images, made))
            seen = part["features"]["eyes"]
            wanted = frechet_distance(real.statistics, kept.statistics)
            assert seen["rfid"] == pytest.approx(wanted, rel=1e-3, abs=1e-6)
            mean = (real.features - kept.features).norm(dim=1).mean().item()
            assert seen["feature_distance"] == pytest.approx(mean, rel=1e-4)
        codes = torch.cat(
            [
                larger_vq.encode(torch.nn.functional.avg_pool2d(normalize(images), size // 16))
                for size, images in zip((16, 32), sets, strict=True)
            ]
        ).unique()
        assert found["codes_used"] == len(codes) / 64
        assert 1 < found["perplexity"] <= len(codes)
        titles = [
            column.header for column in as_table(found | {"tokenizer": "t", "version": "v"}).columns
        ]
        assert titles == ["figure", "at 16 px", "at 32 px"]

    def test_lpips(
        self, larger_vq: VQ, pictures: tuple[Path, Tensor, Tensor], lpips_file: Path
    ) -> None:
        folder, _, images = pictures
        lpips = LPIPS.load(lpips_file)
        found = measure_tokenizer(larger_vq, source(folder), range(5, 9), [], lpips, batch=3)
        made = reconstruct(larger_vq, images)
        wanted = lpips(normalize(made), normalize(images)).mean().item()
        assert found["sizes"]["32"]["lpips"] == pytest.approx(wanted, rel=1e-4)
        with pytest.raises(InvalidInput, match="16x16 pixels; LPIPS needs at least 17"):
            measure_tokenizer(larger_vq, source(folder), [0], [], lpips)

    def test_what_comes_out_may_be_enlarged(
        self, tiny_vq: VQ, pictures: tuple[Path, Tensor, Tensor]
    ) -> None:
        folder, *_ = pictures
        plain = measure_tokenizer(tiny_vq, source(folder), range(9))
        assert list(plain["sizes"]) == ["16"]
        large = measure_tokenizer(tiny_vq, source(folder), range(9), size=32)
        assert [part["images"] for part in large["sizes"].values()] == [5, 4]
        with pytest.raises(InvalidInput, match="size is 24; it must be a multiple of 16"):
            measure_tokenizer(tiny_vq, source(folder), range(9), size=24)

    def test_an_image_that_cannot_be_read_is_counted(
        self, tiny_vq: VQ, pictures: tuple[Path, Tensor, Tensor]
    ) -> None:
        folder, *_ = pictures
        (folder / "0.png").write_text("hello")
        found = measure_tokenizer(tiny_vq, source(folder), range(9))
        assert (found["images"], found["unread"]) == (8, 1)
        with pytest.raises(InvalidInput, match="none of the 1 images can be read; the first is"):
            measure_tokenizer(tiny_vq, source(folder), [0])

    def test_ssim_is_what_its_formula_says(self, smooth_images: Callable[..., Tensor]) -> None:
        images = smooth_images(1, 12, seed=3)
        noise = torch.randint(-30, 30, images.shape, generator=torch.Generator().manual_seed(0))
        made = (images.int() + noise).clamp(0, 255).to(torch.uint8)
        assert ssim(images, images).item() == pytest.approx(1)
        line = [torch.exp(torch.tensor(-((i - 5) ** 2) / 4.5)).item() for i in range(11)]
        weight = torch.tensor(line)[:, None] * torch.tensor(line)
        weight = weight / weight.sum()
        parts = []
        for channel in range(3):
            for top in range(2):
                for left in range(2):
                    x, y = (
                        part[0, channel, top : top + 11, left : left + 11].double()
                        for part in (made, images)
                    )
                    mx, my = (weight * x).sum(), (weight * y).sum()
                    vx, vy = (weight * (x - mx) ** 2).sum(), (weight * (y - my) ** 2).sum()
                    both = (weight * (x - mx) * (y - my)).sum()
                    a, b = 2.55**2, 7.65**2
                    parts.append(
                        (2 * mx * my + a) * (2 * both + b)
                        / ((mx * mx + my * my + a) * (vx + vy + b))
                    )  # fmt: skip
        assert ssim(made, images).item() == pytest.approx(
            torch.stack(parts).mean().item(), rel=1e-3
        )
        with pytest.raises(InvalidInput, match="SSIM needs at least 11 pixels"):
            ssim(images[:, :, :8], images[:, :, :8])


def test_the_last_images_are_so_by_number(tmp_path: Path) -> None:
    for i in (1, 2, 9, 10, 11):
        Image.new("RGB", (4, 4)).save(tmp_path / f"{i}.png")
    images = source(tmp_path)
    names = [Path(images.name(i)).stem for i in last(images, 3)]
    assert names == ["9", "10", "11"]
    assert last(images, None) == list(range(5))
    with pytest.raises(InvalidInput, match=r"last is 6; it must be in \[1, 5\]"):
        last(images, 6)


class TestCommand:
    def test_prints_a_table_and_one_line_of_json(
        self, pictures: tuple[Path, Tensor, Tensor], tiny_checkpoint: Path, lpips_file: Path
    ) -> None:
        arguments = ["evaluate", "tokenizer", str(pictures[0]), "--last", "3"]
        more = ["--loss-network", str(lpips_file), "--size", "32", "--device", "cpu"]
        results = []
        for name in (tiny_checkpoint, tiny_checkpoint / "tiny-vq.safetensors"):
            result = CliRunner().invoke(app, [*arguments, "--tokenizer", str(name), *more])
            assert result.exit_code == 0, result.output
            results.append(json.loads(result.stdout.splitlines()[-1]))
            assert "PSNR, dB" in result.stdout
        assert (results[0]["images"], results[0]["last"]) == (3, 3)
        assert results[0]["sizes"] == results[1]["sizes"]
        assert set(results[0]["sizes"]["32"]) == {"images", "psnr", "ssim", "lpips"}

    def test_options_of_drawing_go_elsewhere(self, pictures: tuple[Path, Tensor, Tensor]) -> None:
        result = CliRunner().invoke(
            app, ["evaluate", "--count", "5", "tokenizer", str(pictures[0])]
        )
        assert isinstance(result.exception, InvalidInput)
        assert "--count stands before tokenizer" in str(result.exception)
