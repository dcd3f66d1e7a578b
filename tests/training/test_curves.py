"""Logs of runs as a picture."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from PIL import Image

from aim.errors import AimError, InvalidInput
from aim.training.curves import draw_curves


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    """A tokenizer's run and a prior's."""
    for name, figures in (("vq", {"psnr": 20.0}), ("aim-s", {"loss": 5.0, "val": 5.5})):
        (tmp_path / name).mkdir()
        lines = [json.dumps({"step": i, "seconds": float(i), **figures}) for i in range(3)]
        (tmp_path / name / "log.jsonl").write_text("\n".join(lines) + "\n")
    return [tmp_path / "vq", tmp_path / "aim-s"]


def test_needs_matplotlib(
    runs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(AimError, match="pip install matplotlib"):
        draw_curves(runs, tmp_path / "curves.png")


def test_a_panel_a_run(runs: list[Path], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    for count in (1, 2):
        draw_curves(runs[:count], tmp_path / "curves.png")
        assert Image.open(tmp_path / "curves.png").width == 4.5 * 110 * count
    with pytest.raises(InvalidInput, match=r"there is no .*absent/log\.jsonl"):
        draw_curves([tmp_path / "absent"], tmp_path / "curves.png")
