"""Speed, measured: the machine, what a step must move, batches through the engine, models against
each other, and what grows with size.
"""

from aim.bench.machine import Machine, copy_bandwidth
from aim.bench.race import LAPS, METHOD, Race, gates, race, ratios
from aim.bench.racers import Lap, Pictures, Racer
from aim.bench.runs import Spread, Stopped
from aim.bench.scaling import TOKENS, Cost, Missing, Scaling, scaling, verdicts
from aim.bench.speed import NoRoom, Report, Speed, bench, measure, parse_batches
from aim.bench.table import as_csv, as_json, as_table, race_table, scaling_table
from aim.bench.traffic import Traffic, aim_traffic, gpt_traffic, traffic
from aim.bench.weights import random_model, random_pipeline

__all__ = [
    "LAPS",
    "METHOD",
    "TOKENS",
    "Cost",
    "Lap",
    "Machine",
    "Missing",
    "NoRoom",
    "Pictures",
    "Race",
    "Racer",
    "Report",
    "Scaling",
    "Speed",
    "Spread",
    "Stopped",
    "Traffic",
    "aim_traffic",
    "as_csv",
    "as_json",
    "as_table",
    "bench",
    "copy_bandwidth",
    "gates",
    "gpt_traffic",
    "measure",
    "parse_batches",
    "race",
    "race_table",
    "random_model",
    "random_pipeline",
    "ratios",
    "scaling",
    "scaling_table",
    "traffic",
    "verdicts",
]
