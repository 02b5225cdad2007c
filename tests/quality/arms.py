"""The ways to prune that are evaluated, and which are held against which."""

from __future__ import annotations

_VARIANTS = {
    "random": {"score": {"map": "random"}},
    "cross": {"score": {"map": "cross"}},
    "cosine": {"recovery": "cosine"},
    "nearest": {"recovery": "nearest"},
    "zero": {"recovery": "zero"},
}
# At the settings of these: same ratio, same schedule, hence the same UNet FLOPs, overhead left out.
_VARIED = {"c": "at-edm-c", "dagger": "at-edm-dagger"}

# name: the field `pruning` of the request
ARMS = {"off": "off", **{f"at-edm-{x}": f"at-edm-{x}" for x in ("a", "b", "c", "d", "dagger")}}
for _short, _preset in _VARIED.items():
    for _name, _fields in _VARIANTS.items():
        ARMS[f"{_name}@{_short}"] = {"preset": _preset, **_fields}

COMPARISONS = [
    *((f"at-edm-{x}", "off") for x in ("a", "b", "c", "d", "dagger")),
    *((preset, f"{name}@{short}") for short, preset in _VARIED.items() for name in _VARIANTS),
]
