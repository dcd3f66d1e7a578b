"""How much the tests try that send what nobody should: little, or ``FUZZ`` times as much. All of
the project's: ``FUZZ=15 python -m pytest -k "whatever or tampered" --timeout 0``.
"""

from __future__ import annotations

import os

TIMES = int(os.environ.get("FUZZ", "1"))
