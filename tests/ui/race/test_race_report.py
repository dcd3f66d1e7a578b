"""What the page says of measurements: numbers, bars, lines, who was first, and the pictures'
sheet.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable

import pytest

from aim.bench.race import Race, race
from aim.bench.runs import Spread
from aim.bench.scaling import Cost, Missing, Scaling
from aim.bench.sequence_cost import kept
from aim.pipeline import Pipeline
from aim.ui.race.charts import Bar, Line, Point, bars, chart, number, seconds, size, table
from aim.ui.race.report import replay_of, report, verdict
from aim.ui.race.scaling_report import memory_chart, scaling_report
from pages import Brake


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.01234, "0.0123"),
        (0.9999, "1.00"),
        (1.2345, "1.23"),
        (99.96, "100"),
        (123.4, "123"),
        (12345.6, "12,300"),
        (1e6, "1,000,000"),
    ],
)
def test_numbers_have_three_digits(value: float, text: str):
    assert number(value) == text


def test_units_fit_the_size():
    assert [seconds(value) for value in (0.00123, 0.0999, 0.123, 12.34)] == [
        "1.23 ms",
        "99.9 ms",
        "0.123 s",
        "12.3 s",
    ]
    assert [size(count) for count in (None, 12, 4_096, 6_420_000, 1_500_000_000)] == [
        "-",
        "12 B",
        "4.10 kB",
        "6.42 MB",
        "1.50 GB",
    ]


def test_bars_are_as_long_as_their_medians_and_carry_their_numbers():
    html = bars("A <b>", [Bar("aim", "aim", 0.5, 0.4, 0.6), Bar("gpt", "gpt", 1.0, 0.9, 2.0)])
    assert re.findall(
        r"width: ([\d.]+)%\"></span><span class=\"aim-whisker\" style=\"left: ([\d.]+)%; width: "
        r"([\d.]+)%",
        html,
    ) == [
        ("25.0", "20.0", "10.0"),
        ("50.0", "45.0", "55.0"),
    ]
    assert "A &lt;b&gt;" in html
    assert "<b>0.500 s</b> <span>0.400 s to 0.600 s</span>" in html


def test_a_chart_draws_what_was_measured_whole_and_the_rest_dashed():
    lines = [
        Line("aim", "aim", [Point(256, 1.0), Point(1024, 4.0), Point(4096, 16.0, measured=False)]),
        Line("gpt", "gpt", [Point(256, 0.5), Point(1024, 3.0)]),
        Line("none", "gpt", []),
    ]
    svg = chart("Title", "codes", "seconds", lines)
    assert svg.count("<circle") == 3 + 1 and svg.count("<rect") == 2 + 1  # the legend's, too
    assert svg.count("aim-dashed") == svg.count("aim-hollow") == 1
    assert "aim: 1.00 at 256, 4.00 at 1,024, 16.0 at 4,096; gpt: 0.500 at 256, 3.00 at 1,024" in svg
    across = [
        float(x)
        for x in re.findall(r'<circle class="aim-mark aim-aim(?: aim-hollow)?" cx="([\d.]+)"', svg)
    ][:3]
    assert across[1] - across[0] == pytest.approx(across[2] - across[1], abs=0.2), (
        "powers of four are evenly spaced"
    )
    heights = [float(y) for y in re.findall(r'cy="([\d.]+)"', svg)][:3]
    assert heights == sorted(heights, reverse=True)


def test_a_chart_of_one_value_or_none_does_not_fail():
    assert "<circle" in chart("t", "x", "y", [Line("aim", "aim", [Point(1, 3.0)])])
    assert chart("t", "x", "y", [Line("aim", "aim", [])]) == ""


def test_a_table_escapes_and_names_its_rows():
    html = table(["", "a"], [["<row>", "1"]], "caption & more")
    assert '<th scope="row">&lt;row&gt;</th><td>1</td>' in html
    assert "caption &amp; more" in html


@pytest.fixture(scope="module")
def raced(make_rival: Callable[[str, Brake], Pipeline]) -> Race:
    """A race of two tiny models, five pictures at once."""
    result, _ = race(
        [make_rival("aim-s", Brake()), make_rival("gpt-s", Brake())], "goldfish", 5, bandwidth=1e10
    )
    return result


def timed(raced: Race, *spreads: Spread) -> Race:
    racers = tuple(
        dataclasses.replace(racer, seconds=spread)
        for racer, spread in zip(raced.racers, spreads, strict=True)
    )
    return dataclasses.replace(raced, racers=racers)


def test_the_verdict_says_when_laps_overlap(raced: Race):
    clear = timed(raced, Spread(2.0, 1.9, 2.1), Spread(1.0, 0.9, 1.1))
    assert verdict(clear) == (
        "gpt-s had its 5 pictures first: 1.00 s against 2.00 s, 2.00 times as fast, "
        "medians of 5 laps each."
    )
    close = timed(raced, Spread(1.0, 0.9, 1.2), Spread(1.05, 1.0, 1.1))
    assert verdict(close).startswith("aim-s had its 5 pictures first")
    assert verdict(close).endswith("; their laps overlap, so another race may end otherwise.")


def test_the_report_says_what_is_not_clean(raced: Race):
    assert "aim-caution" not in report(raced, random_weights=False, disturbed=False)
    assert "timing only" in report(raced, random_weights=True, disturbed=False)
    assert "Somebody was drawing" in report(raced, random_weights=False, disturbed=True)


def test_the_replay_is_of_each_one_s_median_lap(raced: Race):
    value = replay_of(raced)
    assert (value["grid"], value["pictures"], value["columns"]) == (4, 5, 3)
    for shown, racer in zip(value["racers"], raced.racers, strict=True):
        assert shown["seconds"] == pytest.approx(
            sorted(lap.seconds for lap in racer.laps)[2], abs=1e-5
        )
        assert shown["code_seconds"] == pytest.approx(racer.replay.code_seconds, abs=1e-5)
        assert shown["code_seconds"][-1] < shown["seconds"]
    many = replay_of(dataclasses.replace(raced, batch=64))
    assert (many["pictures"], many["columns"]) == (16, 4)


def test_the_memory_of_a_picture_is_counted_as_the_models_keep_it(
    make_rival: Callable[[str, Brake], Pipeline], raced: Race
):
    for racer in raced.racers:
        config = make_rival(racer.name, Brake()).model.config
        assert kept(config, 16) == racer.sequence_bytes
    html = memory_chart(["aim-b", "gpt-b"])
    assert html.count("<circle") == html.count("<rect") == 4 + 1
    assert "aim-b: 38.8 at 256, 38.8 at 1,024" in html and "gpt-b: 37.7 at 256, 151 at" in html


def test_scaling_tells_measured_from_interpolated_and_what_is_missing(raced: Race):
    def cost(name: str, tokens: int, took: float, measured: int) -> Cost:
        return Cost(name, "eager", tokens, 1, took, took, ((0, 1.0),), measured, 1000 * tokens)

    costs = (
        cost("aim-b", 256, 2.0, 256),
        cost("aim-b", 1024, 8.0, 144),
        cost("gpt-b", 256, 1.0, 256),
    )
    missing = (Missing("gpt-b", 1024, 1, "out of <memory>"),)
    html = scaling_report(
        Scaling(("aim-b", "gpt-b"), (256, 1024), (1,), costs, missing, "float32", raced.machine)
    )
    first, _ = re.findall(r"<figure.*?</figure>", html)
    assert first.count("aim-hollow") == 1
    assert "gpt-b is faster at 256 codes" in html
    assert "<td>144</td>" in html and "<td>out of &lt;memory&gt;</td>" in html
