"""Writes the figures as Markdown."""

from __future__ import annotations

from verdict import COMPONENTS


def _percent(value: float | None, digits: int = 0) -> str:
    return "" if value is None else f"{100 * value:.{digits}f} %"


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _p(value: float | None) -> str:
    if value is None:
        return ""
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def _table(head: list[str], rows: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows))


def _agreement(share: dict) -> str:
    return f"{_percent(share['share'], 1)} ({100 * share['low']:.0f}..{100 * share['high']:.0f})"


def _arms(arms: dict[str, dict]) -> str:
    judged = [name for name in COMPONENTS if any(figures["components"][name] for figures in arms.values())]
    head = ["arm", "UNet FLOPs", "overhead", "agreement (95 %)", *judged, "score", "PSNR", "SSIM", "Frechet", "s"]
    rows = []
    for arm, f in arms.items():
        parts = [_percent(f["components"][name] and f["components"][name]["share"]) for name in judged]
        rows.append([
            arm, _percent(f["unet_flops_ratio"], 1), _percent(f["overhead_ratio"], 2), _agreement(f["agreement"]),
            *parts, _number(f["score"], 3), _number(f["psnr_to_unpruned"], 1), _number(f["ssim_to_unpruned"], 3),
            _number(f["frechet"], 2), _number(f["seconds_per_picture"], 2),
        ])  # fmt: skip
    return _table(head, rows)


def _comparisons(comparisons: list[dict]) -> str:
    head = ["arm", "against", "agreement, points (95 %)", "p", "score", "p", "PSNR to unpruned, dB", "p"]
    rows = []
    for c in comparisons:
        points = f"{100 * c['agreement_difference']:+.1f} ({100 * c['low']:+.1f}..{100 * c['high']:+.1f})"
        decibels = f"{c['psnr_difference']:+.2f}" if "psnr_difference" in c else ""
        rows.append([c["arm"], c["against"], points, _p(c["mcnemar_p"]), f"{c['score_difference']:+.3f}",
                     _p(c["score_p"]), decibels, _p(c.get("psnr_p"))])  # fmt: skip
    return _table(head, rows)


def markdown(report: dict) -> str:
    run = report["run"]
    parts = [
        "# Quality of the demo model under pruning",
        f"{run['date']}, commit {run['commit']}, {run['cpu']}. Model {run['model']}, {run['width']}x{run['height']}, "
        f"{run['steps']} steps of {run['sampler']}, guidance {run['guidance']:g}.",
        f"`{run['command']}`",
    ]
    for arm, why in report["refused"].items():
        parts.append(f"**The daemon refused {arm}:** {why}")
    for name, group in report["groups"].items():
        parts += [f"## {name}: {group['prompts']} prompts", _arms(group["arms"])]
        if group["comparisons"]:
            parts += ["Same prompts and seeds, paired:", _comparisons(group["comparisons"])]
    parts.append(
        "Agreement: the number of objects, their colours and shapes, the background and (of two objects) the relation are all "
        "right. p: exact McNemar test for agreement, sign-flip test for score and PSNR. tests/quality/README.md defines the rest."
    )
    return "\n\n".join(parts) + "\n"
