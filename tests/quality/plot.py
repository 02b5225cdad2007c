"""Plots agreement and Frechet distance over the cost of the UNet, in two panels of one picture."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402  (after the backend is chosen)

from evaluate import DRAWN  # noqa: E402

PRESETS, VARIANTS = "tab:blue", "tab:orange"
NEAR, LABEL = 2.5, 8  # points nearer than NEAR form a column, a label is LABEL wide; both in percent of UNet FLOPs
LINE_OF_TEXT = 0.038  # height of a label, as a share of the panel's


def _spread(values: list[float], gap: float) -> list[float]:
    """Heights for labels in ascending order, near to `values` but at least `gap` apart."""
    placed = []
    for value in values:
        placed.append(max(value, placed[-1] + gap) if placed else value)
    shift = sum(p - v for p, v in zip(placed, values)) / max(1, len(values))
    return [p - shift for p in placed]


def _columns(points: list[tuple[float, float, str]]) -> list[list[tuple[float, float, str]]]:
    """Groups points whose costs are so near that their labels would overlap; from left to right."""
    columns: list[list[tuple[float, float, str]]] = []
    for point in sorted(points):
        if columns and point[0] - columns[-1][-1][0] < NEAR:
            columns[-1].append(point)
        else:
            columns.append([point])
    return columns


def _labels(axes, points: list[tuple[float, float, str]]):
    """Labels the points: to their right, or to their left if the next column is too near. The labels of a column do not
    overlap."""
    low, high = axes.get_ylim()
    columns = _columns(points)
    for column, following in zip(columns, columns[1:] + [[]]):
        left = bool(following) and following[0][0] - column[-1][0] < LABEL
        edge = min(x for x, _, _ in column) - 1.6 if left else max(x for x, _, _ in column) + 1.6
        ordered = sorted((y, x, name) for x, y, name in column)
        for (y, x, name), at in zip(ordered, _spread([y for y, _, _ in ordered], LINE_OF_TEXT * (high - low))):
            colour = VARIANTS if "@" in name else PRESETS
            axes.annotate(name, (x, y), (edge, at), fontsize=8, va="center", ha="right" if left else "left",
                          color=colour,
                          arrowprops={"arrowstyle": "-", "lw": 0.5, "color": colour, "alpha": 0.6})  # fmt: skip


def _panel(axes, arms: dict[str, dict], value, interval=None):
    points = [(100 * f["unet_flops_ratio"], value(f), name) for name, f in arms.items()]
    presets = sorted(point for point in points if "@" not in point[2])
    axes.plot([x for x, _, _ in presets], [y for _, y, _ in presets], color=PRESETS, alpha=0.4, zorder=1)
    for x, y, name in points:
        colour, marker = (VARIANTS, "s") if "@" in name else (PRESETS, "o")
        if interval:
            low, high = interval(arms[name])
            axes.plot([x, x], [low, high], color=colour, lw=1, alpha=0.5, zorder=1)
        axes.scatter([x], [y], color=colour, marker=marker, s=24, zorder=2)
    axes.margins(y=0.12)
    axes.set_xlim(min(x for x, _, _ in points) - 9, max(x for x, _, _ in points) + 9)
    _labels(axes, points)
    axes.set_xlabel("UNet FLOPs, % of unpruned (without overhead)")
    axes.grid(alpha=0.25)


def draw_plot(report: dict, path: Path):
    group = report["groups"]["all"]
    arms = {name: f for name, f in group["arms"].items() if name != DRAWN}
    figure, (left, right) = plt.subplots(1, 2, figsize=(13, 5.6))
    _panel(left, arms, lambda f: 100 * f["agreement"]["share"],
           lambda f: (100 * f["agreement"]["low"], 100 * f["agreement"]["high"]))  # fmt: skip
    left.set_ylabel("agreement with the prompt, % (bars: 95 %)")
    if all(f["frechet"] is not None for f in arms.values()):
        floor = group["arms"][DRAWN]["frechet"]
        right.axhline(floor, color="gray", lw=1, ls="--")
        right.annotate("drawn pictures", (1, floor), (-4, 3), xycoords=("axes fraction", "data"),
                       textcoords="offset points", fontsize=8, color="gray", ha="right")  # fmt: skip
        _panel(right, arms, lambda f: f["frechet"])
    right.set_ylabel("Frechet distance to drawn pictures")
    run = report["run"]
    figure.suptitle(f"{Path(run['model']).name}: {group['prompts']} prompts, {run['steps']} steps; "
                    "circles: presets, squares: variants at the settings of c and dagger",
                    fontsize=10)  # fmt: skip
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)
