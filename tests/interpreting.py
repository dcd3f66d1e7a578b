"""Triton's interpreter without what it does in vain, which is half of its time."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from types import SimpleNamespace

from triton import language
from triton.runtime import interpreter


@functools.cache
def builtins(package: object) -> list[str]:
    """Names of what the interpreter replaces in a part of the language."""
    return [name for name, value in inspect.getmembers(package) if language.core.is_builtin(value)]


def hurry() -> None:
    """Look through the language once, not at every call of a function within a kernel; and compute
    no conditions of overflow, which are dropped unless Triton is debugged.
    """
    interpreter.inspect = SimpleNamespace(
        **vars(inspect)
        | {"getmembers": lambda package: [(n, getattr(package, n)) for n in builtins(package)]}
    )
    builder = interpreter.interpreter_builder
    builder.options = dataclasses.replace(builder.options, sanitize_overflow=False)
