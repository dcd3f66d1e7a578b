"""The bar on standard error, or the lines in place of it."""

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


def test_what_is_soon_done_is_silent_where_nobody_watches(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert shown(capsys) == ("a.png\n", "")


def test_a_line_now_and_then_where_nobody_watches(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of what takes an hour: the first after half a minute, then fewer."""
    now = 0.0
    monkeypatch.setattr("aim.cli.progress.time.monotonic", lambda: now)
    with progress() as bar:
        now = 40.0
        bar.say("Drawing")
        for second in range(3601):
            now = 40.0 + second
            bar.move(3600 + second, 7200)  # half was there
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert out == "" and lines[0] == "Drawing ..."
    assert lines[1] == "Drawing ... 50%, 0:59:30 left"
    assert 20 < len(lines) < 50 and lines[-1].startswith("Drawing ... 9")


@pytest.mark.usefixtures("terminal")
def test_only_the_first_process_speaks(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    assert shown(capsys) == ("a.png\n", "")
