"""Files from others, broken or made to break something: refused in words, fast, in little memory.
Those that ask for much are read in a process of its own, whose memory is counted.
"""

from __future__ import annotations

import json
import random
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

from aim.bench import weights
from aim.checkpoint import load_model
from aim.checkpoint.config_json import MOST_TEXT, from_values, parse_json
from aim.checkpoint.weights import blank
from aim.config import AiMConfig, GPTConfig, VQConfig
from aim.engine import memory
from aim.errors import AimError, CheckpointError, InvalidInput
from aim.images import read, write
from aim.models.aim.model import AiM
from aim.models.prior import build
from tests.fuzz import TIMES

ODD: tuple[Any, ...] = (0, -1, 2**20, 2**62, 1.5, "4", None, [], [1] * 50, True, "x" * 3000, {})
MIB = 1 << 20
# how much the process grew, and what was said
LOADING = """
import json, resource, sys
from aim.checkpoint import load_model
from aim.errors import AimError
def most(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before = most()
try:
    load_model(sys.argv[1])
    said = ""
except AimError as error:
    said = str(error)
print(json.dumps([1024 * (most() - before), said]))
"""


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (AiMConfig, {"d_model": 64, "n_layer": 2**20}),
        (AiMConfig, {"d_model": 2**20, "n_layer": 2}),
        (GPTConfig, {"d_model": 64, "n_layer": 2, "n_head": 2**20}),
        (VQConfig, {"ch_mult": [1] * 100}),
        (VQConfig, {"num_res_blocks": 2**20}),
        (VQConfig, {"image_size": 2**20}),
    ],
)
def test_a_configuration_is_of_a_size_that_a_model_could_have(kind: Any, values: Any) -> None:
    with pytest.raises(CheckpointError, match=r"must be .*(in \[1, |at most 8)") as refused:
        from_values(kind, values, "it")
    assert len(str(refused.value)) < 300


def test_the_largest_model_that_may_be_described_is_laid_out_in_seconds() -> None:
    values = {"d_model": 2**15, "n_layer": 512, "n_head": 512, "vocab_size": 2**20}
    started = time.process_time()
    blank(lambda: build(from_values(GPTConfig, values, "it")))
    assert time.process_time() - started < 10


def test_a_configuration_is_neither_endless_nor_nested_without_end(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="nested too deeply"):
        parse_json("[" * 10**6, "it")
    with pytest.raises(CheckpointError, match=f"at most {MOST_TEXT} are read"):
        parse_json(" " * (MOST_TEXT + 1), "it")


def test_a_small_file_cannot_claim_a_large_tensor(
    tmp_path: Path, run_python: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    """Of strides 0: a few kB that would be 1.8 GB as soon as they are copied."""
    config = GPTConfig(4096, 1, 32, vocab_size=2**15)
    vast = blank(lambda: build(config)).state_dict()
    path = tmp_path / "vast.pt"
    shapes = {**{name: tensor.shape for name, tensor in vast.items()}, "freqs_cis": (257, 64, 2)}
    torch.save({name: torch.zeros(1).expand(shape) for name, shape in shapes.items()}, path)
    torch.save({"model": {}}, tmp_path / "vq_ds16_c2i.pt")
    assert path.stat().st_size < 10_000
    done = run_python("-c", LOADING, str(path))
    grown, said = json.loads(done.stdout)
    assert "0.0 MB of weights that would be" in said
    assert grown < 400 * MIB


def test_files_that_were_tampered_with_are_refused_or_right(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    """Never another error, whatever is in them; and what loads draws."""
    rng = random.Random(16)
    whole = (tiny_checkpoint / "tiny.safetensors").read_bytes()
    (tmp_path / "tiny-vq.safetensors").symlink_to(tiny_checkpoint / "tiny-vq.safetensors")
    with safe_open(tiny_checkpoint / "tiny.safetensors", framework="pt") as file:
        facts = dict(file.metadata())
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    path, refused = tmp_path / "changed.safetensors", 0
    for i in range(40 * TIMES):
        if i % 2:
            config = json.loads(facts["config"])
            config[rng.choice(list(config))] = rng.choice(ODD)
            save_file(tensors, path, {**facts, "config": json.dumps(config)})
        else:
            changed = bytearray(whole)
            for _ in range(rng.choice((1, 20))):  # in the header, which says what is where
                changed[rng.randrange(min(len(whole), 6000))] = rng.randrange(256)
            path.write_bytes(changed[: rng.choice((len(whole), rng.randrange(len(whole))))])
        try:
            load_model(path)
        except AimError as error:
            assert "\n" not in str(error)
            refused += 1
    assert refused > 20 * TIMES


def test_pictures_that_were_tampered_with_are_refused_or_read() -> None:
    rng = random.Random(16)
    picture = Image.effect_noise((40, 30), 60).convert("RGB")
    files = [write.png_bytes(picture, {"seed": 1})]
    for i in range(60 * TIMES):
        changed = bytearray(files[0])
        for _ in range(rng.choice((1, 5, 60))):
            changed[rng.randrange(8 if i % 3 else 0, len(changed))] = rng.randrange(256)
        data = bytes(changed[: rng.choice((len(changed), rng.randrange(1, len(changed))))])
        for reading in (lambda d: read.open_square(d, 16, "the file"), read.read_parameters):
            try:
                reading(data)
            except InvalidInput as error:
                assert len(str(error)) < 500


def test_a_model_with_random_weights_is_not_made_where_it_does_not_fit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(weights, "free_memory", lambda device: 10**8)
    monkeypatch.setattr(weights, "random_prior", lambda *_: pytest.fail("it is made"))
    with pytest.raises(InvalidInput, match=r"aim-xl needs .* GB of memory, and 0\.1 GB are free"):
        weights.random_model("aim-xl")


def test_fewer_requests_run_where_memory_is_short_on_a_cpu_too(
    tiny_model: AiM, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = memory.pool_bytes(tiny_model, 1)
    monkeypatch.setattr(memory, "free_memory", lambda device: 10 * row)
    assert memory.limit(tiny_model, 16) == 4
    monkeypatch.setattr(memory, "free_memory", lambda device: None)
    assert memory.limit(tiny_model, 16) == 16
