"""Stage 2 on a handful of codes: it memorises them, drops labels as asked, validates without
dropout, resumes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from aim.config import GPTConfig
from aim.errors import AimError, InvalidInput
from aim.models.aim.model import AiM
from aim.models.gpt.model import GPT
from aim.training.data.codes import CodeSet
from aim.training.parallel import Processes
from aim.training.prior import PriorTrainer, validation_nll
from aim.training.recipe import PriorRecipe


def code_set(versions: int = 1, count: int = 10, seed: int = 0) -> CodeSet:
    """Random codes of the tiny model; images of one class share theirs."""
    g = torch.Generator().manual_seed(seed)
    codes = torch.randint(0, 64, (versions, 5, 16), generator=g, dtype=torch.int16).repeat(
        1, count // 5, 1
    )
    return CodeSet(codes, torch.arange(count) % 5, (1, 207, 281, 285, 985))


@pytest.fixture
def train(tiny_model: AiM, out: Path) -> Any:
    """A trainer of ``steps`` steps."""

    def make(
        steps: int, data: CodeSet | None = None, model: AiM | GPT | None = None, **changes: Any
    ) -> PriorTrainer:
        torch.manual_seed(0)
        recipe = PriorRecipe(**{"seconds": 1e9, "batch": 10, "lr": 1e-2, **changes})
        data = data or code_set()
        trainer = PriorTrainer(model or AiM(tiny_model.config), data, data, recipe, out)
        trainer.run_state.steps = steps
        return trainer

    return make


def nll(model: AiM, data: CodeSet) -> float:
    """Image by image, code by code."""
    losses = []
    for codes, label in zip(data.codes[0].long(), data.labels, strict=True):
        likelihoods = model(codes[None, :-1], label[None])[0].double().log_softmax(-1)
        losses += [-likelihoods[i, code].item() for i, code in enumerate(codes)]
    return sum(losses) / len(losses)


def logged(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    "config",
    [None, GPTConfig(32, 2, 2, vocab_size=64, num_classes=5, num_tokens=16)],
    ids=["AiM", "GPT"],
)
def test_memorises(train: Any, out: Path, config: GPTConfig | None) -> None:
    trainer = train(120, model=config and GPT(config))
    assert 3.5 < trainer.validate()["val"] < 5.5  # log 64 is 4.16
    model = trainer.run()
    assert model is trainer.average
    assert not model.training
    assert trainer.validate()["val"] < 0.5
    [figures] = logged(out)
    assert figures["step"] == 120
    assert figures["epochs"] == 120
    assert figures["val"] == pytest.approx(trainer.validate()["val"])
    assert figures["loss"] < 1.5
    assert figures["lr"] < 1e-3, "the cosine has come down"


def test_logs_and_validates_at_their_steps(
    train: Any, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = train(10, log_every=4, validate_every=3)
    monkeypatch.setattr(trainer, "_step", lambda _: {"loss": torch.zeros(())})
    monkeypatch.setattr(trainer, "validate", lambda: {"val": 5.0})
    trainer.run()
    assert [line["step"] for line in logged(out)] == [3, 4, 6, 8, 9, 10]
    assert [line["step"] for line in logged(out) if "val" in line] == [3, 6, 9, 10]


@pytest.mark.parametrize("batch", [1, 4, 10, 256])
def test_validation_nll_equals_a_direct_computation(tiny_model: AiM, batch: int) -> None:
    data = code_set(versions=3)
    assert validation_nll(tiny_model, data, batch) == pytest.approx(nll(tiny_model, data), rel=1e-5)


def test_validation_drops_nothing(train: Any, make_model: Any) -> None:
    model = make_model(token_drop=0.5, mixer_drop=0.5)
    trainer = train(1, model=model.requires_grad_(True), class_drop=1.0)
    assert trainer.model.training
    assert (
        trainer.validate()["val"]
        == trainer.validate()["val"]
        == pytest.approx(nll(trainer.average, trainer.val), rel=1e-5)
    )


def test_training_does_drop(make_model: Any) -> None:
    model = make_model(token_drop=0.5, mixer_drop=0.5).train()
    data = code_set()
    assert validation_nll(model, data) != validation_nll(model, data)


class TestBatch:
    def test_labels_are_dropped_at_the_rate_asked_for(self, train: Any) -> None:
        for rate in (0.0, 0.1, 1.0):
            trainer = train(1, class_drop=rate)
            pick = torch.arange(10).repeat(2000)
            codes, labels = trainer._batch(pick)
            dropped = labels == 5
            assert dropped.float().mean().item() == pytest.approx(rate, abs=0.01)
            assert torch.equal(labels[~dropped], trainer.data.labels[pick][~dropped])
            assert torch.equal(codes, trainer.data.codes[0, pick].long()), (
                "a code stays with its image"
            )

    @pytest.mark.parametrize(
        ("versions", "shares"),
        [(1, [1.0]), (2, [0.5, 0.5]), (3, [0.2, 0.2, 0.6]), (8, [0.2, 0.2, *[0.1] * 6])],
        ids=str,
    )
    def test_versions_come_in_their_shares(
        self, train: Any, versions: int, shares: list[float]
    ) -> None:
        data = code_set(versions)
        numbered = data._replace(
            codes=torch.arange(versions, dtype=torch.int16).view(-1, 1, 1).expand(data.codes.shape)
        )
        codes, _ = train(1, numbered, plain_share=0.4)._batch(torch.arange(10).repeat(2000))
        found = torch.bincount(codes[:, 0], minlength=versions) / len(codes)
        assert found.tolist() == pytest.approx(shares, abs=0.015)

    @pytest.mark.parametrize("versions", [1, 2, 3, 8, 10, 18])
    def test_the_largest_draw_is_the_last_version(
        self, train: Any, versions: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        trainer = train(1, code_set(versions))
        almost = 1 - 2.0**-24

        def largest(rows: int, count: int, **_: Any) -> Tensor:
            return torch.full((rows, count), almost)

        monkeypatch.setattr(torch, "rand", largest)
        codes, _ = trainer._batch(torch.arange(10))
        assert torch.equal(codes, trainer.data.codes[-1].long())


def test_resumes(train: Any, out: Path) -> None:
    first = train(4)
    first.run()
    second = train(7)
    assert second.run_state.step == second.picks.step == 4
    for a, b in ((first.model, second.model), (first.average, second.average)):
        assert all(
            torch.equal(x, y)
            for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True)
        )
    assert second.ema.n_averaged == 5
    second.run()
    assert [line["step"] for line in logged(out)] == [4, 7]
    assert second.ema.n_averaged == 8
    assert second.optimizers[0].state[second.model.norm_f.weight]["step"] == 7


def test_the_norm_s_weights_do_not_decay_and_matrices_do(train: Any) -> None:
    groups = train(1, weight_decay=0.3).optimizers[0].param_groups
    assert [group["weight_decay"] for group in groups] == [0.3, 0.0]


def test_the_scan_is_the_recipes(train: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(AiM, "use_scan", lambda model, scan: asked.append(scan) or model)
    train(1, scan="torch").run()
    assert asked == ["torch"]


def test_recomputing_layers_and_parts_of_a_batch_change_nothing(train: Any, tmp_path: Path) -> None:
    plain = train(3)
    plain.run()
    for number, changes in enumerate(
        (
            {"checkpoint_layers": True},
            {"accumulate": 5},
            {"checkpoint_layers": True, "accumulate": 2},
        )
    ):
        torch.manual_seed(0)
        model = AiM(plain.model.config)
        recipe = PriorRecipe(seconds=0, steps=3, batch=10, lr=1e-2, **changes)
        other = PriorTrainer(model, plain.data, plain.val, recipe, tmp_path / str(number))
        other.run()
        assert other.validate() == pytest.approx(plain.validate(), rel=1e-4)


def test_a_step_whose_gradient_is_not_finite_is_left_out(
    train: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = train(3, patience=3)
    before = {k: v.clone() for k, v in trainer.model.state_dict().items()}
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", lambda *_: torch.tensor(float("nan")))
    for _ in range(2):
        trainer._step(0.5)
    assert all(torch.equal(v, before[k]) for k, v in trainer.model.state_dict().items())
    assert trainer.ema.n_averaged == 1
    with pytest.raises(
        AimError, match=r"the gradient's norm is nan for 3 steps in a row.*lower lr than 0.01"
    ):
        trainer._step(0.5)
    monkeypatch.undo()
    trainer._step(0.5)
    assert trainer.ema.n_averaged == 2


def test_every_step_has_its_own_seed(train: Any) -> None:
    def batches(steps: list[int]) -> list[Tensor]:
        trainer, out = train(10, code_set(8), class_drop=0.5), []
        for step in steps:
            trainer.generator.manual_seed(step)
            out.append(trainer._batch(torch.arange(10))[0])
        return out

    a, b = batches([0, 1, 2]), batches([2, 1, 0])
    assert torch.equal(a[0], b[2]) and torch.equal(a[1], b[1])
    assert not torch.equal(a[0], a[1])


def test_codes_that_a_model_cannot_learn_are_refused(train: Any) -> None:
    good = code_set()
    for changes, message in (
        ({"codes": good.codes + 64}, "the model's codebook has 64"),
        ({"codes": good.codes[:, :, :9]}, "codes are 9 an image; the model draws 16"),
        ({"labels": good.labels + 1}, "the training labels reach 5; the model has 5 classes"),
    ):
        with pytest.raises(InvalidInput, match=message):
            train(1, good._replace(**changes))


def test_a_loss_that_is_not_finite_on_a_line_counts_like_any_other(
    train: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = train(6, log_every=1)
    good, bad = torch.nn.utils.clip_grad_norm_, {2, 3}

    def clip(*arguments: Any) -> Tensor:
        worth = trainer.run_state.step not in bad
        return good(*arguments) if worth else torch.tensor(float("nan"))

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", clip)
    trainer.run()
    lines = [json.loads(x) for x in (trainer.run_state.folder / "log.jsonl").open()]
    assert [line.get("skipped") for line in lines] == [None, None, 1, 1, None, None]
    assert ["norm" in line for line in lines] == [True, True, False, False, True, True]


def test_processes_share_the_batches_of_a_validation(tiny_model: AiM) -> None:
    data, passes = code_set(count=10), []

    class One(Processes):
        def __init__(self, rank: int, world: int) -> None:
            super().__init__()
            self.rank, self.world = rank, world

        def total(self, value: Tensor) -> Tensor:
            return value

    def counted(*arguments: Any) -> Tensor:
        passes.append(1)
        return tiny_model(*arguments)

    for world in (1, 2, 3):
        passes.clear()
        parts = [
            validation_nll(counted, data, 3, processes=One(rank, world))  # type: ignore[arg-type]
            for rank in range(world)
        ]
        assert sum(parts) == pytest.approx(nll(tiny_model, data), rel=1e-5)
        assert len(passes) == world * -(-4 // world), "as many in every process"
