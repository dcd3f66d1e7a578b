"""The networks compute what the official code computed: logits, images, codes, names, shapes and
counts.
"""

from __future__ import annotations

import json
from collections.abc import Container
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from aim.checkpoint.official import COUNTER, HEAD, to_official
from aim.checkpoint.weights import blank
from aim.config import MODELS, VQ_F16, AiMConfig, GPTConfig
from aim.models.aim.cpu import CPUAiM
from aim.models.aim.model import AiM
from aim.models.gpt.cpu import CPUGPT
from aim.models.prior import Prior, build
from aim.models.vq.model import VQ
from tests.golden.weights import fill
from tests.models.decoders import Decoder

GOLDEN = Path(__file__).resolve().parent.parent / "golden"
TINY = ["tiny_adaln", "tiny_adaln_group", "gpt_tiny", "gpt_tiny_24x24"]
LAYOUT = json.loads((GOLDEN / "official_layout.json").read_text())
NAMED = {"AiM-B": "aim-b", "AiM-L": "aim-l", "AiM-XL": "aim-xl"}
LLAMAGEN_LAYOUT = json.loads((GOLDEN / "llamagen_layout.json").read_text())
LLAMAGEN_NAMED = {
    "gpt-b": "GPT-B",
    "gpt-l": "GPT-L",
    "gpt-xl": "GPT-XL",
    "gpt-b-384": "GPT-B",
    "gpt-l-384": "GPT-L",
    "gpt-xl-384": "GPT-XL",
    "gpt-xxl-384": "GPT-XXL",
    "gpt-3b-384": "GPT-3B",
}


class Golden(NamedTuple):
    tensors: dict[str, Tensor]
    facts: dict[str, Any]  # the metadata, parsed

    def picked(self, logits: Tensor) -> Tensor:
        """Of logits (B, T, V), the positions and entries that are stored; all where the file does
        not say.
        """
        positions = self.facts.get("token_positions", range(logits.shape[1]))
        return logits[:, list(positions)][:, :, :: self.facts.get("vocab_stride", 1)]


def read(name: str) -> Golden:
    with safe_open(GOLDEN / f"{name}.safetensors", "pt") as file:
        facts = {key: json.loads(value) for key, value in file.metadata().items()}
        return Golden({key: file.get_tensor(key) for key in file.keys()}, facts)  # noqa: SIM118


def filled(golden: Golden) -> Prior:
    """The model that the golden file is about."""
    given = golden.facts["config"]
    sizes = {name: given[name] for name in ("n_layer", "vocab_size", "num_classes")}
    if "model_type" in given:
        model = build(
            GPTConfig(given["dim"], n_head=given["n_head"], num_tokens=given["block_size"], **sizes)
        ).eval()
        fill(model.state_dict(), golden.facts["salt"])
        return model
    sizes |= {name: given[name] for name in ("d_model", "num_tokens", "adaln_group", "num_groups")}
    model = build(AiMConfig(**sizes, position_offset=1)).eval()
    fill(
        {f"mamba.backbone.{name}": tensor for name, tensor in model.state_dict().items()},
        golden.facts["salt"],
    )
    return model


def prepared(model: Prior) -> CPUAiM | CPUGPT:
    return CPUAiM(model) if isinstance(model, AiM) else CPUGPT(model)


def count(model: Prior) -> int:
    return sum(p.numel() for p in model.parameters())


def relative_error(got: Tensor, want: Tensor) -> float:
    return ((got - want).norm() / want.norm()).item()


def decoded(model: Decoder, golden: Golden, steps: Container[int] | None = None) -> Tensor:
    """Guided logits (B, T, V) with the stored codes: of every position by a step, or of ``steps``
    only, and what is between them by one pass over all codes before.
    """
    codes, labels = golden.tensors["codes"].long().repeat(2, 1), golden.tensors["labels"].long()
    rows, count = 2 * len(labels), model.config.num_tokens
    labels = torch.cat([labels, torch.full_like(labels, model.config.num_classes)])
    cond, state = model.condition(labels), model.new_state(rows)
    steps = range(count) if steps is None else steps
    outputs = torch.full((rows, count, model.config.vocab_size), float("nan"))
    known = 0
    for i in range(count):
        if i in steps:
            before = codes[:, max(i - 1, 0)]
            outputs[:, i] = model.step(before, torch.full((rows,), i), cond, state)
            known = i + 1
        elif i + 1 in steps:
            state = model.new_state(rows)
            made = model.prefill(codes[:, :i], labels, state, torch.arange(rows))
            outputs[:, known : i + 1] = made[:, known:]
    given, free = outputs.chunk(2)
    return free + (given - free) * golden.facts["cfg_scale"]


def forward(model: Prior, golden: Golden) -> Tensor:
    return model(golden.tensors["codes"].long()[:, :-1], golden.tensors["labels"].long())


@pytest.mark.parametrize("name", TINY)
@torch.no_grad()
def test_tiny_logits(name: str):
    golden = read(name)
    model = filled(golden)
    assert (
        relative_error(golden.picked(forward(model, golden)), golden.tensors["forward_logits"])
        < 1e-5
    )
    for decoder in (model, prepared(model)):
        assert (
            relative_error(golden.picked(decoded(decoder, golden)), golden.tensors["decode_logits"])
            < 1e-5
        )


@torch.no_grad()
def test_aim_b_logits():
    golden = read("aim_b")
    model = filled(golden)
    assert (
        relative_error(golden.picked(forward(model, golden)), golden.tensors["forward_logits"])
        < 1e-4
    )
    # a step of the readable model takes a tenth of a second
    for decoder, steps in ((model, (0, 1, 2, 3, 128, 255)), (prepared(model), None)):
        got = golden.picked(decoded(decoder, golden, steps))
        assert relative_error(got, golden.tensors["decode_logits"]) < 1e-4


@torch.no_grad()
def test_vq_f16_images_and_codes():
    golden = read("aim_b")
    vq = VQ(VQ_F16).eval()
    fill(
        {f"vqvae.{name}": tensor for name, tensor in vq.state_dict().items()}, golden.facts["salt"]
    )
    image = vq.decode(golden.tensors["vq_codes"].long())
    assert relative_error(image[:, :, ::8, ::8], golden.tensors["vq_image_8x"]) < 1e-4
    torch.testing.assert_close(
        image.mean(), golden.tensors["vq_image_mean"].squeeze(), rtol=1e-4, atol=1e-6
    )
    wave = torch.sin(0.0137 * torch.arange(3 * 256 * 256)).view(1, 3, 256, 256)
    assert torch.equal(vq.encode(wave), golden.tensors["vq_encoded"].long())


@pytest.mark.parametrize("official", NAMED)
def test_names_shapes_and_counts_are_the_official_ones(official: str):
    spec, want = MODELS[NAMED[official]], LAYOUT[official]
    model, vq = blank(lambda: AiM(spec.config)), blank(lambda: VQ(spec.tokenizer))
    got = {name: list(tensor.shape) for name, tensor in to_official(model, vq).items()}
    assert got == want["tensors"]
    assert {HEAD, COUNTER} <= got.keys()
    assert count(model) == want["params"]


@pytest.mark.parametrize("name", LLAMAGEN_NAMED)
def test_names_shapes_and_counts_are_llamagens(name: str):
    spec, want = MODELS[name], LLAMAGEN_LAYOUT[LLAMAGEN_NAMED[name]]
    assert isinstance(spec.config, GPTConfig)
    model = blank(lambda: build(spec.config))
    assert {k: list(tensor.shape) for k, tensor in model.state_dict().items()} == want["tensors"]
    assert count(model) == want["params"]
    assert spec.config.n_head == want["config"]["n_head"]
    assert (spec.config.grid, spec.tokenizer.output_size) == (
        (24, 384) if name.endswith("384") else (16, 256)
    )
    if spec.source == "hub":  # float32, with a tokenizer of 288 MB
        assert abs(spec.download_mb - (4 * want["params"] / 1e6 + 288)) < 11


def test_aim_1b_has_1_3_billion_parameters():
    assert 1.25e9 < count(blank(lambda: build(MODELS["aim-1b"].config))) < 1.35e9


def test_the_bundled_models_are_small_and_of_one_size():
    aim_s, gpt_s = (
        count(blank(lambda name=name: build(MODELS[name].config))) for name in ("aim-s", "gpt-s")
    )
    assert aim_s <= 40e6
    assert abs(gpt_s / aim_s - 1) < 0.05
