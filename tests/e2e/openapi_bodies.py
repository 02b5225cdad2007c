"""Bodies of /generate for api_openapi.py: good ones, wrong ones with the fields that are wrong, and the limits of any
field's schema. Each is laid over a request that is good."""
import math

# Bodies with which the daemon and the schema find the same fields wrong.
WRONG = [
    ({"prompt": None}, ["/prompt"]),
    ({"prompt": ""}, ["/prompt"]),
    ({"prompt": ["a"]}, ["/prompt"]),
    ({"negative_prompt": 1}, ["/negative_prompt"]),
    ({"width": 12}, ["/width"]),
    ({"height": 0}, ["/height"]),
    ({"width": -8, "height": "32"}, ["/height", "/width"]),
    ({"steps": 0, "seed": -1, "num_images": 9}, ["/num_images", "/seed", "/steps"]),
    ({"steps": 4.5}, ["/steps"]),
    ({"guidance_scale": 31}, ["/guidance_scale"]),
    ({"seed": 2**63}, ["/seed"]),
    ({"seed": 2**70}, ["/seed"]),
    ({"sampler": "heun"}, ["/sampler"]),
    ({"sampler": "e" * 100}, ["/sampler"]),
    ({"response_format": "jpeg"}, ["/response_format"]),
    ({"response_format": "png", "num_images": 2}, ["/response_format"]),
    ({"deadline_s": 0}, ["/deadline_s"]),
    ({"priority": 11}, ["/priority"]),
    ({"Steps": 4}, ["/Steps"]),
    ({"a/b": 1, "~": 2}, ["/a~1b", "/~0"]),
    ({"pruning": None}, ["/pruning"]),
    ({"pruning": 0.5}, ["/pruning"]),
    ({"pruning": "at-edm-z"}, ["/pruning"]),
    ({"pruning": "auto"}, ["/pruning"]),
    ({"pruning": {"preset": "auto"}}, ["/pruning/preset"]),
    ({"pruning": {"preset": "off", "ratio": 0.5}}, ["/pruning/preset"]),
    ({"pruning": {"ratio": 1, "mode": 1}}, ["/pruning/mode", "/pruning/ratio"]),
    ({"pruning": {"ratio": 0.5, "flops_budget": 0.8}}, ["/pruning/flops_budget"]),
    ({"pruning": {"flops_budget": 0}}, ["/pruning/flops_budget"]),
    ({"pruning": {"schedule": "cosine"}}, ["/pruning/schedule"]),
    ({"pruning": {"schedule": "uniform", "tau": 0.2}}, ["/pruning/tau"]),
    ({"pruning": {"preset": "at-edm-dagger", "tau": 0.2}}, ["/pruning/tau"]),
    ({"pruning": {"schedule": "dsap", "phases": [{"until": 1}]}}, ["/pruning/phases"]),
    ({"pruning": {"tau": 0.5, "phases": [{"until": 1}]}}, ["/pruning/phases"]),
    ({"pruning": {"phases": []}}, ["/pruning/phases"]),
    ({"pruning": {"phases": {"until": 1}}}, ["/pruning/phases"]),
    ({"pruning": {"phases": [1]}}, ["/pruning/phases/0"]),
    ({"pruning": {"phases": [{}]}}, ["/pruning/phases/0/until"]),
    ({"pruning": {"phases": [{"until": 0}, {"until": 1, "ratio": 1}]}},
     ["/pruning/phases/0/until", "/pruning/phases/1/ratio"]),
    ({"pruning": {"phases": [{"until": 1, "skip": ["down"], "till": 1}]}},
     ["/pruning/phases/0/skip/0", "/pruning/phases/0/till"]),
    ({"pruning": {"phases": [{"until": 1, "skip": ["up.01.0", 7, "mid.0", "down.last"]}]}},
     [f"/pruning/phases/0/skip/{i}" for i in range(4)]),
    ({"pruning": {"phases": [{"until": 1, "skip": ["mid"] * 17}]}}, ["/pruning/phases/0/skip"]),
    ({"pruning": {"phases": [{"until": (i + 1) / 17} for i in range(17)]}}, ["/pruning/phases"]),
    ({"pruning": {"flops_budget": 0.9, "phases": [{"until": 1, "ratio": 0.5}]}}, ["/pruning/flops_budget"]),
    ({"pruning": {"skip_levels": [8]}}, ["/pruning/skip_levels/0"]),
    ({"pruning": {"skip_levels": [0] * 9}}, ["/pruning/skip_levels"]),
    ({"pruning": {"skip_levels": 1}}, ["/pruning/skip_levels"]),
    ({"pruning": {"prune_after": []}}, ["/pruning/prune_after"]),
    ({"pruning": {"prune_after": [0, 32]}}, ["/pruning/prune_after/1"]),
    ({"pruning": {"prune_after": list(range(9))}}, ["/pruning/prune_after"]),
    ({"pruning": {"score": "self"}}, ["/pruning/score"]),
    ({"pruning": {"score": {"maps": "self"}}}, ["/pruning/score/maps"]),
    ({"pruning": {"score": {"map": "random", "heads": "rms", "tolerance": 0, "interval": 1}}},
     ["/pruning/score/heads", "/pruning/score/tolerance", "/pruning/score/interval"]),
    ({"pruning": {"score": {"interval": 0}}}, ["/pruning/score/interval"]),
    ({"pruning": {"score": {"interval": 1001}}}, ["/pruning/score/interval"]),
    ({"pruning": {"selection": "best"}}, ["/pruning/selection"]),
    ({"pruning": {"recovery": "zeros"}}, ["/pruning/recovery"]),
]

GOOD = [
    {},
    {"negative_prompt": None, "seed": None, "deadline_s": None},
    {"negative_prompt": "", "guidance_scale": 0, "seed": 2**63 - 1},
    {"width": 64, "height": 96, "num_images": 2, "response_format": "url"},
    {"num_images": 1, "response_format": "png", "deadline_s": 0.001, "priority": -10},
    {"pruning": {}},
    {"pruning": {"preset": "off"}},
    {"pruning": {"preset": "at-edm-dagger", "schedule": "dsap", "tau": 0.2}},
    {"pruning": {"preset": "at-edm-a", "flops_budget": 1}},
    {"pruning": {"phases": [{"until": 0.5, "ratio": 0}, {"until": 1, "skip": ["down.first", "up.last", "mid"]}],
                 "ratio": 0.3}},
    {"pruning": {"flops_budget": 0.99, "phases": [{"until": 0.5, "ratio": 0.1}, {"until": 1}]}},
    {"pruning": {"skip_levels": [1, 1], "prune_after": [0, 31], "recovery": "zero"}},
    {"pruning": {"score": {"map": "random"}, "selection": "top"}},
    {"pruning": {"score": {"map": "cross", "heads": "mean", "max_iterations": 64, "tolerance": 2, "interval": 1000}}},
]

# What only the daemon can know, or JSON Schema has no words for; the document says so in others.
BEYOND = [
    ({"steps": 4.0}, "/steps"),
    ({"prompt": "\u00e4" * 4097}, "/prompt"),
    ({"width": 16384, "height": 16384}, "/width"),
    ({"seed": 2**63 - 1, "num_images": 2}, "/seed"),
    ({"pruning": {"flops_budget": 0.001}}, "/pruning/flops_budget"),
    ({"pruning": {"phases": [{"until": 0.5}]}}, "/pruning/phases/0/until"),
    ({"pruning": {"phases": [{"until": 1, "skip": ["down.9.9"]}]}}, "/pruning/phases"),
    ({"pruning": {"prune_after": [1, 0]}}, "/pruning/prune_after/1"),
]


def edges(schema):
    """(value, whether it is good) at the limits of a field's schema and a little beyond."""
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    for value, kind in ((None, "null"), (True, "boolean"), ({}, "object"), ("\u2208", "string")):
        if kind not in kinds:
            yield value, False
    if "null" in kinds:
        yield None, True
    for value in schema.get("enum", ()):
        yield value, True
    if "enum" in schema:
        yield schema["enum"][0] + "\u2208", False
    if "minLength" in schema:
        yield "a" * schema["minLength"], True
        yield "a" * (schema["minLength"] - 1), False
    if "maxLength" in schema:
        yield "a" * schema["maxLength"], True
        yield "a" * (schema["maxLength"] + 1), False
    if "integer" in kinds:
        step = schema.get("multipleOf", 1)
        yield from ((schema["minimum"], True), (schema["minimum"] - step, False), (schema["maximum"], True),
                    (schema["maximum"] + step, False), (schema["minimum"] + 0.5, False))
        if step > 1:
            yield schema["minimum"] + 1, False
    elif "number" in kinds:
        low = schema.get("exclusiveMinimum")
        if low is None:
            low = schema["minimum"]
            yield low, True
            yield math.nextafter(low, -math.inf), False
        else:
            yield low, False
        yield from ((schema["maximum"], True), (math.nextafter(schema["maximum"], math.inf), False))
