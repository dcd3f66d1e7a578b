"""Which path a model takes, and how much of it fits."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from aim.config import SamplingParams
from aim.engine import Engine, Finished, Request
from aim.engine import backend as backends
from aim.engine.backend import Backend, check, pick
from aim.engine.memory import fitting, pool_bytes
from aim.engine.runner import batch_sizes
from aim.errors import InvalidInput
from aim.models.aim.cpu import CPUAiM
from aim.models.aim.mamba_ssm import MambaSSMAiM
from aim.models.aim.model import AiM
from aim.models.gpt.cpu import CPUGPT
from aim.models.prior import Prior
from aim.settings import BACKENDS, Settings
from tests import foreign
from tests.engine.late import LateQueue
from tests.tiny import random_gpt, random_model

either_prior = pytest.mark.parametrize(
    "tiny_model", [random_model(), random_gpt()], ids=["aim", "gpt"]
)


class Gpu:
    """A model that says it is on a GPU, when asked where to pick its path; the rest is the
    model's.
    """

    def __init__(self, model: Prior) -> None:
        self._model = model
        self.device = torch.device("cuda")

    def __getattr__(self, name: str) -> object:
        return getattr(self._model, name)


class Fast:
    """Stands for the fused form of a prior: at first one that is the model itself."""

    def __init__(self, module: ModuleType, name: str) -> None:
        self._module, self._name = module, name
        self.becomes(lambda gpu: gpu._model)

    def becomes(self, make: Callable[[Any], Any]) -> None:
        setattr(self._module, self._name, make)

    def vanishes(self) -> None:
        delattr(self._module, self._name)


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch, queue: LateQueue, tiny_model: Prior) -> Fast:
    """The fused form of ``tiny_model``, on a machine that could have a GPU."""
    module, name = ("aim.gpu", "GPUAiM") if isinstance(tiny_model, AiM) else ("gpt.gpu", "GPUGPT")
    stand_in = ModuleType(f"aim.models.{module}")
    monkeypatch.setitem(sys.modules, stand_in.__name__, stand_in)
    monkeypatch.setattr(backends, "_obstacle", lambda device: "")
    return Fast(stand_in, name)


@either_prior
def test_on_a_cpu_it_is_packed_and_nothing_is_said(
    tiny_model: Prior, caplog: pytest.LogCaptureFixture
) -> None:
    packed = pick(tiny_model)
    assert packed.name == "cpu"
    assert type(packed.model) is (CPUAiM if isinstance(tiny_model, AiM) else CPUGPT)
    assert packed.model.model is tiny_model
    assert pick(tiny_model, "eager") == Backend("eager", tiny_model)
    assert not caplog.records


@pytest.mark.parametrize("name", ["cpu", "eager"])
def test_a_backend_is_asked_for_by_the_name_it_reports(name: str) -> None:
    assert pick(random_model(), name).name == name


@either_prior
def test_the_old_name_of_the_kernels_is_taken(fast: Fast, tiny_model: Prior) -> None:
    assert pick(Gpu(tiny_model), "gpu").name == pick(Gpu(tiny_model), "fused").name == "gpu"
    with pytest.raises(InvalidInput, match="'cpu', but the device is cuda"):
        pick(Gpu(tiny_model), "cpu")
    assert Settings.from_env({"AIM_BACKEND": "fused"}).backend == "gpu"


@pytest.mark.parametrize("name", [name for name in BACKENDS if name != "auto"])
def test_every_backend_is_described(name: str) -> None:
    said = Backend(name, None, "for a reason").describe()
    assert said.endswith(" (for a reason)")
    assert ("eager" in said) == (name == "eager")


def test_what_cannot_be_is_refused_before_a_model_is_loaded() -> None:
    cpu = torch.device("cpu")
    with pytest.raises(
        InvalidInput, match="'turbo'; it must be one of auto, gpu, cpu, mamba-ssm, eager"
    ):
        check("turbo", cpu)
    for wanted in ("gpu", "mamba-ssm"):
        with pytest.raises(
            InvalidInput,
            match=f"'{wanted}', but it needs an NVIDIA GPU, and the device is cpu; take "
            "auto or eager",
        ):
            check(wanted, cpu)
    assert "cpu" in check("auto", cpu)


@pytest.mark.parametrize(
    ("capability", "triton", "reason"),
    [((7, 5), True, "8.0 or more, and Old One has 7.5"), ((9, 0), False, "Triton")],
)
def test_what_stands_in_the_way(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    tiny_model: AiM,
    capability: tuple,
    triton: bool,
    reason: str,
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Old One")
    monkeypatch.setattr(
        backends.importlib.util, "find_spec", lambda name: object() if triton else None
    )
    gpu = Gpu(tiny_model)
    with pytest.raises(InvalidInput, match="take auto or eager"):
        pick(gpu, "gpu")
    with caplog.at_level(logging.WARNING, "aim"):
        picked = pick(gpu)
    assert (picked.name, picked.model) == ("eager", gpu)
    assert reason in picked.reason
    [record] = caplog.records
    assert record.getMessage() == f"Decoding with eager PyTorch, which is slower: {picked.reason}"


@either_prior
class TestFused:
    def test_where_it_runs(self, fast: Fast, queue: LateQueue, tiny_model: Prior) -> None:
        picked = pick(Gpu(tiny_model))
        assert (picked.name, picked.model, picked.reason) == ("gpu", tiny_model, "")
        engine = picked.engine(2)
        request = Request(1, SamplingParams(cfg_scale=3.0), seed=4)
        codes = [e.codes.tolist() for e in engine.run([request]) if isinstance(e, Finished)]
        assert codes == [
            e.codes.tolist()
            for e in Engine(tiny_model, 2, captured=False).run([request])
            if isinstance(e, Finished)
        ]
        assert engine.graphs.captures == 1

    def test_eager_if_asked_for(self, fast: Fast, queue: LateQueue, tiny_model: Prior) -> None:
        gpu = Gpu(tiny_model)
        assert pick(gpu, "eager") == Backend("eager", gpu)
        engine = Backend("eager", tiny_model).engine(2)
        list(engine.run([Request(1)]))
        assert engine.graphs.captures == 0

    @pytest.mark.parametrize(
        "trouble",
        [
            lambda fast, queue: fast.becomes(lambda model: 1 / 0),
            lambda fast, queue: setattr(queue, "refuse", True),
            lambda fast, queue: setattr(queue, "broken", True),
            lambda fast, queue: fast.vanishes(),
        ],
        ids=[
            "it cannot be built",
            "it cannot be captured",
            "it does not run",
            "it cannot be imported",
        ],
    )
    def test_where_it_does_not_run(
        self,
        fast: Fast,
        queue: LateQueue,
        tiny_model: Prior,
        caplog: pytest.LogCaptureFixture,
        trouble: Callable,
    ) -> None:
        trouble(fast, queue)
        gpu = Gpu(tiny_model)
        with (
            caplog.at_level(logging.WARNING, "aim.engine.backend"),
            caplog.at_level(logging.WARNING, "aim"),
        ):
            picked = pick(gpu)
        assert (picked.name, picked.model) == ("eager", gpu)
        assert "fused kernels do not run here" in picked.reason
        assert picked.reason in caplog.records[-1].getMessage()
        with pytest.raises(InvalidInput, match="fused kernels do not run here"):
            pick(gpu, "gpu")

    def test_a_model_that_it_does_not_take_says_why(self, fast: Fast, tiny_model: Prior) -> None:
        def refuse(model: object) -> None:
            raise InvalidInput("headdim is 24")

        fast.becomes(refuse)
        assert pick(Gpu(tiny_model)).reason == "headdim is 24"


class TestMambaSsm:
    REQUESTS = (
        Request(1, SamplingParams(cfg_scale=3.0), seed=4),
        Request(2, SamplingParams(cfg_scale=1.0), seed=5),
    )

    @pytest.fixture(autouse=True)
    def _gpu(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(backends, "_obstacle", lambda device: "")
        monkeypatch.setattr(backends, "MambaSSMAiM", lambda gpu: MambaSSMAiM(gpu._model))

    def codes(self, engine: Engine) -> list[list[int]]:
        return [
            event.codes.tolist()
            for event in engine.run(list(self.REQUESTS))
            if isinstance(event, Finished)
        ]

    def test_where_it_runs(
        self, monkeypatch: pytest.MonkeyPatch, queue: LateQueue, tiny_model: AiM
    ) -> None:
        foreign.install(monkeypatch)
        picked = pick(Gpu(tiny_model), "mamba-ssm")
        assert (picked.name, type(picked.model), picked.reason) == ("mamba-ssm", MambaSSMAiM, "")
        engine = picked.engine(2)
        assert self.codes(engine) == self.codes(Engine(tiny_model, 2, captured=False))
        assert engine.graphs.captures == 1

    def test_one_package_will_do(
        self,
        monkeypatch: pytest.MonkeyPatch,
        queue: LateQueue,
        tiny_model: AiM,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        foreign.install(monkeypatch, ["mamba_ssm"])
        with caplog.at_level(logging.WARNING, "aim"):
            picked = pick(Gpu(tiny_model), "mamba-ssm")
        assert picked.name == "mamba-ssm"
        assert picked.reason.startswith("causal_conv1d does not import (ModuleNotFoundError")
        assert picked.reason in caplog.records[-1].getMessage()
        assert len(self.codes(picked.engine(2))) == 2

    def test_it_need_not_be_captured(
        self, monkeypatch: pytest.MonkeyPatch, queue: LateQueue, tiny_model: AiM
    ) -> None:
        foreign.install(monkeypatch)
        queue.refuse = True
        engine = pick(Gpu(tiny_model), "mamba-ssm").engine(2)
        assert (len(self.codes(engine)), engine.graphs.captures) == (2, 0)

    def test_without_the_packages_it_is_refused_before_a_model_is_loaded(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        foreign.install(monkeypatch, [])
        with pytest.raises(
            InvalidInput,
            match=r"mamba_ssm \(ModuleNot.* nor causal_conv1d \(ModuleNot.*requirements-cuda.txt",
        ):
            check("mamba-ssm", torch.device("cuda"))

    def test_kernels_that_fail_are_told(
        self, monkeypatch: pytest.MonkeyPatch, queue: LateQueue, tiny_model: AiM
    ) -> None:
        foreign.install(monkeypatch)
        monkeypatch.setattr(
            sys.modules["causal_conv1d"], "causal_conv1d_update", lambda *args, **options: 1 / 0
        )
        with pytest.raises(
            InvalidInput,
            match=r"mamba-ssm's kernels do not run here \(ZeroDivisionError.*take auto or eager",
        ):
            pick(Gpu(tiny_model), "mamba-ssm")

    def test_it_is_not_for_a_transformer(self, monkeypatch: pytest.MonkeyPatch) -> None:
        foreign.install(monkeypatch)
        with pytest.raises(
            InvalidInput, match=r"'mamba-ssm', but .* this one is a Transformer; take auto or eager"
        ):
            pick(Gpu(random_gpt()), "mamba-ssm")

    def test_auto_does_not_take_it(
        self, monkeypatch: pytest.MonkeyPatch, fast: Fast, queue: LateQueue, tiny_model: AiM
    ) -> None:
        foreign.install(monkeypatch)
        assert pick(Gpu(tiny_model)).name == "gpu"
        fast.vanishes()
        assert pick(Gpu(tiny_model)).name == "eager"


@pytest.mark.parametrize(
    ("device", "dtype", "slots", "sizes"),
    [
        ("cpu", torch.float32, 8, (4, 8)),
        ("cpu", torch.float32, 2, (4,)),
        ("cpu", torch.bfloat16, 6, (2, 4, 6)),
        ("mps", torch.float32, 32, (32,)),
        ("cuda", torch.float32, 32, (32,)),
        ("cuda", torch.bfloat16, 32, (2, 4, 8, 16, 32)),
        ("cuda", torch.bfloat16, 2, (2,)),
        ("cuda", torch.bfloat16, 4, (2, 4)),
        ("cuda", torch.bfloat16, 34, (2, 4, 8, 16, 32, 34)),
        ("cuda", torch.bfloat16, 512, (2, 4, 8, 16, 32, 64, 128, 256, 512)),
    ],
)
def test_sizes_of_batches(device: str, dtype: torch.dtype, slots: int, sizes: tuple) -> None:
    assert batch_sizes(torch.device(device), dtype, slots) == sizes


class TestMemory:
    @either_prior
    def test_pools_are_measured_without_being_made(self, tiny_model: Prior) -> None:
        made = sum(part.nbytes for part in tiny_model.new_state(6))
        assert pool_bytes(tiny_model, 6) > made
        assert pool_bytes(tiny_model, 12) == 2 * pool_bytes(tiny_model, 6)
        c = tiny_model.config  # lines of logits: 64 in a pass, and a grid's line of a slot's
        ahead = 4 * 4 * (64 - 6) * c.vocab_size + 6 * 2 * 4 * c.vocab_size
        read = sum(part.nbytes for part in tiny_model.new_state(6, 16)) - made
        assert pool_bytes(tiny_model, 6, 16) == pool_bytes(tiny_model, 6) + ahead + read
        vast = SimpleNamespace(
            config=tiny_model.config,
            device=tiny_model.device,
            condition=tiny_model.condition,
            new_state=lambda slots: (torch.zeros(slots, 10**9),),
        )
        assert pool_bytes(vast, 10**6) > 4 * 10**15
        assert next(iter(tiny_model.new_state(1))).device.type == "cpu", "only while measured"

    @pytest.mark.parametrize(
        ("free", "fits"), [(1000, 16), (320, 16), (319, 8), (90, 4), (25, 1), (0, 1), (-5, 1)]
    )
    def test_as_many_as_fit(self, caplog: pytest.LogCaptureFixture, free: int, fits: int) -> None:
        with caplog.at_level(logging.WARNING, "aim"):
            assert fitting(16, lambda slots: 10 * slots, free) == fits
        assert [f"{fits} at once" in record.getMessage() for record in caplog.records] == [True] * (
            fits < 16
        )
