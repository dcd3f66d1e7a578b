from __future__ import annotations

import pytest
import torch

from aim import device
from aim.device import pick_device, pick_dtype, prepare, set_threads
from aim.errors import InvalidInput


@pytest.mark.parametrize(
    ("cuda", "mps", "best"), [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")]
)
def test_auto_takes_the_best_device(
    monkeypatch: pytest.MonkeyPatch, cuda: bool, mps: bool, best: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert pick_device("auto").type == best


def test_devices_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert pick_device("cpu") == torch.device("cpu")
    assert pick_device("cuda:1") == torch.device("cuda", 1)
    with pytest.raises(InvalidInput, match="no device 'cuda:2'"):
        pick_device("cuda:2")


@pytest.mark.parametrize("name", ["gpu", "", "cuda:x", "cpu:0", "cuda:-1", "mps:1"])
def test_nonsense_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput, match="it must be"):
        pick_device(name)


def test_a_device_that_is_not_here_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InvalidInput, match="try auto or cpu"):
        pick_device("cuda")


@pytest.mark.parametrize(
    ("kind", "capability", "expected"),
    [
        ("cuda", (8, 0), torch.bfloat16),
        ("cuda", (7, 5), torch.float32),
        ("mps", None, torch.float32),
    ],
)
def test_auto_dtype_on_an_accelerator(
    monkeypatch: pytest.MonkeyPatch, kind: str, capability: tuple, expected: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    assert pick_dtype("auto", torch.device(kind)) == expected


@pytest.mark.parametrize(("avx512", "amx"), [(True, False), (False, True), (False, False)])
def test_auto_dtype_on_a_cpu(monkeypatch: pytest.MonkeyPatch, avx512: bool, amx: bool) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx, raising=False)
    assert pick_dtype("auto", torch.device("cpu")) == (
        torch.bfloat16 if avx512 or amx else torch.float32
    )


def test_auto_dtype_on_a_pytorch_that_cannot_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    for probe in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.delattr(torch.cpu, probe, raising=False)
    assert pick_dtype("auto", torch.device("cpu")) == torch.float32


def test_dtypes_by_name() -> None:
    cpu = torch.device("cpu")
    assert pick_dtype("float32", cpu) == torch.float32
    assert pick_dtype("bfloat16", cpu) == torch.bfloat16
    with pytest.raises(InvalidInput, match="float16"):
        pick_dtype("float16", cpu)


def test_float32_means_float32_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "pick_device", torch.device)
    parts = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [part.allow_tf32 for part in parts]
    try:
        for part in parts:
            part.allow_tf32 = True
        assert prepare("cuda", "float32") == (torch.device("cuda"), torch.float32)
        assert [part.allow_tf32 for part in parts] == [False, False]
    finally:
        for part, allowed in zip(parts, before, strict=True):
            part.allow_tf32 = allowed


@pytest.mark.parametrize(
    ("asked", "kind", "taken"), [(None, "cpu", 3), (5, "cpu", 5), (5, "cuda", 5), (None, "cuda", 0)]
)
def test_one_core_is_left_to_others_unless_a_number_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, asked: int | None, kind: str, taken: int
) -> None:
    found = [0]
    monkeypatch.setattr(device, "all_threads", lambda: 4)
    monkeypatch.setattr(torch, "set_num_threads", found.append)
    set_threads(asked, torch.device(kind))
    assert found[-1] == taken


def test_one_core_alone_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[int] = []
    monkeypatch.setattr(device, "all_threads", lambda: 1)
    monkeypatch.setattr(torch, "set_num_threads", found.append)
    set_threads(None, torch.device("cpu"))
    assert found == [1]
