"""Saves the state of a stage, wholly or not at all, so that the next run can continue from it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch


def save(path: Path, state: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(".part")
    torch.save(state, scratch)
    os.replace(scratch, path)


def load(path: Path) -> Any:
    return torch.load(path, map_location="cpu", weights_only=False) if path.exists() else None
