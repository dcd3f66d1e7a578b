"""Files as others leave them: in parts, under wrapped names, as pointers, behind addresses, and
those that do not say what they hold; each is read, or named with the way out.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from aim.checkpoint import Told, export, export_official, llamagen, load_model
from aim.checkpoint.address import named
from aim.checkpoint.describe import describe
from aim.checkpoint.shards import bare
from aim.config import MODELS, SamplingParams
from aim.errors import CheckpointError, HubError, InvalidInput
from aim.models.aim.model import AiM
from aim.models.gpt.model import GPT
from aim.models.vq.model import VQ
from tests.cli.runner import Cli
from tests.files import assert_equal
from tests.loopback import Hub, served
from tests.tiny import random_gpt, random_model

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 443000000\n"
INDEX, WEIGHTS, REPO = "model.safetensors.index.json", "model.safetensors", "someone/parts"


def gpt(seed: int = 0, **changes: Any) -> GPT:
    plain = {"n_head": 2, "multiple_of": 256, "classes": (), "sampling": SamplingParams()}
    return random_gpt(seed, **{**plain, **changes})


def aim_model() -> AiM:
    return random_model(position_offset=1)


def cut(folder: Path, parts: int = 3) -> None:
    """Divide a folder's model.safetensors, with an index, as others do."""
    tensors = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    names, weight_map = sorted(tensors), {}
    for i in range(parts):
        file = f"model-{i + 1:05d}-of-{parts:05d}.safetensors"
        save_file({name: tensors[name] for name in names[i::parts]}, folder / file)
        weight_map.update(dict.fromkeys(names[i::parts], file))
    index = {"metadata": {"total_size": 1}, "weight_map": weight_map}
    (folder / INDEX).write_text(json.dumps(index))


@pytest.fixture
def official(tmp_path: Path, tiny_vq: VQ) -> Path:
    """A model in AiM's layout, in three parts."""
    export_official(aim_model(), tiny_vq, tmp_path / "official")
    cut(tmp_path / "official")
    return tmp_path / "official"


@pytest.fixture
def theirs(tmp_path: Path, tiny_vq: VQ, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with LlamaGen's tokenizer."""
    monkeypatch.setattr(llamagen, "VQ_F16", tiny_vq.config)
    folder = tmp_path / "theirs"
    folder.mkdir()
    torch.save({"model": tiny_vq.state_dict()}, folder / llamagen.TOKENIZER)
    return folder


class TestParts:
    def test_they_are_one_model(self, official: Path, tiny_vq: VQ) -> None:
        loaded = load_model(official)
        assert_equal(loaded.model, aim_model())
        assert_equal(loaded.tokenizer, tiny_vq)
        with pytest.raises(CheckpointError, match="give the folder that holds it"):
            load_model(official / INDEX)
        told = describe(official)
        assert told["layout"] == "official"
        assert told["files"] == [*(f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)),
                                 "config.json"]  # fmt: skip
        assert told["bytes"] == sum((official / name).stat().st_size for name in told["files"])

    def test_the_version_follows_every_part(self, official: Path) -> None:
        first = load_model(official).version
        assert load_model(official).version == first
        last = official / "model-00003-of-00003.safetensors"
        save_file({name: tensor + 1 for name, tensor in load_file(last).items()}, last)
        assert load_model(official).version != first

    def test_llamagen_s_too(self, theirs: Path, tiny_vq: VQ) -> None:
        save_file(gpt().state_dict(), theirs / WEIGHTS)
        told = Told(image_size=16, heads=2)
        whole = load_model(theirs, told=told)
        cut(theirs)
        for source in (theirs, theirs / INDEX):
            loaded = load_model(source, told=told)
            assert_equal(loaded.model, gpt())
            assert loaded.version != whole.version
        save_file(tiny_vq.state_dict(), theirs / "vq_ds16_c2i.safetensors")
        (theirs / llamagen.TOKENIZER).unlink()
        assert_equal(load_model(theirs, told=told).tokenizer, tiny_vq)
        assert describe(theirs, told)["files"][-1] == "vq_ds16_c2i.safetensors"

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda f, i: (f / "model-00002-of-00003.safetensors").unlink(),
             r"there is no file .*model-00002-of-00003\.safetensors"),
            (lambda f, i: (f / "model-00002-of-00003.safetensors").write_bytes(POINTER),
             r"model-00002-of-00003\.safetensors is a git-lfs pointer"),
            (lambda f, i: (f / "model-00001-of-00003.safetensors").write_bytes(b"cut"),
             r"model-00001-of-00003\.safetensors cannot be read as a safetensors file"),
            (lambda f, i: i["weight_map"].popitem(), r"holds .*, which model\.safetensors\.index"),
            (lambda f, i: i["weight_map"].update(more="model-00001-of-00003.safetensors"),
             r"does not hold more, which model\.safetensors\.index\.json names there"),
            (lambda f, i: i["weight_map"].update(more="../../secret"),
             r"names '\.\./\.\./secret', which is no file in its folder"),
            (lambda f, i: i["weight_map"].update(more=3), "names 3, which is no file"),
            (lambda f, i: i.pop("weight_map"), "has no weight_map"),
            (lambda f, i: i.update(weight_map=[]), "has no weight_map"),
        ],
    )  # fmt: skip
    def test_what_does_not_fit_together_is_named(
        self, official: Path, change: Callable[[Path, Any], object], message: str
    ) -> None:
        index = json.loads((official / INDEX).read_text())
        change(official, index)
        (official / INDEX).write_text(json.dumps(index))
        with pytest.raises(CheckpointError, match=message):
            load_model(official)

    def test_an_index_that_is_none(self, official: Path) -> None:
        (official / INDEX).write_text("{")
        with pytest.raises(CheckpointError, match=r"index\.json: the configuration is not JSON"):
            load_model(official)
        (official / INDEX).write_bytes(POINTER)
        with pytest.raises(CheckpointError, match=r"index\.json is a git-lfs pointer"):
            load_model(official)

    @pytest.fixture
    def hub(self, official: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
        files = {path.name: path.read_bytes() for path in official.iterdir()}
        weights = "model-00002-of-00003.safetensors"
        with served(Hub(REPO, files, weights), tmp_path / "cache", monkeypatch) as hub:
            yield hub

    def test_from_a_hub(self, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
        hub.cuts = 10**6
        with pytest.raises(HubError, match=f"the download of {REPO} from .* broke off"):
            load_model(REPO)
        hub.cuts = 1
        assert_equal(load_model(REPO).model, aim_model())
        assert [hub.downloads(name) for name in hub.files if "00001" in name] == [1]
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        assert_equal(load_model(REPO).model, aim_model())
        assert describe(REPO)["layout"] == "official"

    @pytest.mark.parametrize("name", [INDEX, "model-00003-of-00003.safetensors"])
    def test_what_the_hub_lacks_is_named(
        self, hub: Hub, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        lacks = hub.files.pop(name)
        with pytest.raises(HubError, match=f"{REPO} has no {name.partition('.index')[0]}: it is"):
            load_model(REPO)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        with pytest.raises(HubError, match="unset HF_HUB_OFFLINE"):
            load_model(REPO)  # a part of a release is no copy
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        hub.files[name] = lacks
        assert_equal(load_model(REPO).model, aim_model())


class TestNames:
    @pytest.mark.parametrize("form", ["module.{}", "_orig_mod.{}", "module._orig_mod.module.{}"])
    def test_wrappers_are_left_out(self, official: Path, form: str) -> None:
        for part in official.glob("*.safetensors"):
            save_file({form.format(k): v for k, v in load_file(part).items()}, part)
        index = json.loads((official / INDEX).read_text())
        wrapped = {form.format(k): v for k, v in index["weight_map"].items()}
        (official / INDEX).write_text(json.dumps({"weight_map": wrapped}))
        assert_equal(load_model(official).model, aim_model())

    def test_only_where_all_names_have_them(self) -> None:
        some = ["module.a", "b"]
        assert bare(Path("x"), some) == {name: name for name in some}
        inside = ["layers.0._orig_mod.w", "_fsdp_wrapped_module.layers.1.w"]
        assert list(bare(Path("x"), inside)) == ["layers.0.w", "layers.1.w"]
        assert bare(Path("x"), []) == {}

    def test_a_name_that_would_be_there_twice(self) -> None:
        with pytest.raises(CheckpointError, match="x holds a twice, once with a prefix"):
            bare(Path("x"), ["a", "_orig_mod.a"])


class TestPointers:
    @pytest.mark.parametrize("name", ["mine.pt", "mine.safetensors", "model.safetensors"])
    def test_a_pointer_is_told(self, tmp_path: Path, name: str) -> None:
        (tmp_path / name).write_bytes(POINTER)
        with pytest.raises(
            CheckpointError, match=r"is a git-lfs pointer, not the file .* run `git lfs pull`"
        ):
            load_model(tmp_path / name)

    def test_so_is_a_tokenizer_s(self, theirs: Path) -> None:
        torch.save(gpt().state_dict(), theirs / "mine.pt")
        (theirs / llamagen.TOKENIZER).write_bytes(POINTER)
        with pytest.raises(CheckpointError, match=rf"{llamagen.TOKENIZER} is a git-lfs pointer"):
            load_model(theirs / "mine.pt", told=Told(16, 2))


class TestAsked:
    """What a PyTorch file does not say is asked for."""

    def write(self, folder: Path, content: object) -> Path:
        torch.save(content, folder / "renamed.pt")
        return folder / "renamed.pt"

    def test_the_size(self, theirs: Path) -> None:
        path = self.write(theirs, gpt().state_dict())
        with pytest.raises(CheckpointError, match=r"renamed\.pt does not say how large .*--image"):
            load_model(path)
        for size in (16, 32):
            loaded = load_model(path, told=Told(size, 2))
            assert loaded.model.config.num_tokens == (size // 4) ** 2
            assert loaded.tokenizer.config.image_size == size
        with pytest.raises(CheckpointError, match=r"is for images of 30 pixels"):
            load_model(path, told=Told(30, 2))

    def test_the_heads(self, theirs: Path) -> None:
        path = self.write(theirs, gpt().state_dict())
        with pytest.raises(CheckpointError, match="2 layers of 64 are no size that LlamaGen names"):
            load_model(path, told=Told(16))
        assert load_model(path, told=Told(16, 2)).model.config.n_head == 2
        with pytest.raises(CheckpointError, match="n_head is 0"):
            load_model(path, told=Told(16, 0))

    @pytest.mark.parametrize("grid", [4, 6])
    def test_a_rotary_table_says_both(self, theirs: Path, grid: int) -> None:
        path = self.write(
            theirs, {**gpt().state_dict(), "freqs_cis": torch.ones(1 + grid**2, 16, 2)}
        )
        loaded = load_model(path)
        assert (loaded.model.config.num_tokens, loaded.model.config.n_head) == (grid**2, 2)
        assert load_model(path, told=Told(4 * grid, 2)).version == loaded.version
        with pytest.raises(CheckpointError, match=f"has an image size of {4 * grid}, not of 64"):
            load_model(path, told=Told(64))
        with pytest.raises(CheckpointError, match="has a number of heads of 2, not of 4"):
            load_model(path, told=Told(heads=4))

    @pytest.mark.parametrize(
        "shape", [(0, 16, 2), (17, 0, 2), (16, 16, 2), (17, 32), (17, 16, 3), ()]
    )
    def test_a_table_of_no_grid(self, theirs: Path, shape: tuple[int, ...]) -> None:
        path = self.write(theirs, {**gpt().state_dict(), "freqs_cis": torch.ones(shape)})
        with pytest.raises(CheckpointError, match=r"holds freqs_cis of shape .* no square grid"):
            load_model(path)

    def test_the_trainer_s_settings_are_believed_before_a_name(self, theirs: Path) -> None:
        content = {"model": gpt().state_dict(), "args": argparse.Namespace(image_size=16)}
        torch.save(content, theirs / "c2i_B_384.pt")
        assert load_model(theirs / "c2i_B_384.pt", told=Told(heads=2)).model.config.num_tokens == 16
        with pytest.raises(CheckpointError, match="has an image size of 16, not of 32"):
            load_model(theirs / "c2i_B_384.pt", told=Told(32, 2))

    def test_which_weights(self, theirs: Path, caplog: pytest.LogCaptureFixture) -> None:
        tables = {"model": gpt(0).state_dict(), "ema": gpt(1).state_dict(), "steps": 3}
        path = self.write(theirs, tables)
        with caplog.at_level(logging.WARNING, "aim"):
            assert_equal(load_model(path, told=Told(16, 2)).model, gpt(0))
        assert "holds model and ema; model is read" in caplog.text
        caplog.clear()
        for name, seed in (("model", 0), ("ema", 1)):
            assert_equal(load_model(path, told=Told(16, 2, name)).model, gpt(seed))
        assert caplog.text == ""
        with pytest.raises(CheckpointError, match="no weights called 'best'; it has model, ema"):
            load_model(path, told=Told(16, 2, "best"))
        path = self.write(theirs, gpt().state_dict())
        with pytest.raises(CheckpointError, match="it has one table of tensors, without a name"):
            load_model(path, told=Told(16, 2, "ema"))

    def test_others_say_it_themselves(self, official: Path) -> None:
        for source in (official, "aim-s", "hp-l33/aim-base"):
            with pytest.raises(InvalidInput, match="says itself what it is; leave out image_size"):
                load_model(source, told=Told(image_size=256))

    def test_it_is_written_once_and_known_ever_after(self, theirs: Path, tmp_path: Path) -> None:
        path = self.write(theirs, {"model": gpt(0).state_dict(), "ema": gpt(1).state_dict()})
        export(path, tmp_path / "out", told=Told(16, 2, "ema"))
        assert_equal(load_model(tmp_path / "out").model, gpt(1))

    def test_on_the_command_line(
        self, theirs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        cli, path = Cli(capsys), self.write(theirs, gpt().state_dict())
        assert cli("info", path) == 2
        assert "`aim export --image-size 256`" in cli.err
        assert cli("info", path, "--image-size", 16, "--heads", 2) == 0
        told = json.loads(cli.out.splitlines()[-1])
        assert (told["layout"], told["codes"], told["heads"]) == ("llamagen", 16, 2)
        assert told["files"] == ["renamed.pt", "vq_ds16_c2i.pt"]
        made = ("export", path, tmp_path / "out", "--image-size", 16, "--heads", 2)
        assert cli(*made) == 0
        assert cli("info", tmp_path / "out") == 0


def test_a_folder_of_theirs_with_one_prior(theirs: Path) -> None:
    torch.save({**gpt().state_dict(), "freqs_cis": torch.ones(17, 16, 2)}, theirs / "any.pt")
    assert_equal(load_model(theirs).model, gpt())
    torch.save({}, theirs / "other.pt")
    with pytest.raises(CheckpointError, match=r"holds neither config\.json with model"):
        load_model(theirs)


SITE = "https://huggingface.co"


@pytest.mark.parametrize(
    ("address", "means"),
    [
        (f"{SITE}/hp-l33/aim-base", "hp-l33/aim-base"),
        (f"{SITE}/hp-l33/aim-base/", "hp-l33/aim-base"),
        (f"{SITE}/hp-l33/aim-base/tree/main", "hp-l33/aim-base"),
        ("http://hf.co/me/mine?library=aim#files", "me/mine"),
        (f"{SITE}/me/mine/blob/main/model.safetensors", "me/mine"),
        (f"{SITE}/me/mine/blob/main/{INDEX}", "me/mine"),
        (f"{SITE}/me/mine/resolve/main/config.json?download=true", "me/mine"),
        (f"{SITE}/FoundationVision/LlamaGen/resolve/main/c2i_XXL_384.pt", "gpt-xxl-384"),
        (f"{SITE}/FoundationVision/LlamaGen/blob/main/c2i_B_256.pt?x=y", "gpt-b"),
        ("aim-s", "aim-s"),
        ("me/mine", "me/mine"),
    ],
)
def test_addresses_of_the_hub(address: str, means: str) -> None:
    assert named(address) == means
    assert named(Path("x")) == Path("x")


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("https://example.com/a/b", "is no address of a model on the hub"),
        ("https://example.com/model.pt", "download the file and give its path"),
        (SITE, "is no address of a model"),
        (f"{SITE}/datasets/a/b", "is no address of a model"),
        (f"{SITE}/a/b/tree/v2", "is of the revision v2; only main is read"),
        (f"{SITE}/a/b/blob/main/weights/mine.pt", r"\(hf download a/b weights/mine.pt\)"),
        (f"{SITE}/FoundationVision/LlamaGen/blob/main/t2i.pt", "c2i_3B_384.pt"),
        (f"{SITE}/FoundationVision/LlamaGen", "holds several models: give one of their names"),
    ],
)
def test_what_is_none_is_named(address: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        load_model(address)


def test_the_address_of_another_hub(
    official: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {path.name: path.read_bytes() for path in official.iterdir()}
    with served(Hub(REPO, files, INDEX), tmp_path / "cache", monkeypatch) as hub:
        loaded = load_model(f"{hub.url}/{REPO}/tree/main")
        assert loaded.name == REPO
        assert_equal(loaded.model, aim_model())


def test_every_named_file_has_an_address() -> None:
    for name, spec in MODELS.items():
        if spec.file:
            assert named(f"{SITE}/{spec.repo}/blob/main/{spec.file}") == name
