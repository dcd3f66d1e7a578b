"""The VQ tokenizer: shapes, codes, what stays float32, and what training needs of it."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F

from aim.checkpoint.weights import blank
from aim.config import VQ_F4, VQ_F16, VQConfig
from aim.errors import InvalidInput
from aim.models.vq.blocks import GroupNorm
from aim.models.vq.model import VQ


def images(count: int, height: int, width: int) -> torch.Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(0)) * 2 - 1


@torch.no_grad()
def test_encode_and_decode_shapes(tiny_vq: VQ):
    codes = tiny_vq.encode(images(3, 16, 16))
    assert codes.shape == (3, 16)
    assert codes.dtype == torch.int64
    assert 0 <= codes.min() <= codes.max() < tiny_vq.config.codebook_size
    decoded = tiny_vq.decode(codes)
    assert decoded.shape == (3, 3, 16, 16)
    assert decoded.dtype == torch.float32
    torch.testing.assert_close(tiny_vq.decode(codes.view(3, 4, 4)), decoded)


@torch.no_grad()
def test_a_decoder_of_more_levels_gives_larger_pictures(larger_vq: VQ):
    config = larger_vq.config
    assert (config.downsample, config.upsample, config.grid) == (4, 8, 4)
    assert (config.image_size, config.output_size) == (16, 32)
    codes = larger_vq.encode(images(2, 16, 16))
    assert codes.shape == (2, 16)
    assert larger_vq.decode(codes).shape == (2, 3, 32, 32)
    assert larger_vq.decode(codes[:, :8]).shape == (2, 3, 16, 32)


def test_a_decoder_of_fewer_levels_is_refused():
    with pytest.raises(InvalidInput, match=r"decoder_ch_mult is \(1, 2\); .* as ch_mult, 3"):
        VQConfig(ch_mult=(1, 1, 2), decoder_ch_mult=(1, 2))


@torch.no_grad()
def test_part_of_a_grid_decodes_alone(tiny_vq: VQ):
    codes = tiny_vq.encode(images(1, 16, 16))
    assert tiny_vq.decode(codes[:, :8]).shape == (1, 3, 8, 16)
    assert tiny_vq.decode(codes.view(1, 4, 4)[:, :3, :2]).shape == (1, 3, 12, 8)


@torch.no_grad()
def test_codes_are_the_nearest_vectors(tiny_vq: VQ):
    features = tiny_vq.features(images(2, 16, 16))
    assert features.shape == (2, tiny_vq.config.codebook_dim, 4, 4)
    torch.testing.assert_close(features.norm(dim=1), torch.ones(2, 4, 4))
    table = F.normalize(tiny_vq.quantize.embedding.weight.double(), dim=-1)
    flat = features.permute(0, 2, 3, 1).flatten(0, 2).double()
    nearest = torch.cdist(flat, table).argmin(-1).view(2, 16)
    assert torch.equal(tiny_vq.encode(images(2, 16, 16)), nearest)


@pytest.mark.parametrize("shape", [(1, 3, 18, 16), (1, 3, 16, 10), (1, 1, 16, 16), (3, 16, 16)])
def test_images_of_a_wrong_shape_are_refused(tiny_vq: VQ, shape: tuple[int, ...]):
    with pytest.raises(InvalidInput, match="multiples of 4"):
        tiny_vq.encode(torch.zeros(shape))


@torch.no_grad()
def test_bfloat16_keeps_norms_and_codebook_and_stays_near(tiny_vq: VQ):
    half = copy.deepcopy(tiny_vq).to_dtype(torch.bfloat16)
    assert half.dtype == torch.bfloat16
    kinds = {name: tensor.dtype for name, tensor in half.state_dict().items()}
    kept = {name for name, dtype in kinds.items() if dtype == torch.float32}
    assert kept == {name for name in kinds if "norm" in name or name == "quantize.embedding.weight"}
    codes = tiny_vq.encode(images(2, 16, 16))
    want, got = tiny_vq.decode(codes), half.decode(codes)
    assert got.dtype == torch.float32
    assert (got - want).norm() / want.norm() < 5e-2
    assert half.encode(images(2, 16, 16)).shape == (2, 16)


def test_group_norm_casts_its_weights_to_the_activations():
    norm = GroupNorm(32, 64, eps=1e-6)
    with torch.no_grad():
        norm.weight.normal_()
        norm.bias.normal_()
    x = torch.randn(2, 64, 4, 4)
    torch.testing.assert_close(
        norm(x), F.group_norm(x, 32, norm.weight, norm.bias, 1e-6), rtol=0, atol=0
    )
    out = norm(x.bfloat16())
    assert out.dtype == torch.bfloat16
    assert norm.weight.dtype == torch.float32
    torch.testing.assert_close(out.float(), norm(x), atol=0.1, rtol=0.05)
    assert norm.state_dict().keys() == torch.nn.GroupNorm(32, 64).state_dict().keys()


def test_quantizing_passes_the_gradient_straight_through(tiny_vq: VQ):
    features = F.normalize(
        torch.randn(1, tiny_vq.config.codebook_dim, 2, 2), dim=1
    ).requires_grad_()
    quantized = tiny_vq.quantize_features(features)
    assert quantized.codes.shape == (1, 4)
    table = F.normalize(tiny_vq.quantize.embedding.weight, dim=-1)
    torch.testing.assert_close(
        quantized.vectors.permute(0, 2, 3, 1).flatten(0, 2), table[quantized.codes[0]]
    )
    towards = torch.randn_like(features)
    (quantized.vectors * towards).sum().backward()
    torch.testing.assert_close(features.grad, towards)
    torch.testing.assert_close(quantized.codebook_loss, quantized.commitment_loss)


def test_training_reaches_every_weight(tiny_vq: VQ):
    vq = copy.deepcopy(tiny_vq).requires_grad_(True).train()
    x = images(4, 16, 16)
    quantized = vq.quantize_features(vq.features(x))
    loss = (
        F.mse_loss(vq.decode_vectors(quantized.vectors), x)
        + quantized.codebook_loss
        + quantized.commitment_loss
    )
    loss.backward()
    without = [
        name for name, p in vq.named_parameters() if p.grad is None or not p.grad.isfinite().all()
    ]
    assert without == []
    assert vq.last_weight.grad is not None
    assert vq.last_weight.shape == (3, 32, 3, 3)


@pytest.mark.parametrize(
    "config, grid", [(VQ_F16, 16), (VQ_F4, 16), (VQConfig(image_size=32, ch_mult=(1, 2)), 16)]
)
def test_grids(config: VQConfig, grid: int):
    vq = blank(lambda: VQ(config))
    assert vq.config.grid == grid
    assert (
        sum(name.endswith("upsample.conv.weight") for name in vq.state_dict())
        == len(config.ch_mult) - 1
    )


def test_f16_has_llamagens_codebook():
    weight = blank(lambda: VQ(VQ_F16)).quantize.embedding.weight
    assert tuple(weight.shape) == (16384, 8)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("tiny_vq", (2, 4, 4)),
        ("tiny_vq", (1, 3, 4)),
        ("tiny_vq", (1, 1, 1)),
        ("larger_vq", (1, 1, 2)),
    ],
)
@pytest.mark.usefixtures("exact_float32")
@torch.no_grad()
def test_the_fused_decoder_equals_the_plain_one(
    request: pytest.FixtureRequest, name: str, shape: tuple[int, ...]
):
    pytest.importorskip("triton", reason="Triton is not installed")
    from aim.models.vq import gpu

    device = "cuda" if torch.cuda.is_available() else "cpu"
    vq = copy.deepcopy(request.getfixturevalue(name))
    make = torch.Generator().manual_seed(2)
    for name, weight in vq.named_parameters():
        if "bias" in name or "norm" in name:  # a fresh one's do not weigh in
            weight.add_(torch.randn(weight.shape, generator=make) * 0.3)
    codes = torch.randint(vq.config.codebook_size, shape, generator=make)
    want = vq.decode(codes)
    vectors = F.embedding(codes, vq.quantize.normalized()).permute(0, 3, 1, 2).to(device)
    vq.to(device)
    exact = [gpu.decode_vectors(vq.decoder, vq.post_quant_conv, vectors).cpu()]
    vq.to(memory_format=torch.channels_last)
    exact.append(gpu.decode_vectors(vq.decoder, vq.post_quant_conv, vectors).cpu())
    for got in exact:
        assert got.dtype == torch.float32
        torch.testing.assert_close(got, want, rtol=1e-4, atol=2e-5)
    vq.to_dtype(torch.bfloat16)
    got = gpu.decode_vectors(vq.decoder, vq.post_quant_conv, vectors).cpu()
    plain = vq.cpu().decode(codes)  # in bfloat16, too; the norms of a single code multiply rounding
    assert got.dtype == torch.float32
    assert (got - want).norm() < max(0.05 * want.norm(), 1.5 * (plain - want).norm())


@pytest.mark.parametrize("name", ["tiny_vq", "larger_vq"])
@pytest.mark.usefixtures("exact_float32")
@torch.no_grad()
def test_the_fused_encoder_equals_the_plain_one(request: pytest.FixtureRequest, name: str):
    pytest.importorskip("triton", reason="Triton is not installed")
    from aim.models.vq import gpu

    device = "cuda" if torch.cuda.is_available() else "cpu"
    vq = copy.deepcopy(request.getfixturevalue(name))
    make = torch.Generator().manual_seed(3)
    for name, weight in vq.named_parameters():
        if "bias" in name or "norm" in name:
            weight.add_(torch.randn(weight.shape, generator=make) * 0.3)
    pixels = torch.rand(2, 3, 16, 24, generator=make) * 2 - 1
    want = vq.quant_conv(vq.encoder(pixels))
    vq.to(device)
    got = gpu.features(vq.encoder, vq.quant_conv, pixels.to(device)).cpu()
    torch.testing.assert_close(got, want, rtol=1e-4, atol=2e-5)
    vq.to_dtype(torch.bfloat16)
    got = gpu.features(vq.encoder, vq.quant_conv, pixels.to(device)).cpu()
    assert got.dtype == torch.bfloat16
    assert (got.float() - want).norm() < 0.05 * want.norm()


def test_decoding_with_gradients_is_never_fused(tiny_vq: VQ, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("aim.models.vq.model.fuses_group_norm", lambda device, widths: True)
    vq = copy.deepcopy(tiny_vq)
    vq.fusible = True
    assert not vq.fused
    with torch.inference_mode():
        assert vq.fused
        with torch.autocast("cpu", torch.bfloat16):
            assert not vq.fused
        vq.fusible = False
        assert not vq.fused
