"""AiM's official layout: round trips, golden logits through it, and everything it must refuse by
name.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from aim.checkpoint import export_official, load_model
from aim.checkpoint.official import read_config, to_official
from aim.config import MODELS, VQ_F16, AiMConfig
from aim.errors import CheckpointError
from aim.models.aim.model import AiM
from aim.models.vq.model import VQ
from tests.files import assert_equal, rewrite
from tests.golden.weights import fill

GOLDEN = Path(__file__).resolve().parent / "golden"
HEAD, EMBEDDINGS = "mamba.lm_head.weight", "mamba.backbone.embeddings.word_embeddings.weight"
COUNTER = "vqvae.quantize.codebook_used"
Make = Callable[..., AiM]


@pytest.fixture
def official(tmp_path: Path, make_model: Make, tiny_vq: VQ) -> Path:
    """A folder in AiM's layout."""
    export_official(make_model(position_offset=1), tiny_vq, tmp_path / "official")
    return tmp_path / "official"


def reconfigure(folder: Path, **values: Any) -> None:
    """Change config.json; None removes a key."""
    path = folder / "config.json"
    changed = json.loads(path.read_text()) | values
    path.write_text(
        json.dumps({name: value for name, value in changed.items() if value is not None})
    )


def test_the_released_layout_round_trips(official: Path, make_model: Make, tiny_vq: VQ):
    loaded = load_model(official)
    assert loaded.model.config == make_model(position_offset=1).config
    assert loaded.tokenizer.config == tiny_vq.config
    assert loaded.name == "official"
    assert len(loaded.version) == 12
    assert_equal(loaded.model, make_model())
    assert_equal(loaded.tokenizer, tiny_vq)
    assert_equal(
        load_model(str(official), dtype=torch.bfloat16).model, make_model().to_dtype(torch.bfloat16)
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"position_offset": 0},
        {"position_offset": 1, "adaln_group": False, "num_groups": 1, "classes": ()},
        {
            "num_groups": 1,
            "d_conv": 2,
            "expand": 4,
            "headdim": 16,
            "norm_eps": 1e-4,
            "token_drop": 0.1,
            "mixer_drop": 0.2,
        },
    ],
)
def test_any_model_survives_the_released_layout(
    tmp_path: Path, make_model: Make, tiny_vq: VQ, changes: dict[str, Any]
):
    model = make_model(**changes)
    export_official(model, tiny_vq, tmp_path)
    loaded = load_model(tmp_path).model
    assert loaded.config == model.config
    assert_equal(loaded, model)


def test_the_export_is_what_the_hub_holds(official: Path):
    with safe_open(official / "model.safetensors", "pt") as file:
        names, metadata = set(file.keys()), file.metadata()
    assert HEAD not in names
    assert metadata[HEAD] == EMBEDDINGS
    assert COUNTER in names
    assert all(name.startswith(("mamba.backbone.", "vqvae.")) for name in names)
    assert (
        json.loads((GOLDEN / "hub_config.json").read_text()).keys()
        <= json.loads((official / "config.json").read_text()).keys()
    )


def test_official_configs_are_the_named_models(tmp_path: Path):
    path = tmp_path / "config.json"
    for name, entry in json.loads((GOLDEN / "official_layout.json").read_text()).items():
        path.write_text(json.dumps(entry["config"]))
        spec = MODELS["aim-" + name.partition("-")[2].lower()]
        assert read_config(path) == (spec.config, VQ_F16)


def test_golden_logits_through_the_released_layout(tmp_path: Path):
    """hub_config.json as it is, weights by their official names: loaded from the folder, the
    official logits come out.
    """
    with safe_open(GOLDEN / "tiny_adaln.safetensors", "pt") as file:
        golden = {name: file.get_tensor(name) for name in ("codes", "labels", "forward_logits")}
        salt = int(file.metadata()["salt"])
    (tmp_path / "config.json").write_text((GOLDEN / "hub_config.json").read_text())
    vq_values = {
        "image_size": 16,
        "codebook_size": 64,
        "z_channels": 32,
        "ch": 32,
        "ch_mult": [1, 1, 2],
    }
    reconfigure(tmp_path, tokenizer=vq_values)
    config, vq_config = read_config(tmp_path / "config.json")
    assert config == AiMConfig(
        128, 3, 64, 10, 16, adaln_group=False, num_groups=1, position_offset=1
    )
    tensors = {
        name: tensor.detach().clone()
        for name, tensor in to_official(AiM(config), VQ(vq_config)).items()
        if name != HEAD
    }
    fill(tensors, salt)
    save_file(tensors, tmp_path / "model.safetensors", {HEAD: EMBEDDINGS})
    with torch.no_grad():
        logits = load_model(tmp_path).model(golden["codes"][:, :-1].long(), golden["labels"].long())
    assert (logits - golden["forward_logits"]).norm() / golden["forward_logits"].norm() < 1e-5


def test_the_tied_head_may_be_there_if_it_is_equal(official: Path, make_model: Make):
    weights = official / "model.safetensors"
    rewrite(weights, lambda tensors, _: tensors.update({HEAD: tensors[EMBEDDINGS].clone()}))
    assert_equal(load_model(official).model, make_model())
    rewrite(weights, lambda tensors, _: tensors[HEAD].add_(1))
    with pytest.raises(CheckpointError, match=r"mamba\.lm_head\.weight differs from"):
        load_model(official)


@pytest.mark.parametrize(
    "change, message",
    [
        (
            lambda t: t.pop("mamba.backbone.layers.0.mixer.A_log"),
            r"mamba\.backbone\.layers\.0\.mixer\.A_log missing",
        ),
        (lambda t: t.pop("vqvae.decoder.conv_out.bias"), r"vqvae\.decoder\.conv_out\.bias missing"),
        (lambda t: t.pop(EMBEDDINGS), r"word_embeddings\.weight missing"),
        (lambda t: t.update({"optimizer.step": torch.zeros(1)}), r"optimizer\.step unexpected"),
        (
            lambda t: t.update({"vqvae.quant_conv.bias": torch.zeros(9)}),
            r"vqvae\.quant_conv\.bias \(is \[9\], must be \[8\]\)",
        ),
        (
            lambda t: t.update({k: v.half() for k, v in t.items()}),
            r"F16.* and \d+ more stored neither as F32 nor as BF16",
        ),
    ],
)
def test_a_wrong_tensor_in_the_released_layout_is_named(
    official: Path, change: Callable[[dict[str, Tensor]], object], message: str
):
    rewrite(official / "model.safetensors", lambda tensors, _: change(tensors))
    with pytest.raises(CheckpointError, match=message):
        load_model(official)


@pytest.mark.parametrize(
    "name, value, message",
    [
        ("attn_layer_idx", [1], r"attn_layer_idx is \[1\]; only \[\]"),
        ("d_intermediate", 128, "d_intermediate is 128; only 0"),
        ("tie_embeddings", False, "tie_embeddings is False; only True"),
        ("rms_norm", False, "rms_norm is False; only True"),
        ("ssm_cfg", {"layer": "Mamba1"}, r"ssm_cfg\.layer is 'Mamba1'"),
        ("ssm_cfg", {}, r"ssm_cfg\.layer is None"),
        ("ssm_cfg", {"layer": "Mamba2", "ngroups": 2}, r"ssm_cfg\.ngroups is 2"),
        ("ssm_cfg", {"layer": "Mamba2", "rmsnorm": False}, r"ssm_cfg\.rmsnorm is False"),
        ("ssm_cfg", {"layer": "Mamba2", "headdim": 60}, "headdim 60 does not divide"),
        (
            "pad_vocab_size_multiple",
            48,
            "pad_vocab_size_multiple is 48; it must divide vocab_size = 64",
        ),
        ("pad_vocab_size_multiple", 0, "pad_vocab_size_multiple is 0"),
        ("num_groups", 7, r"num_groups is 7; it must be in \[1, n_layer = 2\]"),
        ("n_layer", None, "missing in the configuration: n_layer"),
        ("n_layer", 2.5, r"n_layer is 2\.5"),
        ("tokenizer", {"ch": "wide"}, "ch is 'wide'"),
        ("tokenizer", {"colour": 1}, "unknown in the configuration: colour"),
        ("dropout", 0.1, "unknown in the configuration: dropout"),
    ],
)
def test_what_cannot_be_computed_is_refused_by_name(
    official: Path, name: str, value: Any, message: str
):
    reconfigure(official, **{name: value})
    with pytest.raises(CheckpointError, match=message) as caught:
        load_model(official)
    assert "config.json" in str(caught.value)


def test_ssm_cfg_overrides_the_mixer(official: Path):
    reconfigure(
        official,
        ssm_cfg={
            "layer": "Mamba2",
            "ngroups": 1,
            "d_state": 32,
            "d_conv": 3,
            "expand": 4,
            "headdim": 16,
        },
    )
    config, _ = read_config(official / "config.json")
    assert (config.d_state, config.d_conv, config.expand, config.headdim) == (32, 3, 4, 16)


def test_without_a_tokenizer_entry_it_is_vq_f16(official: Path):
    reconfigure(official, tokenizer=None)
    assert read_config(official / "config.json")[1] == VQ_F16
    with pytest.raises(CheckpointError, match="vqvae"):
        load_model(official)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_half_a_released_folder_names_the_missing_file(official: Path, name: str):
    (official / name).unlink()
    with pytest.raises(CheckpointError, match=name.replace(".", r"\.")):
        load_model(official)


def test_a_config_that_is_no_text_is_refused(official: Path):
    (official / "config.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CheckpointError, match=r"config\.json cannot be read"):
        load_model(official)


def test_a_released_file_without_its_folder_says_what_to_give(official: Path):
    with pytest.raises(
        CheckpointError,
        match=r"official layout: give the folder that holds it and its config\.json",
    ):
        load_model(official / "model.safetensors")


def test_versions_of_the_released_layout_follow_the_weights(official: Path):
    first = load_model(official).version
    assert load_model(official).version == first
    rewrite(
        official / "model.safetensors",
        lambda tensors, _: [tensor.mul_(1.01) for tensor in tensors.values()],
    )
    assert load_model(official).version != first
