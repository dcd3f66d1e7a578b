"""The bar on standard error."""

from __future__ import annotations

import pytest

from aim.cli.progress import progress


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rich takes standard error for a terminal, wide enough for the whole line."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")


def shown(capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    """What a command with a bar prints: standard output, standard error."""
    with progress() as bar:
        bar.say("Drawing 2 images")
        bar.move(3, 4)
        print("a.png")
    return capsys.readouterr()


@pytest.mark.usefixtures("terminal")
def test_says_what_is_done_and_how_much_and_leaves_output_alone(
    capsys: pytest.CaptureFixture[str],
) -> None:
    out, err = shown(capsys)
    assert out == "a.png\n"
    assert "Drawing 2 images ..." in err and "75%" in err


@pytest.mark.usefixtures("terminal")
def test_what_was_done_before_counts_no_more(capsys: pytest.CaptureFixture[str]) -> None:
    with progress() as bar:
        bar.move(3, 4, "Half")
        bar.say("Whole")
    err = capsys.readouterr().err
    assert "Whole ..." in err and "75%" not in err


def test_is_silent_where_nobody_watches(capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(capsys) == ("a.png\n", "")


@pytest.mark.usefixtures("terminal")
def test_only_the_first_process_speaks(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    assert shown(capsys) == ("a.png\n", "")
