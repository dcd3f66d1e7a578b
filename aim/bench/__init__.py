"""Speed, measured: the machine, what a step must move, whole batches through the engine, and a report."""

from aim.bench.machine import Machine, copy_bandwidth
from aim.bench.race import LAPS, METHOD, Race, race
from aim.bench.racers import Lap, Pictures, Racer
from aim.bench.runs import Spread, Stopped
from aim.bench.speed import NoRoom, Report, Speed, bench, measure, parse_batches
from aim.bench.table import as_csv, as_json, as_table
from aim.bench.traffic import Traffic, aim_traffic, gpt_traffic, traffic
from aim.bench.weights import random_model, random_pipeline

__all__ = [
    "LAPS",
    "METHOD",
    "Lap",
    "Machine",
    "NoRoom",
    "Pictures",
    "Race",
    "Racer",
    "Report",
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
    "gpt_traffic",
    "measure",
    "parse_batches",
    "race",
    "random_model",
    "random_pipeline",
    "traffic",
]
