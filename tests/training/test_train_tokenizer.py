"""``python -m aim train tokenizer`` as a person runs it: alone, on two processes, stopped and
resumed, streamed, from a tokenizer.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from aim.checkpoint import load_tokenizer
from aim.checkpoint.weights import read_metadata
from aim.errors import InvalidInput
from aim.training.classifier import VGG, ResNet, read_classifier
from aim.training.data.images import Ahead, Batches, StreamedImages, load_images
from aim.training.data.sources import open_images
from aim.training.launch import Options
from aim.training.parallel import ALONE
from aim.training.train_tokenizer import Inputs, read_images, read_settings, train_tokenizer
from tests import launching
from tests.waiting import until

pytest.importorskip("accelerate")

TINY = {
    "image_size": 16,
    "codebook_size": 64,
    "z_channels": 32,
    "ch": 32,
    "ch_mult": "[1,1,1]",
    "num_res_blocks": 1,
}
RUN = [
    "seconds=0",
    "batch=8",
    "lr=0.002",
    "ema=0.9",
    "compile=false",
    "log_every=1",
    "validate_every=4",
    "adversarial_start=0.5",
]
WORKERS = (0, pytest.param(2, marks=pytest.mark.skipif(sys.platform != "linux", reason="forks")))
SETTINGS = (*(f"model.{name}={value}" for name, value in TINY.items()), *RUN)


@pytest.fixture
def images(picture_folder: Path) -> Path:
    """48 smooth images of two classes, and a file that is cut short."""
    whole = (picture_folder / "cats" / "00.png").read_bytes()
    (picture_folder / "cats" / "cut.png").write_bytes(whole[:60])
    return picture_folder


@pytest.fixture
def network(tmp_path: Path, tiny_vgg: VGG) -> Path:
    save_file(tiny_vgg.state_dict(), tmp_path / "vgg.safetensors")
    return tmp_path / "vgg.safetensors"


@pytest.fixture
def train(images: Path, network: Path, tmp_path: Path) -> Callable[..., int]:
    def run(out: str, *changes: str, draw: Any = None, **more: Any) -> int:
        inputs = Inputs(
            "vq-f4", [str(images)], [], tmp_path / out, (*SETTINGS, *changes), loss_network=network
        )
        return train_tokenizer(inputs._replace(**more), Options("cpu", "none", draw))

    return run


def logged(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_trains_and_says_what_it_wrote(
    train: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    drawn: list[Path] = []
    about = ["license=research only"]
    assert train("out", "steps=8", draw=lambda *args: drawn.append(args[-1]), about=about) == 0
    out = tmp_path / "out"
    lines = logged(out)
    assert [line["step"] for line in lines] == list(range(1, 9))
    assert [line["step"] for line in lines if "psnr" in line] == [4, 8]
    assert [line["step"] for line in lines if "discriminator" in line] == [5, 6, 7, 8]
    assert lines[-1]["mse"] < lines[0]["mse"]
    assert 0 < lines[-1]["val_used"] <= 1 <= lines[-1]["perplexity"] <= 64
    assert [path.name for path in drawn] == ["0000004.png", "0000008.png"]
    trained = load_tokenizer(out / "vq.safetensors")
    assert read_metadata(out / "vq.safetensors")["license"] == "research only"
    assert trained.config.codebook_size == 64
    state = torch.load(out / "state.pt", weights_only=True)["parts"]["average"]
    stored = trained.state_dict()
    assert all(
        torch.allclose(stored[name], state[f"module.{name}"], rtol=1e-2, atol=1e-3)
        for name in stored
    )
    told = capsys.readouterr().out
    assert "every 100th of 48 images is held out" in told
    assert "vq.safetensors" in told
    assert train("out", "steps=8") == 0
    assert len(logged(out)) == 8, "nothing was left to do"


def test_two_processes_learn_what_one_does(images: Path, network: Path, tmp_path: Path) -> None:
    sets = [
        part
        for change in (*SETTINGS, "steps=6", "adversarial_start=0")
        for part in ("--set", change)
    ]
    command = ["train", "tokenizer", images, "--config", "vq-f4", "--loss-network", network]
    command += ["--tracker", "none", *sets]  # without GPUs no --device need say so
    for count in (1, 2):
        launching.run([*command, "--out", tmp_path / str(count)], count)
    one, two = (logged(tmp_path / name) for name in ("1", "2"))
    assert len(one) == len(two) == 6
    for first, second in zip(one, two, strict=True):
        for name in ("mse", "perceptual", "commitment", "discriminator", "weight", "used"):
            # the weight is a ratio of two gradients' norms, which takes rounding further
            near = 5e-3 if name == "weight" else 1e-3
            assert second[name] == pytest.approx(first[name], rel=near, abs=2e-5), (
                first["step"],
                name,
            )
        # each sees its share of the validation images
        assert second.get("psnr") == pytest.approx(first.get("psnr"), abs=1e-2)
    ours, theirs = (load_file(tmp_path / name / "vq.safetensors") for name in ("1", "2"))
    apart = torch.cat(
        [(ours[name].float() - theirs[name].float()).flatten().abs() for name in ours]
    )
    # where a gradient is all but zero, as of a bias before a norm, AdamW follows its rounding
    assert apart.mean() < 1e-5
    assert apart.max() < 4e-3, "two steps of lr 0.002"
    assert len(list((tmp_path / "2" / "sheets").iterdir())) == 2


@pytest.mark.parametrize("workers", WORKERS)
def test_streamed_images_are_those_in_memory(
    images: Path, caplog: pytest.LogCaptureFixture, workers: int
) -> None:
    streamed = StreamedImages(open_images([images]), 16, held=7, workers=workers)
    held = load_images([images], 16)
    numbers = [i for i in range(49) if i % 7]
    assert len(streamed) == len(numbers) == 42
    cut = next(i for i in range(49) if "cut" in streamed.source.name(i))
    # the next takes its place
    whole = torch.cat([held.images[:cut], held.images[cut : cut + 1], held.images[cut:]])
    pick = torch.tensor([0, 41, numbers.index(cut), 3, 3])
    assert torch.equal(streamed.pixels(pick), whole[torch.tensor(numbers)[pick]])
    assert streamed.skipped == {cut}
    streamed.pixels(pick)
    assert caplog.text.count("skipped") == 2, "once by each"


@pytest.mark.parametrize("workers", WORKERS)
def test_a_folder_of_damaged_images_is_refused(tmp_path: Path, workers: int) -> None:
    (tmp_path / "cats").mkdir()
    (tmp_path / "cats" / "a.png").write_bytes(b"hello")
    with pytest.raises(
        InvalidInput, match=r"images in a row cannot be read, from .*cats/a\.png on"
    ):
        StreamedImages(open_images([tmp_path]), 16, 0, workers).pixels(torch.tensor([0]))


@pytest.mark.skipif(sys.platform != "linux", reason="forks")
def test_who_reads_ends_with_the_process_that_it_reads_for(images: Path) -> None:
    """Even where that is killed."""
    text = (
        "import multiprocessing, sys, torch\n"
        "from aim.training.data.images import StreamedImages\n"
        "from aim.training.data.sources import open_images\n"
        "streamed = StreamedImages(open_images([sys.argv[1]]), 16, workers=2)\n"
        "streamed.pixels(torch.tensor([0, 1]))\n"
        "print(*(child.pid for child in multiprocessing.active_children()), flush=True)\n"
        "sys.stdin.read()\n"
    )
    process = launching.script(text, images)
    assert process.stdout is not None
    readers = [Path("/proc", pid, "stat") for pid in process.stdout.readline().split()]

    def alive() -> list[Path]:  # who has ended may wait for its parent to hear of it
        found = [path for path in readers if path.exists()]
        return [path for path in found if path.read_text().rpartition(")")[2].split()[0] != "Z"]

    assert len(alive()) == 2
    process.kill()
    process.communicate()
    assert until(lambda: not alive(), 20)


def test_training_streams(train: Callable[..., int], tmp_path: Path) -> None:
    assert train("streamed", "steps=3", stream=True) == 0
    assert train("held", "steps=3") == 0
    assert [line["step"] for line in logged(tmp_path / "streamed")] == [1, 2, 3]
    assert 0 < logged(tmp_path / "streamed")[-1]["mse"] < 1


def test_ahead_keeps_the_order_and_passes_on_errors() -> None:
    batches = Batches(12, 4, seed=0)
    wanted = [next(Batches(12, 4, seed=0)).tolist()]
    ahead = Ahead(batches, lambda pick: pick)
    assert next(ahead).tolist() == wanted[0]
    assert batches.step == 3, "two are ready before they are needed"

    def fail(pick: torch.Tensor) -> torch.Tensor:
        raise InvalidInput("cannot be read")

    with pytest.raises(InvalidInput, match="cannot be read"):
        next(Ahead(batches, fail))


def test_a_loss_network_is_trained_where_none_is_given(
    train: Callable[..., int], tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr("aim.training.train_tokenizer.VGG", lambda classes: VGG(classes, (4, 8)))
    assert train("out", "steps=1", "loss_network_seconds=0.2", loss_network=None) == 0
    path = tmp_path / "out" / "loss_network.safetensors"
    assert len(read_classifier(path).head.weight) == 2
    before = path.read_bytes()
    assert train("out", "steps=2", loss_network=None) == 0
    assert path.read_bytes() == before


def test_a_loss_network_learns_from_smaller_images(
    train: Callable[..., int], tmp_path: Path, monkeypatch: Any
) -> None:
    """Where there are larger ones in memory."""
    monkeypatch.setattr("aim.training.train_tokenizer.VGG", lambda classes: VGG(classes, (4, 8)))
    monkeypatch.setattr("aim.training.train_tokenizer.SEEN_SIZE", 8)
    assert train("out", "steps=1", "loss_network_seconds=0.2", loss_network=None) == 0
    assert read_metadata(tmp_path / "out" / "loss_network.safetensors")["size"] == "8"


def test_weights_in_8_bits(train: Callable[..., int], tmp_path: Path) -> None:
    assert train("out", "steps=1", storage="int8") == 0
    path = tmp_path / "out" / "vq.safetensors"
    assert load_file(path)["decoder.conv_in.weight"].dtype == torch.int8
    small = load_tokenizer(path)
    assert train("out", "steps=1", storage="float32") == 0, "nothing is left but to write"
    exact = load_tokenizer(path)
    apart = small.last_weight - exact.last_weight
    assert 0 < apart.abs().max() <= 0.51 * exact.last_weight.abs().max() / 127


def test_from_a_tokenizer(train: Callable[..., int], tmp_path: Path) -> None:
    train("first", "steps=2")
    start = tmp_path / "first" / "vq.safetensors"
    assert train("second", "steps=2", "decoder_only=true", init=start) == 0
    before, after = load_file(start), load_file(tmp_path / "second" / "vq.safetensors")
    kept = {name for name in before if torch.equal(before[name], after[name])}
    assert {
        name for name in before if name.startswith(("encoder.", "quantize.", "quant_conv."))
    } <= kept
    assert "decoder.conv_out.weight" not in kept
    with pytest.raises(InvalidInput, match="cannot become this one: codebook_size is 100, not 64"):
        train("third", "steps=2", "model.codebook_size=100", init=start)
    assert train("fourth", "steps=2", "model.codebook_size=128", init=start) == 0
    assert load_tokenizer(tmp_path / "fourth" / "vq.safetensors").config.codebook_size == 128


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (("tokenizer=vq-f8",), "tokenizer is 'vq-f8'; it must be one of vq-s, vq-f4, vq-f16"),
        (("colour=red",), "'colour' is no setting of TokenizerRecipe"),
        (("model.colour=red",), "'colour' is no setting of VQConfig"),
        (("batch=many",), "batch is 'many'; it must be a whole number in"),
        (("fine_share=2",), r"fine_share is 2; it must be a number in \[0, 1\]"),
        (("min_scale=0",), r"min_scale is 0; it must be a number in \(0, 1\]"),
        (("model.image_size=63",), r"image_size is 63 .* a multiple of 2"),
        (("model.ch_mult=[]",), "image_size is 16 for 0 levels"),
        (("model.ch=33",), "ch is 33; it must be a multiple of 32"),
    ],
)
def test_settings_are_refused_before_the_first_step(
    train: Callable[..., int], tmp_path: Path, changes: tuple[str, ...], message: str
) -> None:
    with pytest.raises(InvalidInput, match=message):
        train("out", *changes)
    assert not (tmp_path / "out").exists()


def test_images_without_classes_will_do_for_a_given_loss_network(
    train: Callable[..., int], images: Path
) -> None:
    for i, path in enumerate(sorted(images.rglob("*.png"))):
        path.rename(images / f"{i}.png")
    assert train("out", "steps=1") == 0
    with pytest.raises(InvalidInput, match="lies in no class folder"):
        train("other", "steps=1", loss_network=None)


def test_a_loss_network_needs_two_classes(train: Callable[..., int], images: Path) -> None:
    for path in (images / "dogs").iterdir():
        path.rename(images / "cats" / path.name)
    with pytest.raises(
        InvalidInput,
        match="learns from classes, and the images have 1; give a trained one with --loss-network",
    ):
        train("out", loss_network=None)


def test_a_loss_network_by_name(
    train: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_vgg: VGG
) -> None:
    """Of the package lpips; a run does not go on with another one."""
    monkeypatch.setattr("aim.training.train_tokenizer.load_lpips", lambda name: tiny_vgg)
    assert train("out", "steps=1", loss_network="lpips-vgg") == 0
    assert not (tmp_path / "out" / "loss_network.safetensors").exists()
    with pytest.raises(InvalidInput, match="its loss_network is lpips-vgg, not"):
        train("out", "steps=2")


def test_a_judge_is_no_loss_network(train: Callable[..., int], tmp_path: Path) -> None:
    save_file(ResNet(2, (4, 6)).state_dict(), tmp_path / "judge.safetensors")
    with pytest.raises(InvalidInput, match=r"judge\.safetensors is a judge, not a loss network"):
        train("out", loss_network=tmp_path / "judge.safetensors")


def test_validation_images_take_the_classes_of_the_others(images: Path) -> None:
    for stream in (False, True):
        data, held = read_images([str(images)], [str(images)], 16, ALONE, stream)
        assert held.names == ("cats", "dogs")
        assert (len(data), len(held)) == (49 if stream else 48, 48)


@pytest.mark.parametrize(
    ("name", "sizes"), [("vq-f4", (64, 64)), ("vq-f16", (256, 256)), ("vq-s", (64, 128))]
)
def test_shipped_configs(name: str, sizes: tuple[int, int]) -> None:
    found, recipe, config = read_settings(Inputs(name, [], [], Path()))
    assert found == name
    assert (config.image_size, config.output_size, config.grid) == (*sizes, 16)
    assert bool(recipe.fine_share) == (sizes[0] < sizes[1])
    assert recipe.seconds or recipe.epochs
