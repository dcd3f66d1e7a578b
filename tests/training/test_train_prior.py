"""``python -m aim train prior`` as a person runs it: alone, killed and resumed, on two processes,
sharded, from a checkpoint.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import aim
from aim.checkpoint import load_model, load_tokenizer, save_tokenizer
from aim.checkpoint.weights import read_metadata
from aim.config import SamplingParams
from aim.errors import InvalidInput
from aim.models.vq.model import VQ
from aim.training.data.codes import CodeSet
from aim.training.launch import Options
from aim.training.train_prior import Inputs, read_settings, train_prior
from tests.files import assert_equal
from tests.launching import run, start
from tests.waiting import until

pytest.importorskip("accelerate")

TINY = {
    "d_model": 32,
    "n_layer": 2,
    "num_groups": 2,
    "vocab_size": 64,
    "num_tokens": 16,
    "d_state": 16,
    "headdim": 16,
}
PLAIN = [
    "model.token_drop=0",
    "model.mixer_drop=0",
    "compile=false",
    "seconds=0",
    "batch=8",
    "log_every=1",
    "lr=0.003",
    "schedule=linear",
]
QUIET = Options("cpu", "none")
SETTINGS = [*(f"model.{k}={v}" for k, v in TINY.items()), *PLAIN]


def with_codes(folder: Path) -> Path:
    g = torch.Generator().manual_seed(0)
    codes = torch.randint(0, 64, (3, 24, 16), generator=g, dtype=torch.int16)
    CodeSet(codes, torch.arange(24) % 5, (1, 207, 281, 285, 985)).save(folder / "codes.safetensors")
    CodeSet(codes[:1, :8], torch.arange(8) % 5, (1, 207, 281, 285, 985)).save(
        folder / "val.safetensors"
    )
    return folder


@pytest.fixture
def folder(tmp_path: Path, tiny_vq: VQ) -> Path:
    """Codes of five classes and their tokenizer."""
    save_tokenizer(tmp_path / "tok.safetensors", tiny_vq, {})
    return with_codes(tmp_path)


def command(folder: Path, out: str, *changes: str) -> list[object]:
    sets = [part for change in (*SETTINGS, *changes) for part in ("--set", change)]
    paths = ["--codes", folder / "codes.safetensors", "--val", folder / "val.safetensors"]
    plain = ["--device", "cpu", "--tracker", "none"]
    return ["train", "prior", *paths, "--out", folder / out, *plain, *sets]


def log(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def steps(out: Path) -> int:
    return len(log(out)) if (out / "log.jsonl").exists() else 0


def state(out: Path) -> dict[str, Any]:
    return torch.load(out / "state.pt", weights_only=True)


def test_sigkill_and_resume_end_with_the_same_weights_bit_for_bit(folder: Path) -> None:
    drops = ("model.token_drop=0.2", "model.mixer_drop=0.2", "steps=60", "save_every=0")
    run(command(folder, "whole", *drops))
    process = start(command(folder, "killed", *drops), folder / "said")
    assert until(lambda: process.exitcode is not None or steps(folder / "killed") >= 10, 60)
    process.kill()
    process.join()
    assert 10 <= state(folder / "killed")["step"] < 60
    run(command(folder, "killed", *drops))
    whole, killed = (state(folder / name)["parts"] for name in ("whole", "killed"))
    for part in ("model", "average"):
        mine, theirs = (p[part] for p in (whole, killed))
        assert all(torch.equal(mine[k], theirs[k]) for k in mine)
    a, b = (load_file(folder / name / "model.safetensors") for name in ("whole", "killed"))
    assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_sigterm_saves_and_says_how_to_go_on(folder: Path) -> None:
    process = start(command(folder, "out", "steps=100000"), folder / "said")
    assert until(lambda: process.exitcode is not None or steps(folder / "out") > 0, 60)
    process.terminate()
    process.join(60)
    assert process.exitcode == 143
    said = (folder / "said.err").read_text()
    assert f"stopped at step {state(folder / 'out')['step']}, saved in {folder / 'out'}" in said
    assert (folder / "out" / "model.safetensors").exists(), "the average so far"


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 steps of one process."""
    folder = with_codes(tmp_path_factory.mktemp("one"))
    run(command(folder, "one", "steps=12"))
    return folder / "one"


@pytest.mark.parametrize("extra", [(), ("--fsdp",)], ids=["DDP", "FSDP"])
def test_two_processes_train_to_the_loss_of_one(
    folder: Path, one: Path, extra: tuple[str, ...]
) -> None:
    drawn = ["--tokenizer", folder / "tok.safetensors"]
    run([*command(folder, "two", "steps=12", "accumulate=2"), *extra, *drawn], processes=2)
    two = folder / "two"
    assert [path.name for path in (two / "sheets").iterdir()] == ["0000012.png"]
    lines, others = log(one), log(two)
    assert [line["step"] for line in others] == list(range(1, 13))
    for name in ("loss", "norm"):
        assert [line[name] for line in others] == pytest.approx(
            [line[name] for line in lines], rel=2e-4
        )
    assert others[-1]["val"] == pytest.approx(lines[-1]["val"], rel=1e-4)
    mine, theirs = (state(out)["parts"]["average"] for out in (one, two))
    assert all(torch.isfinite(t).all() for t in (*mine.values(), *theirs.values()))
    assert mine.keys() == theirs.keys()
    assert all(torch.allclose(mine[k], theirs[k], atol=1e-4) for k in mine)
    loaded = load_file(two / "model.safetensors")
    assert loaded.keys() == load_file(one / "model.safetensors").keys()


def test_a_sharded_run_resumes(folder: Path) -> None:
    for out, steps in (("whole", 8), ("parts", 4), ("parts", 8)):
        sharded = command(folder, out, f"steps={steps}", "schedule=constant")
        run([*sharded, "--fsdp"], processes=2)
    assert log(folder / "parts")[-1]["loss"] == pytest.approx(
        log(folder / "whole")[-1]["loss"], rel=1e-5
    )


def inputs(folder: Path, out: str, *changes: str, **more: Any) -> Inputs:
    config = more.pop("config", "aim-s")
    return Inputs(
        config,
        folder / "codes.safetensors",
        folder / "val.safetensors",
        folder / out,
        (*SETTINGS, *changes),
        **more,
    )


def test_the_model_loads_with_its_tokenizer_and_is_tuned_for_other_classes(folder: Path) -> None:
    assert (
        train_prior(inputs(folder, "base", "steps=3", tokenizer=folder / "tok.safetensors"), QUIET)
        == 0
    )
    assert (folder / "base" / "tok.safetensors").is_file(), "by its own name"
    base = load_model(folder / "base" / "model.safetensors")
    assert base.model.config.classes == (1, 207, 281, 285, 985)
    old = CodeSet.load(folder / "codes.safetensors")
    CodeSet(old.codes, old.labels % 3, (207, 3, 985)).save(folder / "codes.safetensors")
    CodeSet(old.codes, old.labels % 3, (207, 3, 985)).save(folder / "val.safetensors")
    tuned = inputs(
        folder, "tuned", "steps=2", "lr=0", init=str(folder / "base" / "model.safetensors")
    )
    assert train_prior(tuned, QUIET) == 0
    rows, before = (
        m.cls_embed.embedding_table.weight
        for m in (load_model(folder / "tuned" / "model.safetensors").model, base.model)
    )
    assert (
        torch.equal(rows[0], before[1])
        and torch.equal(rows[2], before[4])
        and torch.equal(rows[3], before[5])
    )
    assert not any(torch.equal(rows[1], row) for row in before)


@pytest.fixture
def images(tmp_path: Path, smooth_images: Callable[..., torch.Tensor]) -> Path:
    """24 images of two classes of one's own."""
    for i, pixels in enumerate(smooth_images(24)):
        path = tmp_path / "images" / ("tea cup", "Cat")[i % 2] / f"{i:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(path)
    return tmp_path / "images"


def test_from_images_with_classes_of_one_s_own(folder: Path, images: Path) -> None:
    of_images: dict[str, Any] = {
        "codes": None,
        "val": None,
        "images": [str(images)],
        "tokenizer": folder / "tok.safetensors",
    }
    new = inputs(folder, "own", "steps=2")._replace(**of_images)
    assert train_prior(new, QUIET) == 0
    found = CodeSet.load(folder / "own" / "codes")
    assert found.codes.shape == (2, 24, 16)
    pipe = aim.load(folder / "own" / "model.safetensors", device="cpu")
    assert pipe.model.config.class_names == ("Cat", "tea cup")
    assert [pipe.resolve(label) for label in ("cat", "tea cup", "Tea Cup (1)", 1, "0")] == [
        0,
        1,
        1,
        1,
        0,
    ]
    assert pipe.title(1) == "tea cup (1)"
    with pytest.raises(
        InvalidInput, match=r"no class 'teacups'; the nearest .*: tea cup \(1\), Cat \(0\)"
    ):
        pipe.resolve("teacups")
    assert pipe.parameters("cat", 0, pipe.sampling)["class_name"] == "Cat"
    pipe.close()
    (images / "Cat").rename(images / "dog")
    new = new._replace(
        out=folder / "tuned",
        init=str(folder / "own" / "model.safetensors"),
        tokenizer=None,
        changes=(*SETTINGS, "steps=1", "lr=0"),
    )
    assert train_prior(new, QUIET) == 0
    rows, before = (
        load_model(folder / n / "model.safetensors").model.cls_embed.embedding_table.weight
        for n in ("tuned", "own")
    )
    assert torch.equal(rows[1:], before[1:])
    assert not torch.equal(rows[0], before[0])


def test_what_is_written_says_what_it_is_told(folder: Path) -> None:
    told = inputs(
        folder,
        "told",
        "steps=1",
        "model.sampling={cfg_scale: 2.5, top_k: 50}",
        tokenizer=folder / "tok.safetensors",
        about=("data=five classes", "license=a=b"),
        storage="int8",
    )
    assert train_prior(told, QUIET) == 0
    for name in ("model", "tok"):
        metadata = read_metadata(folder / "told" / f"{name}.safetensors")
        assert (metadata["data"], metadata["license"]) == ("five classes", "a=b")
    path = folder / "told" / "model.safetensors"
    assert read_metadata(path)["storage"] == "int8"
    given, kept = (folder / name / "tok.safetensors" for name in ("", "told"))
    assert_equal(load_tokenizer(kept), load_tokenizer(given))
    assert read_metadata(kept)["version"] == read_metadata(given)["version"]
    assert load_model(path).model.config.sampling == SamplingParams(cfg_scale=2.5, top_k=50)
    tuned = inputs(folder, "tuned", "steps=1", "model.sampling={top_p: 0.5}", init=str(path))
    assert train_prior(tuned, QUIET) == 0
    again = load_model(folder / "tuned" / "model.safetensors")
    assert_equal(again.tokenizer, load_tokenizer(kept))
    assert again.model.config.sampling == SamplingParams(top_p=0.5)


def test_a_tokenizer_s_file_is_not_overwritten_by_the_model_s(folder: Path) -> None:
    (folder / "tok.safetensors").rename(folder / "model.safetensors")
    with pytest.raises(InvalidInput, match=r"called model\.safetensors, as the model's; rename it"):
        train_prior(inputs(folder, "out", tokenizer=folder / "model.safetensors"), QUIET)


def test_images_need_a_tokenizer(folder: Path, images: Path) -> None:
    bare = inputs(folder, "own", "steps=2")._replace(codes=None)
    for more, message in (
        ({}, "nothing to learn from; give --codes, or --images"),
        ({"images": [str(images)]}, "name one with --tokenizer"),
    ):
        with pytest.raises(InvalidInput, match=message):
            train_prior(bare._replace(**more), QUIET)


def test_codes_of_another_tokenizer_are_refused(folder: Path) -> None:
    codes = CodeSet.load(folder / "codes.safetensors")
    codes._replace(tokenizer="0123456789ab", codebook_size=64).save(folder / "codes.safetensors")
    with pytest.raises(InvalidInput, match="made by another tokenizer"):
        train_prior(inputs(folder, "out", "steps=1", tokenizer=folder / "tok.safetensors"), QUIET)
    codes._replace(codebook_size=128).save(folder / "codes.safetensors")
    with pytest.raises(
        InvalidInput, match="training codes are of a codebook of 128; the model's has 64"
    ):
        train_prior(inputs(folder, "out", "steps=1"), QUIET)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("lr=fast", "lr is 'fast'"),
        ("speed=3", "'speed' is no setting of PriorRecipe; there are accumulate, batch"),
        ("model=aim-z", "model is 'aim-z'; it must be one of aim-s"),
        ("model.depth=3", "'depth' is no setting of AiMConfig"),
        ("model.num_classes=3", "comes from the codes"),
        ("lr", "'lr' is not name=value"),
        ("model.sampling={cfg_scale: -1}", "cfg_scale is -1"),
        ("model.sampling={cfg_scal: 1}", "unknown in the configuration: cfg_scal"),
        ("batch=0", "batch is 0; it must be a whole number in [1, 1048576]"),
        ("lr=-1", "lr is -1; it must be a number in [0, 100]"),
        ("lr=.inf", "lr is inf; it must be a number in [0, 100]"),
        ("lr=.nan", "lr is nan; it must be a number in [0, 100]"),
        ("ema=2", "ema is 2; it must be a number in [0, 1)"),
        ("class_drop=7", "class_drop is 7; it must be a number in [0, 1]"),
        ("steps=-3", "steps is -3; it must be a whole number in [0, 1000000000]"),
        ("clip=0", "clip is 0; it must be a number in [1e-09, 1073741824]"),
        ("log_every=0", "log_every is 0; it must be a whole number in [1, 1000000000]"),
        ("schedule=step", "schedule is 'step'; it must be one of cosine, linear, constant"),
        ("compile=perhaps", "compile is 'perhaps'; it must be true or false"),
        ("model.d_model=65", "headdim 16 does not divide expand * d_model = 130"),
        ("model.vocab_size=32", "the model's codebook has 32: take its tokenizer"),
        ("model.num_tokens=64", "codes are 16 an image; the model draws 64"),
        ("accumulate=3", "batch is 8; it must be a multiple of 1 processes times accumulate = 3"),
    ],
)
def test_what_does_not_fit_is_refused_before_the_first_step(
    folder: Path, change: str, message: str
) -> None:
    with pytest.raises(InvalidInput) as error:
        train_prior(inputs(folder, "out", "steps=1", change), QUIET)
    assert message in str(error.value)
    assert not (folder / "out" / "state.pt").exists()


@pytest.mark.parametrize(
    "name", ["aim-s", "aim-b", "aim-l", "aim-xl", "aim-1b", "gpt-s", "gpt-b", "gpt-l", "gpt-xl"]
)
def test_shipped_configs_are_settings_of_their_models(name: str) -> None:
    model, recipe, of_model = read_settings(Inputs(name, Path(), None, Path()))
    assert model == name
    assert (
        recipe.weight_decay == 0.05
        and (recipe.beta1, recipe.beta2) == (0.9, 0.95)
        and recipe.class_drop == 0.1
    )
    if not name.endswith("-s"):
        assert recipe.rate == pytest.approx(1e-4 * recipe.batch / 256)
        assert recipe.epochs == (350 if name in ("aim-xl", "aim-1b") else 300)
        assert set(of_model.values()) == {0.1}, "LlamaGen's dropout"
    else:
        assert of_model.pop("sampling") == {"cfg_scale": 4.0}, "as the card says"
    own = {"mixer_drop"} if name.startswith("aim") else {"resid_drop", "ffn_drop"}
    assert of_model.keys() == {"token_drop", *own}


def test_a_model_is_tuned_for_another_size(
    folder: Path, tiny_vq: VQ, capsys: pytest.CaptureFixture[str]
) -> None:
    base = inputs(folder, "base", "steps=1", tokenizer=folder / "tok.safetensors")
    assert train_prior(base, QUIET) == 0
    large = VQ(dataclasses.replace(tiny_vq.config, image_size=32))
    large.load_state_dict(tiny_vq.state_dict())
    save_tokenizer(folder / "large.safetensors", large, {})
    codes = CodeSet.load(folder / "codes.safetensors")
    codes._replace(codes=codes.codes.repeat(1, 1, 4)).save(folder / "large-codes.safetensors")
    own = {"init": str(folder / "base"), "tokenizer": folder / "large.safetensors"}
    given = inputs(folder, "large", "steps=1", **own)
    given = given._replace(codes=folder / "large-codes.safetensors", val=None)
    assert train_prior(given, QUIET) == 0
    assert "draws 16 codes an image, these are 64" in capsys.readouterr().out
    assert load_model(folder / "large").model.config.num_tokens == 64


def test_models_are_written_while_it_trains(folder: Path) -> None:
    seen: list[list[str]] = []

    def look(run: Any) -> None:
        seen.append(sorted(path.stem for path in (folder / "out").glob("model*")))

    rules = ("steps=4", "save_every=0", "keep_last=1", "keep_every=3", "keep_best=true")
    given = inputs(folder, "out", *rules, tokenizer=folder / "tok.safetensors")
    assert train_prior(given, QUIET._replace(on_step=look)) == 0
    assert seen[1] == ["model", "model-0000002"]
    kept = ["model", "model-0000003", "model-0000004", "model-best"]
    assert sorted(path.stem for path in (folder / "out").glob("model*")) == kept
    assert load_model(folder / "out" / "model-0000003.safetensors").name == "model-0000003"


def test_another_run_in_the_folder_is_refused_and_nothing_in_it_touched(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = inputs(folder, "out", "steps=2", tokenizer=folder / "tok.safetensors")
    assert train_prior(mine, QUIET) == 0
    out = folder / "out"
    before = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
    codes = CodeSet.load(folder / "codes.safetensors")
    codes._replace(classes=(), names=("a", "b", "c", "d", "e")).save(folder / "own.safetensors")
    codes._replace(codes=(codes.codes + 1) % 64).save(folder / "other.safetensors")
    for change, name in (
        ({"codes": folder / "other.safetensors"}, "data"),
        ({"codes": folder / "own.safetensors", "val": None}, "data|classes"),
        ({"init": str(out)}, "init"),
        ({"changes": (*mine.changes, "seed=1")}, "seed"),
        ({"changes": (*mine.changes, "model.n_layer=3")}, "model.n_layer"),
    ):
        with pytest.raises(InvalidInput, match=f"out holds another run: its ({name}) is"):
            train_prior(mine._replace(**change), QUIET)
        after = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
        assert after == before
    capsys.readouterr()
    # the config that it wrote says all of it but data and budget
    again = mine._replace(config=str(out / "config.json"), changes=("steps=3", "lr=0.001"))
    assert train_prior(again, QUIET) == 0
    assert "steps is 3, it was 2; lr is 0.001, it was 0.003" in capsys.readouterr().out
    assert [line["step"] for line in log(out) if "loss" in line] == [1, 2, 3]


def test_official_config() -> None:
    model, recipe, of_model = read_settings(Inputs("aim-b-official", Path(), None, Path()))
    assert (model, of_model, recipe.schedule, recipe.ema) == ("aim-b", {}, "linear", 0)
    assert recipe.rate == pytest.approx(8e-4)


def test_an_unknown_config_is_named(folder: Path) -> None:
    with pytest.raises(
        InvalidInput, match=r"no training config 'aim-q'; take one of aim-1b, aim-b"
    ):
        train_prior(inputs(folder, "out", config="aim-q"), QUIET)
