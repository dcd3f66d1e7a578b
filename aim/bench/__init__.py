"""Speed, measured: the machine, what a step must move, whole batches through the engine, and a report."""

from aim.bench.machine import Machine, copy_bandwidth
from aim.bench.speed import NoRoom, Report, Speed, bench, measure, parse_batches
from aim.bench.table import as_json, as_table
from aim.bench.traffic import Traffic, aim_traffic, traffic
from aim.bench.weights import random_model, random_pipeline

__all__ = [
    "Machine",
    "NoRoom",
    "Report",
    "Speed",
    "Traffic",
    "aim_traffic",
    "as_json",
    "as_table",
    "bench",
    "copy_bandwidth",
    "measure",
    "parse_batches",
    "random_model",
    "random_pipeline",
    "traffic",
]
