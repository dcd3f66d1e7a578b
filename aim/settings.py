"""Every environment variable that this package reads, typed, in one place."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from aim.errors import InvalidInput

DTYPES = ("auto", "float32", "bfloat16")
BACKENDS = ("auto", "fused", "mamba-ssm", "eager")
MAX_THREADS = 1024
MAX_PROCESSES = 2**16
SWITCH = {"0": False, "1": True, "false": False, "true": True, "no": False, "yes": True}


@dataclass(frozen=True)
class Settings:
    """Defaults of the command line and the page. A variable that is unset or empty takes the value
    below.

    ``device`` AIM_DEVICE, ``dtype`` AIM_DTYPE, ``backend`` AIM_BACKEND (how a step is computed),
    ``model`` AIM_MODEL (a name, folder, file or hub id), ``threads`` AIM_THREADS (CPU threads;
    None: see ``device.set_threads``), ``checkpoints`` AIM_CHECKPOINTS (a folder to find the bundled
    models in; None is where the package has them), ``hub`` HF_ENDPOINT (the address of the model
    hub; huggingface_hub's own when empty), ``screen`` DISPLAY or WAYLAND_DISPLAY (whether there is
    a Linux desktop to open a browser on); ``rank`` RANK, ``world`` WORLD_SIZE and ``local_rank``
    LOCAL_RANK, as torchrun sets them: which of how many processes this is, and which on its
    machine; ``mcp`` AIM_MCP (whether the page is an MCP server, too), ``zero`` SPACES_ZERO_GPU
    (whether this is a Hugging Face Space that has a GPU only inside its calls).
    """

    device: str = "auto"
    dtype: str = "auto"
    model: str = "aim-s"
    threads: int | None = None
    checkpoints: Path | None = None
    hub: str = ""
    screen: bool = False
    backend: str = "auto"
    rank: int = 0
    world: int = 1
    local_rank: int = 0
    mcp: bool = False
    zero: bool = False

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ) -> Settings:
        """Settings from the environment; InvalidInput names the variable that has a bad value."""
        given = {
            name: value.strip()
            for name, value in environ.items()
            if name.startswith("AIM_") and value.strip()
        }
        device = given.get("AIM_DEVICE", cls.device).lower()
        if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", device):
            raise InvalidInput(
                f"AIM_DEVICE is {device!r}; it must be auto, cpu, cuda, cuda:<number> or mps"
            )
        dtype = given.get("AIM_DTYPE", cls.dtype).lower()
        if dtype not in DTYPES:
            raise InvalidInput(f"AIM_DTYPE is {dtype!r}; it must be one of {', '.join(DTYPES)}")
        backend = given.get("AIM_BACKEND", cls.backend).lower()
        if backend not in BACKENDS:
            raise InvalidInput(
                f"AIM_BACKEND is {backend!r}; it must be one of {', '.join(BACKENDS)}"
            )
        threads = (
            _number(given, "AIM_THREADS", 1, 1, MAX_THREADS) if "AIM_THREADS" in given else None
        )
        checkpoints = _folder(given["AIM_CHECKPOINTS"]) if "AIM_CHECKPOINTS" in given else None
        hub = environ.get("HF_ENDPOINT", cls.hub).strip().rstrip("/")
        screen = any(environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
        world = _number(environ, "WORLD_SIZE", 1, 1, MAX_PROCESSES)
        rank, local_rank = (
            _number(environ, name, 0, 0, world - 1) for name in ("RANK", "LOCAL_RANK")
        )
        model = given.get("AIM_MODEL", cls.model)
        mcp = given.get("AIM_MCP", "0").lower()
        if mcp not in SWITCH:
            raise InvalidInput(f"AIM_MCP is {mcp!r}; it must be one of {', '.join(SWITCH)}")
        zero = SWITCH.get(environ.get("SPACES_ZERO_GPU", "").strip().lower(), False)
        return cls(
            device,
            dtype,
            model,
            threads,
            checkpoints,
            hub,
            screen,
            backend,
            rank,
            world,
            local_rank,
            SWITCH[mcp],
            zero,
        )


def _number(environ: Mapping[str, str], name: str, default: int, low: int, high: int) -> int:
    value = environ.get(name, "").strip() or str(default)
    if not re.fullmatch(r"[0-9]{1,9}", value) or not low <= int(value) <= high:
        raise InvalidInput(f"{name} is {value!r}; it must be a whole number in [{low}, {high}]")
    return int(value)


def _folder(value: str) -> Path:
    folder = Path(value).expanduser()
    if not folder.is_dir():
        raise InvalidInput(f"AIM_CHECKPOINTS is {value!r}; it must be a folder that exists")
    return folder
