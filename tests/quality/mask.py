"""Operations on masks with numpy alone: dilation, erosion, opening, smoothing, connected components."""

from __future__ import annotations

import numpy as np


def _shifted(mask: np.ndarray, axis: int, outside: bool) -> tuple[np.ndarray, np.ndarray]:
    """The mask moved by one pixel, to either side. `outside` fills the pixels that become free."""
    before, after = np.full_like(mask, outside), np.full_like(mask, outside)
    head, tail = [slice(None)] * 2, [slice(None)] * 2
    head[axis], tail[axis] = slice(None, -1), slice(1, None)
    before[tuple(head)], after[tuple(tail)] = mask[tuple(tail)], mask[tuple(head)]
    return before, after


def dilate(mask: np.ndarray, times: int, axes: tuple[int, ...] = (0, 1)) -> np.ndarray:
    for _ in range(times):
        for axis in axes:
            before, after = _shifted(mask, axis, False)
            mask = mask | before | after
    return mask


def erode(mask: np.ndarray, times: int, axes: tuple[int, ...] = (0, 1)) -> np.ndarray:
    for _ in range(times):
        for axis in axes:
            before, after = _shifted(mask, axis, True)
            mask = mask & before & after
    return mask


def opened(mask: np.ndarray, times: int, axes: tuple[int, ...] = (0, 1)) -> np.ndarray:
    """The mask without parts that are thinner than 2 `times` + 1 pixels."""
    return dilate(erode(mask, times, axes), times, axes) if times else mask


def smooth(picture: np.ndarray) -> np.ndarray:
    """The mean over 3x3 pixels; `picture`: [height, width, 3]."""
    for axis in (0, 1):
        pad = [(0, 0)] * 3
        pad[axis] = (1, 1)
        p = np.pad(picture, pad, "edge")
        picture = (p[2:] + p[1:-1] + p[:-2]) if axis == 0 else (p[:, 2:] + p[:, 1:-1] + p[:, :-2])
    return picture * np.float32(1 / 9)


def label(mask: np.ndarray) -> tuple[np.ndarray, int]:
    """Labels connected components (connected over edges, not corners): 0 outside, 1.. inside. Also returns their number.

    Goes row by row: a run of set pixels belongs together with the runs of the row above that it overlaps.
    """
    labels = np.zeros(mask.shape, np.int32)
    change = np.diff(np.pad(mask, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    rows, starts = np.nonzero(change == 1)
    ends = np.nonzero(change == -1)[1]
    parent = _join_runs(rows.tolist(), starts.tolist(), ends.tolist())
    if not parent:
        return labels, 0
    _, ids = np.unique([_root(parent, run) for run in range(len(parent))], return_inverse=True)
    labels[mask] = np.repeat(ids + 1, ends - starts)
    return labels, int(ids.max()) + 1


def _root(parent: list[int], run: int) -> int:
    while parent[run] != run:
        parent[run] = parent[parent[run]]
        run = parent[run]
    return run


def _join_runs(rows: list[int], starts: list[int], ends: list[int]) -> list[int]:
    """For each run, a parent in the same component. One run of each component is its own parent."""
    parent = list(range(len(rows)))
    above = 0
    for run, row in enumerate(rows):
        while rows[above] < row - 1 or (rows[above] == row - 1 and ends[above] <= starts[run]):
            above += 1
        other = above
        while rows[other] == row - 1 and starts[other] < ends[run]:
            parent[_root(parent, other)] = _root(parent, run)
            other += 1
    return parent
