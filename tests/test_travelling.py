"""Models that are exported and pushed: round trips tensor by tensor, what a layout cannot hold, and
a hub that fails in every way.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import nn

import aim
from aim.checkpoint import export, llamagen, load_model, official, push, save_model, save_tokenizer
from aim.checkpoint.describe import describe
from aim.checkpoint.hub import brief
from aim.config import SamplingParams
from aim.errors import AimError, CheckpointError, HubError, InvalidInput
from aim.models.prior import Prior
from aim.models.vq.model import VQ
from tests.cli.runner import Cli
from tests.files import assert_equal
from tests.loopback import Hub, nobody_listens, served
from tests.tiny import random_gpt, random_model

REPO, TOKEN = "someone/mine", "hf_secretsecretsecretsecretsecretsecre"
PLAIN: dict[str, Any] = {"classes": (), "sampling": SamplingParams()}


def gpt(**changes: Any) -> Prior:
    return random_gpt(**{**PLAIN, "n_head": 1, "multiple_of": 256, **changes})


def aim_model(**changes: Any) -> Prior:
    return random_model(**{**PLAIN, "position_offset": 1, **changes})


@pytest.fixture(autouse=True)
def tiny_layouts(tiny_vq: VQ, monkeypatch: pytest.MonkeyPatch) -> None:
    """The official tokenizer is tiny here, and LlamaGen has a tiny prior."""
    monkeypatch.setattr(llamagen, "VQ_F16", tiny_vq.config)
    monkeypatch.setattr(official, "VQ_F16", tiny_vq.config)
    monkeypatch.setitem(llamagen.SIZES, (64, 2, 1), "T")


@pytest.fixture
def source(tmp_path: Path, tiny_vq: VQ) -> Callable[..., Path]:
    """Write a prior of this package's; its file."""

    def write(model: Prior, dtype: torch.dtype = torch.float32, **about: str) -> Path:
        folder = tmp_path / "source"
        save_tokenizer(folder / "vq.safetensors", tiny_vq, {}, dtype)
        metadata = {"tokenizer": "vq.safetensors", **about}
        save_model(folder / "mine.safetensors", model, metadata, dtype)
        return folder / "mine.safetensors"

    return write


def same(one: nn.Module, other: nn.Module) -> None:
    assert one.config == other.config
    assert_equal(one, other)


@pytest.mark.parametrize(
    "way",
    [
        ("ours", aim_model, ["official", "ours", "official"]),
        ("ours of its own", random_model, ["ours", "ours"]),
        ("theirs", gpt, ["llamagen", "ours", "llamagen"]),
        ("ours of theirs", random_gpt, ["ours"]),
    ],
    ids=lambda way: way[0],
)
def test_round_trips_are_equal_tensor_by_tensor(
    source: Callable[..., Path], tmp_path: Path, tiny_vq: VQ, way: tuple[str, Any, list[str]]
) -> None:
    model = way[1]()
    where: str | Path = source(model)
    for turn, layout in enumerate(way[2]):
        export(where, tmp_path / str(turn), layout)
        where = tmp_path / str(turn)
        if layout == "llamagen":
            where = where / "c2i_T_16.pt"
        loaded = load_model(where)
        same(loaded.model, model)
        same(loaded.tokenizer, tiny_vq)


def test_llamagen_s_file_keeps_its_size_under_any_name(
    source: Callable[..., Path], tmp_path: Path
) -> None:
    export(source(gpt()), tmp_path / "out", "llamagen")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "c2i_T_16.pt",
        llamagen.TOKENIZER,
    }
    content = torch.load(tmp_path / "out" / "c2i_T_16.pt", weights_only=True)
    assert content.keys() == {"model"}
    assert content["model"]["freqs_cis"].shape == (17, 32, 2)
    tokenizer = torch.load(tmp_path / "out" / llamagen.TOKENIZER, weights_only=True)
    assert tokenizer["model"]["quantize.codebook_used"].shape == (65536,)


@pytest.mark.parametrize("storage", [torch.int8, torch.bfloat16, torch.float32])
def test_our_own_file_is_copied_to_the_bit(
    source: Callable[..., Path], tmp_path: Path, storage: torch.dtype
) -> None:
    path = source(random_model(), storage, license="none at all")
    export(path, tmp_path / "out")
    for name, copy in (("mine", "model"), ("vq", "tokenizer")):
        with (
            safe_open(path.with_name(f"{name}.safetensors"), "pt") as one,
            safe_open(tmp_path / "out" / f"{copy}.safetensors", "pt") as other,
        ):
            assert one.keys() == other.keys()
            assert all(torch.equal(one.get_tensor(k), other.get_tensor(k)) for k in one.keys())  # noqa: SIM118
    assert load_model(tmp_path / "out").version == load_model(path).version
    told = describe(tmp_path / "out")
    assert told["about"]["license"] == "none at all"
    assert told["about"]["tokenizer"] == "tokenizer.safetensors"


@pytest.mark.parametrize("layout", ["ours", "official"])
def test_what_is_stored_can_be_smaller(
    source: Callable[..., Path], tmp_path: Path, layout: str
) -> None:
    model = aim_model()
    export(source(model), tmp_path / "out", layout, "bfloat16")
    loaded = load_model(tmp_path / "out").model.state_dict()
    kept = model.to_dtype(torch.bfloat16).state_dict()
    assert all(torch.equal(loaded[name], tensor.float()) for name, tensor in kept.items())
    assert {tensor.dtype for tensor in kept.values()} == {torch.float32, torch.bfloat16}


WRONG: dict[str, tuple[Callable[[], Prior], str, str]] = {
    "a Transformer": (gpt, "official", "a Transformer"),
    "a Mamba": (aim_model, "llamagen", "a Mamba"),
    "position": (lambda: aim_model(position_offset=0), "official", "position_offset 0"),
    "classes": (
        lambda: aim_model(classes=(1, 2, 3, 4, 5)),
        "official",
        "no place for classes; take",
    ),
    "theirs, classes": (lambda: gpt(classes=(1, 2, 3, 4, 5)), "llamagen", "no place for classes"),
    "names": (
        lambda: gpt(class_names=tuple("abcde")),
        "llamagen",
        "no place for class_names; take 'ours'",
    ),
    "a width": (lambda: gpt(multiple_of=32), "llamagen", "multiple_of 32"),
    "a base": (lambda: gpt(rope_base=100.0), "llamagen", r"rope_base 100\.0"),
    "a size": (lambda: gpt(n_layer=3), "llamagen", "3 layers of 64 with 1 heads"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_a_layout_cannot_hold_is_refused(
    source: Callable[..., Path], tmp_path: Path, wrong: str
) -> None:
    make, layout, message = WRONG[wrong]
    with pytest.raises(InvalidInput, match=message) as caught:
        export(source(make()), tmp_path / "out", layout)
    assert f"the layout {layout!r} cannot hold mine" in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("make", "layout"), [(aim_model, "official"), (gpt, "llamagen")])
def test_another_tokenizer_is_refused(
    source: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    tiny_vq: VQ,
    make: Callable[[], Prior],
    layout: str,
) -> None:
    other = dataclasses.replace(tiny_vq.config, codebook_dim=4)
    monkeypatch.setattr(official if layout == "official" else llamagen, "VQ_F16", other)
    with pytest.raises(InvalidInput, match="a tokenizer other than VQ-"):
        export(source(make()), tmp_path / "out", layout)


def test_bad_input_is_refused_before_anything_is_written(
    source: Callable[..., Path], tmp_path: Path
) -> None:
    path = source(aim_model())
    for arguments, message in {
        ("gguf",): "layout is 'gguf'; it must be one of ours, official, llamagen",
        ("official", "int8"): "storage is int8, which only the layout 'ours' has",
        ("ours", "float16"): "storage is float16; it must be one of float32, bfloat16, int8",
    }.items():
        with pytest.raises(InvalidInput, match=message):
            export(path, tmp_path / "out", *arguments)
    assert not (tmp_path / "out").exists()
    with pytest.raises(InvalidInput, match="source is there already; give a folder that is new"):
        export(path, path.parent)


def test_the_command_says_what_it_wrote(
    source: Callable[..., Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    cli = Cli(capfd)
    assert cli("export", source(gpt()), tmp_path / "out", "--layout", "llamagen") == 0
    assert cli.out.splitlines() == [
        str(tmp_path / "out" / name) for name in ("c2i_T_16.pt", "vq_ds16_c2i.pt")
    ]
    assert cli("export", "aim-s", tmp_path / "out2", "--layout", "official") == 2
    assert "no place for classes, position_offset 0, a tokenizer other than VQ-f16" in cli.err
    assert len(cli.err.splitlines()) == 1


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """An empty hub that lets the bearer of a token write; nothing that is printed or raised may
    name it.
    """
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with served(
        Hub("", {}, "model.safetensors", token=TOKEN), tmp_path / "cache", monkeypatch
    ) as hub:
        yield hub


@pytest.fixture(autouse=True)
def no_token_is_told(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> Iterator[None]:
    caplog.set_level(logging.DEBUG)
    yield
    out, err = capfd.readouterr()
    assert TOKEN not in out + err + caplog.text


def fails(message: str, *arguments: Any) -> None:
    with pytest.raises(AimError, match=message) as caught:
        push(*arguments)
    assert TOKEN not in str(caught.value)


@pytest.mark.parametrize(
    ("make", "layout"),
    [(random_model, "ours"), (random_gpt, "ours"), (aim_model, "official")],
    ids=["AiM", "Transformer", "official"],
)
def test_what_is_pushed_is_what_is_loaded(
    hub: Hub, source: Callable[..., Path], make: Callable[[], Prior], layout: str
) -> None:
    path = source(make(), torch.float32, data="squares | circles")
    assert push(path, REPO, layout) == f"{hub.url}/{REPO}"
    assert hub.repo == REPO
    assert hub.files.keys() == {
        "README.md",
        ".gitattributes",
        "config.json",
        "model.safetensors",
    } - {".gitattributes"} | ({"tokenizer.safetensors"} if layout == "ours" else set())
    pipe = aim.load(REPO, device="cpu", dtype="float32")
    mine = load_model(path)
    same(pipe.model, mine.model)
    same(pipe.tokenizer, mine.tokenizer)
    assert pipe.name == REPO
    assert layout == "official" or pipe.version == mine.version
    pipe.close()
    card = hub.files["README.md"].decode()
    assert f'aim.load("{REPO}")' in card
    assert f"| version | {mine.version} |" in card
    assert "| data | squares \\| circles |" in card
    assert "license" not in card.partition("---\n\n")[0]


def test_the_card_s_license(hub: Hub, source: Callable[..., Path]) -> None:
    push(source(random_model(), license="ask me"), REPO)
    assert "license: other\n" in hub.files["README.md"].decode()
    assert "| license | ask me |" in hub.files["README.md"].decode()
    push(source(random_model()), REPO, "ours", "int8", "cc-by-nc-4.0")
    assert "license: cc-by-nc-4.0\n" in hub.files["README.md"].decode()
    assert describe(REPO)["kind"] == "AiM"
    fails("license is 'do: what'", source(random_model()), REPO, "ours", None, "do: what")


def test_a_new_version_takes_the_place_of_the_old(hub: Hub, source: Callable[..., Path]) -> None:
    push(source(aim_model()), REPO, "official")
    push(source(gpt(seed=1)), REPO)
    assert_equal(load_model(REPO).model, gpt(seed=1))


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.safetensors"])
def test_a_file_that_the_repository_lacks_is_named(
    hub: Hub, source: Callable[..., Path], name: str
) -> None:
    push(source(random_gpt()), REPO)
    del hub.files[name]
    with pytest.raises(HubError, match=f"{REPO} has no {name}: it is not in"):
        load_model(REPO)


def test_a_configuration_that_is_none_is_named(hub: Hub, source: Callable[..., Path]) -> None:
    push(source(random_gpt()), REPO)
    hub.files["config.json"] = b"{"
    with pytest.raises(CheckpointError, match=r"config\.json: the configuration is not JSON"):
        load_model(REPO)


def test_a_download_that_is_cut_resumes_or_is_told(
    hub: Hub, source: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    push(source(random_gpt()), REPO)
    hub.cuts = 10**6
    with pytest.raises(HubError, match=f"the download of {REPO} from {hub.url} broke off"):
        load_model(REPO)
    hub.cuts = 1
    assert_equal(load_model(REPO).model, random_gpt())
    monkeypatch.setenv("HF_ENDPOINT", nobody_listens())
    assert_equal(load_model(REPO).model, random_gpt())


def test_an_upload_that_is_cut_is_tried_again_or_told(
    hub: Hub, source: Callable[..., Path]
) -> None:
    path = source(random_gpt())
    hub.cut_uploads = 10**6
    fails(f"{REPO} was not written to the hub at {hub.url} .*try again; it has all", path, REPO)
    assert hub.files == {}
    hub.cut_uploads = 1
    push(path, REPO)
    assert_equal(load_model(REPO).model, random_gpt())
    before = dict(hub.files)
    hub.refuses_commit = True
    fails("was not written to the hub", source(random_gpt(1)), REPO)
    assert hub.files == before


def test_who_may_not_write_is_told_how_to(
    hub: Hub, source: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = source(random_gpt())
    hub.token = "another"
    fails(f"does not let you write to {REPO}: log in with `hf auth login`", path, REPO)
    hub.token = TOKEN
    hub.status = 403
    fails(f"does not let you write to {REPO}", path, REPO)
    hub.status = 503
    fails("503", path, REPO)
    monkeypatch.setenv("HF_TOKEN", "")
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", "/nowhere/token")
    fails("log in with `hf auth login`", path, REPO)
    monkeypatch.setenv("HF_ENDPOINT", nobody_listens())
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    fails("was not written to the hub at http", path, REPO)
    assert hub.files == {}


def test_an_error_that_quotes_the_token_is_told_without(hub: Hub) -> None:
    assert brief(ValueError(f"Bearer {TOKEN} is wrong\nmore")) == "Bearer ... is wrong"


@pytest.mark.parametrize("repo", ["mine", "a/b/c", "../x", "some one/mine", ""])
def test_a_name_that_is_no_repository_s(hub: Hub, repo: str) -> None:
    fails("it must be owner/name", "aim-s", repo)
    assert hub.requests == []


def test_nothing_is_sent_of_what_cannot_be_held(hub: Hub, source: Callable[..., Path]) -> None:
    fails("cannot hold mine", source(random_gpt()), REPO, "official")
    fails("says nothing of its models; take 'ours'", source(gpt()), REPO, "llamagen")
    assert hub.requests == []


def test_the_command(
    hub: Hub, source: Callable[..., Path], capfd: pytest.CaptureFixture[str]
) -> None:
    cli = Cli(capfd)
    assert cli("push", source(random_gpt()), REPO, "--private", "--license", "mit") == 0
    assert cli.out.splitlines()[-1] == f"{hub.url}/{REPO}"
    assert cli("info", REPO) == 0
    told = json.loads(cli.out.splitlines()[-1])
    assert (told["kind"], told["name"]) == ("Transformer", REPO)
    hub.token = "another"
    assert cli("push", source(random_gpt()), REPO) == 2
    assert cli.err.splitlines()[-1].startswith("error: the hub at")
    assert TOKEN not in cli.out + cli.err
