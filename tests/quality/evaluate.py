"""Figures about pictures: what each arm got right, and how far its pictures are from the unpruned and from drawn ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from arms import COMPARISONS
from distance import feature_table, features, frechet, psnr, ssim, standardized
from pictures import drawn
from prompts import Prompt, fresh_scenes
from read_picture import read_picture
from stats import mcnemar, paired_difference, sign_flip, wilson
from verdict import COMPONENTS, Verdict, judge

REFERENCE = 400  # drawn pictures with which a set's pictures are compared
DRAWN = "drawn"  # not an arm of the daemon: the prompts' scenes as drawn, which show the ceiling


@dataclass
class Series:
    """The results of one arm for one set, or for all sets. Entry i belongs to prompt i."""

    verdicts: list[Verdict] = field(default_factory=list)
    psnr: list[float] = field(default_factory=list)  # to the unpruned picture; empty for "off" and "drawn"
    ssim: list[float] = field(default_factory=list)  # likewise
    flops: list[float] = field(default_factory=list)  # of the UNet, relative to the unpruned UNet; without overhead
    overhead: list[float] = field(default_factory=list)  # FLOPs of pruning itself, likewise relative
    seconds: list[float] = field(default_factory=list)
    pictures: list[np.ndarray] = field(default_factory=list)  # their features, not standardized

    def joined(self, other: Series) -> Series:
        return Series(*(getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__))


def _add_cost(series: Series, said: dict):
    flops = said["flops"]
    unet = flops["baseline"] - flops["text_encoder"] - flops["vae"]
    series.flops.append((flops["unet"] - flops["overhead"]) / unet)
    series.overhead.append(flops["overhead"] / unet)
    series.seconds.append(device_seconds(said))


def device_seconds(said: dict) -> float:
    """The device time of a picture: its share of the UNet evaluations in which it took part, and its own stages."""
    latency = said["latency"]
    own = sum(latency[stage] for stage in ("text_encoder_s", "vae_s", "encode_s"))
    return latency["denoise_s"] / said["batch"]["mean_size"] + own


def measure(prompts: list[Prompt], arm: str, load: Callable) -> Series:
    """The results of one arm. `load(arm, number)` returns the picture and the kept parts of its answer."""
    series = Series()
    for prompt in prompts:
        picture, said = load(arm, prompt.number)
        series.verdicts.append(judge(prompt.scene, read_picture(picture)))
        series.pictures.append(features(picture))
        _add_cost(series, said)
        if arm != "off":
            unpruned, _ = load("off", prompt.number)
            series.psnr.append(psnr(picture, unpruned))
            series.ssim.append(ssim(picture, unpruned))
    return series


def measure_drawn(prompts: list[Prompt], size: tuple[int, int]) -> Series:
    shown = [drawn(prompt.scene, *size) for prompt in prompts]
    verdicts = [judge(prompt.scene, read_picture(picture)) for prompt, picture in zip(prompts, shown)]
    return Series(verdicts=verdicts, pictures=[features(picture) for picture in shown])


def reference(set_name: str, size: tuple[int, int]) -> np.ndarray:
    """The standardized features of other drawn scenes of the set's kind."""
    return feature_table(drawn(s, *size) for s in fresh_scenes(set_name, REFERENCE))


def _share(values: list[bool | None]) -> dict | None:
    judged = [bool(v) for v in values if v is not None]
    if not judged:
        return None
    low, high = wilson(sum(judged), len(judged))
    return {"right": sum(judged), "of": len(judged), "share": sum(judged) / len(judged), "low": low, "high": high}


def _mean(values: list[float]) -> float | None:
    return float(np.mean(values)) if values else None


def summary(series: Series, drawn_reference: np.ndarray) -> dict:
    shares = {name: _share([getattr(v, name) for v in series.verdicts]) for name in COMPONENTS}
    return {
        "agreement": _share([v.agrees for v in series.verdicts]),
        "components": shares,
        "score": _mean([v.score for v in series.verdicts]),
        "unet_flops_ratio": _mean(series.flops),
        "overhead_ratio": _mean(series.overhead),
        "psnr_to_unpruned": _mean(series.psnr),
        "ssim_to_unpruned": _mean(series.ssim),
        "frechet": frechet(standardized(series.pictures), drawn_reference) if len(series.verdicts) > 1 else None,
        "seconds_per_picture": _mean(series.seconds),
    }


def compare(a: Series, b: Series) -> dict:
    """Compares two arms over the same prompts and seeds."""
    agrees = [[v.agrees for v in series.verdicts] for series in (a, b)]
    scores = [np.array([v.score for v in series.verdicts]) for series in (a, b)]
    difference, low, high = paired_difference(*agrees)
    result = {
        "agreement_difference": difference,
        "low": low,
        "high": high,
        "mcnemar_p": mcnemar(*agrees),
        "score_difference": float(np.mean(scores[0] - scores[1])),
        "score_p": sign_flip(scores[0] - scores[1]),
    }
    if a.psnr and b.psnr:
        apart = np.array(a.psnr) - np.array(b.psnr)
        result |= {"psnr_difference": float(np.mean(apart)), "psnr_p": sign_flip(apart)}
    return result


def compare_all(series: dict[str, Series]) -> list[dict]:
    return [{"arm": a, "against": b, **compare(series[a], series[b])}
            for a, b in COMPARISONS if a in series and b in series]  # fmt: skip
