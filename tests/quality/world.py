"""Makes models/demo_world and tests/e2e/daemon.py importable for the programs of this folder. No other file does this."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "models"), str(ROOT / "tests" / "e2e")]

from demo_world import caption, draw, scene  # noqa: E402  (after the path is set)

__all__ = ["ROOT", "caption", "draw", "scene"]
