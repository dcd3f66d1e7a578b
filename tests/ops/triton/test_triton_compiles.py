"""Kernels for a GPU, where there is none: the interpreter takes what a GPU's launcher refuses."""

from __future__ import annotations

import importlib
import os
import pkgutil
import subprocess
import sys

import pytest

pytest.importorskip("triton", reason="Triton is not installed")
import triton.runtime

import aim.ops.triton

# names that the launcher, which Triton writes for every kernel, uses for itself
TAKEN = {"params", "specialization", "options", "grid", "warmup"}
DRAW = """
import torch
from triton import compile
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from aim.ops.triton.draw import _draw

types = {"stride": "i32", "slots": "i32", "T": "i32", "explain": "*i1"}
types |= dict.fromkeys(("logits", "settings", "weights", "notes"), "*fp32")
types |= dict.fromkeys(("positions", "partner", "seed", "last", "drawn"), "*i64")
for capability in (80, 90):
    fixed = {"V": 2048, "BLOCK": 2048, "OVERLAP": capability == 90}
    source = ASTSource(_draw, types | dict.fromkeys(fixed, "constexpr"), fixed)
    made = compile(source, GPUTarget("cuda", capability, 32), {"enable_fp_fusion": False})
    print(len(made.asm["ptx"]) > 1000)
"""


def kernels() -> list[object]:
    modules = [
        importlib.import_module(found.name)
        for found in pkgutil.walk_packages(aim.ops.triton.__path__, "aim.ops.triton.")
    ]
    found = {
        (module.__name__, name): value
        for module in modules
        for name, value in vars(module).items()
        if isinstance(value, triton.runtime.KernelInterface)
    }
    return list(found.values())


def test_no_kernel_takes_a_name_of_the_launcher() -> None:
    assert len(kernels()) > 20
    assert [
        (k.__name__, TAKEN & set(k.arg_names)) for k in kernels() if TAKEN & set(k.arg_names)
    ] == []


def test_the_draw_compiles_without_a_gpu() -> None:
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-c", DRAW], env=environment, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout.split()) == (0, ["True", "True"]), done.stderr[-2000:]
