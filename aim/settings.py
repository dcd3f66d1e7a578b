"""Every environment variable that this package reads, typed, in one place."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from aim.errors import InvalidInput

DTYPES = ("auto", "float32", "bfloat16")
BACKENDS = ("auto", "gpu", "cpu", "mamba-ssm", "eager")
AHEAD = ("auto", "off", "2", "4", "8", "16")
BACKEND_ALIASES = {"fused": "gpu"}  # what one was called before
MAX_THREADS = 1024
MAX_PROCESSES = 2**16
SWITCH = {"0": False, "1": True, "false": False, "true": True, "no": False, "yes": True}


def _limit(variable: str, default: int, low: int, high: int, unit: str) -> Any:
    return field(default=default, metadata={"is": (variable, low, high, unit)})


@dataclass(frozen=True)
class Limits:
    """How much a page takes on: a whole number each, by the variable that sets it."""

    places: int = _limit("AIM_PLACES", 16, 1, 4096, "pictures that a model draws at once")
    waiting: int = _limit("AIM_WAITING", 64, 0, 4096, "more that wait in its line")
    share: int = _limit("AIM_SHARE", 24, 1, 4096, "pictures of one visitor at once")
    address_share: int = _limit("AIM_ADDRESS_SHARE", 80, 1, 4096, "of all at one address")
    keep_minutes: int = _limit("AIM_KEEP_MINUTES", 60, 1, 10080, "min that files are kept")
    download_minutes: int = _limit("AIM_DOWNLOAD_MINUTES", 60, 1, 1440, "min to fetch a model")
    drain_seconds: int = _limit("AIM_DRAIN_SECONDS", 25, 0, 3600, "s to finish in at the end")
    sessions: int = _limit("AIM_SESSIONS", 200, 1, 10000, "visits that are remembered")
    upload_mb: int = _limit("AIM_UPLOAD_MB", 30, 1, 1000, "MB that come in at once")
    receive_seconds: int = _limit("AIM_RECEIVE_SECONDS", 60, 1, 3600, "s in which they come")

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ) -> Limits:
        """As ``Settings.from_env``."""
        given = _given(environ)
        told = {f.name: (f.default, *f.metadata["is"]) for f in fields(cls)}
        return cls(
            **{
                name: _number(given, variable, default, low, high)
                for name, (default, variable, low, high, _) in told.items()
            }
        )


@dataclass(frozen=True)
class Settings:
    """Defaults of the command line and the page. A variable that is unset or empty takes the value
    below.

    ``device`` AIM_DEVICE, ``dtype`` AIM_DTYPE, ``backend`` AIM_BACKEND (how a step is computed),
    ``ahead`` AIM_AHEAD (how many codes of a picture a step looks at, see ``aim.load``),
    ``model`` AIM_MODEL (a name, folder, file or hub id), ``threads`` AIM_THREADS (CPU threads;
    None: see ``device.set_threads``), ``checkpoints`` AIM_CHECKPOINTS (a folder to find the bundled
    models in; None is where the package has them), ``hub`` HF_ENDPOINT (the address of the model
    hub; huggingface_hub's own when empty), ``screen`` DISPLAY or WAYLAND_DISPLAY (whether there is
    a Linux desktop to open a browser on); ``rank`` RANK, ``world`` WORLD_SIZE and ``local_rank``
    LOCAL_RANK, as torchrun sets them: which of how many processes this is, and which on its
    machine; ``mcp`` AIM_MCP (whether the page is an MCP server, too), ``zero`` SPACES_ZERO_GPU
    (whether this is a Hugging Face Space that has a GPU only inside its calls), ``port``
    GRADIO_SERVER_PORT (of the page; None is the first free one from 7860), ``host``
    GRADIO_SERVER_NAME (the address it listens on; None is this machine alone), ``root``
    GRADIO_ROOT_PATH (the path below which a proxy shows it); ``replicas`` AIM_REPLICAS (how many
    engines draw, at the least and at the most, see ``aim.serving``; none are a single engine in
    this process) and ``cluster`` AIM_CLUSTER (the address of the Ray cluster that they are on).
    """

    device: str = "auto"
    dtype: str = "auto"
    model: str = "aim-s"
    threads: int | None = None
    checkpoints: Path | None = None
    hub: str = ""
    screen: bool = False
    backend: str = "auto"
    ahead: str = "auto"
    rank: int = 0
    world: int = 1
    local_rank: int = 0
    mcp: bool = False
    zero: bool = False
    port: int | None = None
    host: str | None = None
    root: str = ""
    replicas: tuple[int, int] = (0, 0)
    cluster: str = ""

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ) -> Settings:
        """Settings from the environment; InvalidInput names the variable that has a bad value."""
        given = _given(environ)
        device = given.get("AIM_DEVICE", cls.device).lower()
        if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", device):
            raise InvalidInput(
                f"AIM_DEVICE is {device!r}; it must be auto, cpu, cuda, cuda:<number> or mps"
            )
        world = _number(given, "WORLD_SIZE", 1, 1, MAX_PROCESSES)
        return cls(
            device=device,
            dtype=_choice(given, "AIM_DTYPE", cls.dtype, DTYPES),
            model=given.get("AIM_MODEL", cls.model),
            threads=_number(given, "AIM_THREADS", 0, 1, MAX_THREADS) or None,
            checkpoints=_folder(given, "AIM_CHECKPOINTS"),
            hub=given.get("HF_ENDPOINT", cls.hub).rstrip("/"),
            screen="DISPLAY" in given or "WAYLAND_DISPLAY" in given,
            backend=_choice(given, "AIM_BACKEND", cls.backend, BACKENDS, BACKEND_ALIASES),
            ahead=_choice(given, "AIM_AHEAD", cls.ahead, AHEAD),
            rank=_number(given, "RANK", 0, 0, world - 1),
            world=world,
            local_rank=_number(given, "LOCAL_RANK", 0, 0, world - 1),
            mcp=SWITCH[_choice(given, "AIM_MCP", "0", tuple(SWITCH))],
            zero=SWITCH.get(given.get("SPACES_ZERO_GPU", "").lower(), False),
            port=_number(given, "GRADIO_SERVER_PORT", 0, 1, 65535) or None,
            host=given.get("GRADIO_SERVER_NAME"),
            root=given.get("GRADIO_ROOT_PATH", ""),
            replicas=span("AIM_REPLICAS", given["AIM_REPLICAS"])
            if "AIM_REPLICAS" in given
            else (0, 0),
            cluster=given.get("AIM_CLUSTER", ""),
        )


def span(name: str, value: str) -> tuple[int, int]:
    """The least and the most of "4" or "2-8", 0 for nothing; InvalidInput for what is neither."""
    if not value:
        return 0, 0
    found = re.fullmatch(r"([0-9]{1,6})(?:-([0-9]{1,6}))?", value.strip())
    low, high = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
    if not 1 <= low <= high <= MAX_PROCESSES:
        raise InvalidInput(
            f"{name} is {value!r}; it must be a number from 1 to {MAX_PROCESSES}, or the least and "
            "the most, as 2-8"
        )
    return low, high


def _given(environ: Mapping[str, str]) -> dict[str, str]:
    return {name: value.strip() for name, value in environ.items() if value.strip()}


def _choice(
    given: Mapping[str, str],
    name: str,
    default: str,
    allowed: tuple[str, ...],
    aliases: Mapping[str, str] = {},
) -> str:
    value = given.get(name, default).lower()
    value = aliases.get(value, value)
    if value not in allowed:
        raise InvalidInput(f"{name} is {value!r}; it must be one of {', '.join(allowed)}")
    return value


def _number(given: Mapping[str, str], name: str, default: int, low: int, high: int) -> int:
    if name not in given:
        return default
    value = given[name]
    if not re.fullmatch(r"[0-9]{1,9}", value) or not low <= int(value) <= high:
        raise InvalidInput(f"{name} is {value!r}; it must be a whole number in [{low}, {high}]")
    return int(value)


def _folder(given: Mapping[str, str], name: str) -> Path | None:
    if name not in given:
        return None
    folder = Path(given[name]).expanduser()
    if not folder.is_dir():
        raise InvalidInput(f"{name} is {given[name]!r}; it must be a folder that exists")
    return folder
