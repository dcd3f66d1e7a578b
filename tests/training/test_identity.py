"""A folder goes on as the run that it holds: what may not change is refused, what may is said, and
one process trains in it at a time.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from aim.config import MODELS
from aim.errors import CheckpointError, InvalidInput
from aim.training.identity import FIXED, Identity, digest, locked, read_state
from aim.training.recipe import PriorRecipe, TokenizerRecipe
from aim.training.run import Run
from tests import launching

Parts = Callable[[], dict[str, nn.Module]]
CONFIG = MODELS["aim-s"].config


def identity(recipe: PriorRecipe | None = None, **about: str) -> Identity:
    return Identity.of(
        recipe or PriorRecipe(), CONFIG, **{"data": "48 images, abc", "init": "", **about}
    )


class TestChanges:
    def test_what_stays_is_refused_with_both_values(self, tmp_path: Path) -> None:
        record = identity().record()
        for other, message in (
            (identity(data="48 images, abd"), "its data is 48 images, abc, not 48 images, abd"),
            (identity(init="0123"), "its init is nothing, not 0123"),
            (identity(PriorRecipe(seed=1)), "its seed is 0, not 1"),
            (identity(PriorRecipe(batch=128)), "its batch is 256, not 128"),
            (
                Identity.of(PriorRecipe(), dataclasses.replace(CONFIG, d_state=16)),
                "its model.d_state is 64, not 16",
            ),
        ):
            with pytest.raises(InvalidInput, match=message) as error:
                other.changes(record, tmp_path)
            assert "give another folder with --out" in str(error.value)

    def test_what_may_change_is_told(self, tmp_path: Path) -> None:
        old = identity().record()
        new = identity(PriorRecipe(lr=1e-4, seconds=9))
        assert new.changes(old, tmp_path) == [
            "seconds is 9, it was 540",
            "lr is 0.0001, it was 0.0012",
        ]
        dropped = dataclasses.replace(CONFIG, token_drop=0.3)
        about = {"data": "48 images, abc", "init": ""}
        assert Identity.of(PriorRecipe(), dropped, **about).changes(old, tmp_path) == []
        assert new.changes(None, tmp_path) == [], "a state of an earlier version"

    def test_fixed_settings_are_settings(self) -> None:
        names = {
            f.name for kind in (PriorRecipe, TokenizerRecipe) for f in dataclasses.fields(kind)
        }
        assert names >= FIXED


def test_a_digest_changes_with_any_image_or_order() -> None:
    codes = torch.randint(0, 64, (6, 16), dtype=torch.int16)
    other = codes.clone()
    other[5, 3] += 1
    found = {digest(codes), digest(other), digest(codes.flip(0)), digest(codes, torch.arange(6))}
    assert len(found) == 4
    assert digest(codes) == digest(codes.clone())


def test_a_run_goes_on_with_its_record(
    out: Path, parts: Parts, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Run(out, parts(), seconds=10, identity=identity())
    run.advance()
    run.save()
    Run(out, parts(), seconds=10, identity=identity(PriorRecipe(lr=1e-4)))
    told = "goes on at step 1 with other settings: lr is 0.0001, it was 0.0012"
    assert told in capsys.readouterr().out
    assert '"changed": ["lr is 0.0001' in (out / "log.jsonl").read_text()
    with pytest.raises(InvalidInput, match="holds another run: its data is"):
        Run(out, parts(), seconds=10, identity=identity(data="other"))


@pytest.mark.parametrize("damage", ["empty", "cut", "text", "other"])
@pytest.mark.parametrize("mmap", [True, False])
def test_a_damaged_state_says_what_to_do(out: Path, parts: Parts, damage: str, mmap: bool) -> None:
    Run(out, parts(), seconds=10).save()
    path = out / "state.pt"
    content = path.read_bytes()
    path.write_bytes(
        {"empty": b"", "cut": content[:-200], "text": b"hello " * 100}.get(damage, b"")
    )
    if damage == "other":
        torch.save([1, 2], path)
    with pytest.raises(
        CheckpointError, match=r"state.pt is empty, cut short .*delete it and begin"
    ):
        read_state(out, mmap)


class TestLock:
    def test_keeps_another_process_out_and_dies_with_its_own(self, tmp_path: Path) -> None:
        text = (
            "import sys, pathlib; from aim.training.identity import locked\n"
            "with locked(pathlib.Path(sys.argv[1])):\n"
            "    print('in', flush=True); sys.stdin.read()\n"
        )
        other = launching.script(text, tmp_path)
        try:
            assert other.stdout is not None and other.stdout.readline() == "in\n"
            with (
                pytest.raises(InvalidInput, match=f"process {other.pid} trains in .*--out"),
                locked(tmp_path),
            ):
                pass
        finally:
            other.kill()
            other.communicate()
        with locked(tmp_path), pytest.raises(InvalidInput, match="trains in"), locked(tmp_path):
            pass
        with locked(tmp_path):
            pass

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
    def test_is_not_held_by_who_was_forked_meanwhile(self, tmp_path: Path) -> None:
        """Who reads images for a run may outlive it for a moment."""
        end, wait = os.pipe()
        told, tell = os.pipe()
        with locked(tmp_path):
            if (child := os.fork()) == 0:
                os.close(wait)
                os.write(tell, b"!")
                os.read(end, 1)
                os._exit(0)
            assert os.read(told, 1) == b"!"
            with pytest.raises(InvalidInput, match="trains in"), locked(tmp_path):
                pass
        with locked(tmp_path):
            pass
        os.close(wait)
        assert os.waitpid(child, 0)[1] == 0
        for pipe in (end, told, tell):
            os.close(pipe)
