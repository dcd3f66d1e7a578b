"""Kernels for a GPU, where there is none: the interpreter takes what a GPU's launcher and compiler
refuse.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import subprocess
import sys

import pytest

pytest.importorskip("triton", reason="Triton is not installed")
from triton.runtime import KernelInterface

import aim.ops.triton


def launched() -> set[str]:
    """Kernels of the package but for those that are parts of others."""
    kernels = [
        value
        for found in pkgutil.walk_packages(aim.ops.triton.__path__, "aim.ops.triton.")
        for value in vars(importlib.import_module(found.name)).values()
        if isinstance(value, KernelInterface)
    ]
    parts = {k.fn.__globals__.get(name) for k in kernels for name in k.fn.__code__.co_names}
    return {f"{k.fn.__module__}.{k.__name__}" for k in kernels if k not in parts}


@pytest.mark.timeout(600)  # a minute of compiling where nothing else runs
def test_every_kernel_launches_and_compiles_without_a_gpu() -> None:
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.ops.triton.compiling"],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(launched()) > 15
    assert set(done.stdout.splitlines()) == {
        f"{kernel} sm_{capability}" for kernel in launched() for capability in (80, 90)
    }
