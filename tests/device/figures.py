"""Derives figures from the GPU benchmarks' raw reports: means over a plan's steps, floors, shares, ratios, and the bars.

Pure functions of the reports of `atedm bench step --json`, `parity --bench --json` and `atedm bench serve --json`.
"""

# Operations by purpose.
RANKING = ("rank_tokens", "random_scores", "select_tokens")
RECOVERY = ("source_attention", "source_cosine", "source_nearest", "source_weights", "gather_rows", "add_rows")

# Prunings besides the presets, to measure the cost of pruning: the same number of tokens without ranking, without recovery's
# search, and with all iterations (with random weights attention is close to uniform, and the iterations end early).
PLAIN = "at-edm-c"
RANDOM = '{"preset": "at-edm-c", "score": {"map": "random"}}'
ZERO = '{"preset": "at-edm-c", "recovery": "zero"}'
ALL_ITERATIONS = '{"preset": "at-edm-c", "score": {"tolerance": 0}}'
# A ranking that serves two steps.
INTERVAL = '{"preset": "at-edm-c", "score": {"interval": 2}}'


def floor_s(flops, num_bytes, ceilings):
    """The least time: arithmetic at the device's rate or traffic at its bandwidth, whichever takes longer."""
    return max(flops / ceilings["matrix_flops_per_s"], num_bytes / ceilings["copy_bytes_per_s"])


def ratio(a, b):
    return a / b if a is not None and b else None


def weighted(rows, value):
    """Mean over the steps of a plan, whose rows each stand for some of them."""
    return sum(value(row) * row["steps"] for row in rows) / sum(row["steps"] for row in rows)


def rows_of(report, stage, **wanted):
    return [row for row in report["stages"] if row["stage"] == stage and
            all(row.get(key) == value for key, value in wanted.items())]


def ceilings_of(report):
    return {key: report[key] for key in ("matrix_flops_per_s", "copy_bytes_per_s", "wait_s", "gemm_flops_per_s")}


def net_s(op, wait_s):
    """An operation's seconds, less the waits for each of its calls, which only a profile has."""
    return max(0, op["seconds"] - op["calls"] * wait_s)


def operations(rows, ceilings):
    """Each operation's means over the rows' steps: its time, its floor, its share of all operations."""
    wait_s, names = ceilings["wait_s"], {op["op"] for row in rows for op in row["ops"]}

    def mean(name, value):
        return weighted(rows, lambda row: sum(value(op) for op in row["ops"] if op["op"] == name))

    table = [{"op": name, **{key: mean(name, lambda op, key=key: op[key])
                             for key in ("calls", "seconds", "flops", "bytes", "floor_s")},
              "net_s": mean(name, lambda op: net_s(op, wait_s))} for name in names]
    total = sum(op["net_s"] for op in table)
    for op in table:
        op["share"] = ratio(op["net_s"], total)
        op["floor_share"] = ratio(op["floor_s"], op["net_s"])
    return sorted(table, key=lambda op: -op["net_s"])


def evaluations(report, ceilings):
    """One UNet evaluation for each batch and pruning, as the mean over the plan's steps."""
    out = []
    for batch in dict.fromkeys(row["batch"] for row in rows_of(report, "unet")):
        for pruning in dict.fromkeys(row["pruning"] for row in rows_of(report, "unet", batch=batch)):
            rows = rows_of(report, "unet", batch=batch, pruning=pruning)
            ops = operations(rows, ceilings)
            out.append({"batch": batch, "pruning": pruning, "seconds": weighted(rows, lambda row: row["median_s"]),
                        "best_s": weighted(rows, lambda row: row["min_s"]),
                        "flops": weighted(rows, lambda row: row["flops"]),
                        "overhead_flops": weighted(rows, lambda row: row["overhead_flops"]),
                        "floor_s": sum(op["floor_s"] for op in ops), "operations": ops})
    for entry in out:
        off = find(out, batch=entry["batch"], pruning="off")
        entry["against_off"] = ratio(off and off["seconds"], entry["seconds"])
        entry["flops_against_off"] = ratio(off and off["flops"], entry["flops"])
    return out


def find(entries, **wanted):
    """The entry with these values, or None."""
    return next((entry for entry in entries if all(entry.get(key) == value for key, value in wanted.items())), None)


def pruning_cost(evaluated, others, batch):
    """The cost of at-edm-c's ranking and recovery, and its share of an evaluation: as the sum of their operations, and as the
    time that an evaluation saves without them. `others`: evaluations by name with other settings for work aside, or none."""
    plain = find(evaluated, batch=batch, pruning=PLAIN)
    if not plain:
        return None

    def by_operations(names):
        return sum(op["net_s"] for op in plain["operations"] if op["op"] in names)

    def by_difference(other):
        without = find(evaluated, batch=batch, pruning=other)
        return plain["seconds"] - without["seconds"] if without else None

    all_iterations = find(evaluated, batch=batch, pruning=ALL_ITERATIONS)
    out = {"batch": batch, "evaluation_s": plain["seconds"],
           "ranking_s": by_operations(RANKING), "ranking_by_difference_s": by_difference(RANDOM),
           "recovery_s": by_operations(RECOVERY), "recovery_by_difference_s": by_difference(ZERO),
           "all_iterations_s": all_iterations and all_iterations["seconds"]}
    for name, entries in others.items():
        other = find(entries, batch=batch, pruning=PLAIN)
        out[name] = other and other["seconds"]
    for name in ("ranking", "ranking_by_difference", "recovery", "recovery_by_difference"):
        out[name + "_share"] = ratio(out[name + "_s"], plain["seconds"])
    return out


def kernels(lines, ceilings):
    """Single calls of operations at SDXL's sizes, with their floors."""
    out = []
    for line in lines:
        least = floor_s(line["flops"], line["bytes"], ceilings)
        out.append({**line, "floor_s": least, "floor_share": ratio(least, line["seconds"]),
                    "flops_per_s": line["flops"] / line["seconds"] if line["flops"] else None})
    return out


def all_ways(entries, *keys):
    """(portable, hopper, tried) of entries with equal `keys`; None for a missing one."""
    alike = {}
    for entry in entries:
        ways = alike.setdefault(tuple(entry[key] for key in keys), {"portable": None, "hopper": None, "tried": None})
        ways[entry["way"]] = entry
    return [(ways["portable"], ways["hopper"], ways["tried"]) for ways in alike.values()]


def loops(report):
    """Whole denoising loops, compared with our own unpruned ones."""
    out = [{"images": row["batch"], "pruning": row["pruning"], "steps": row["steps"], "seconds": row["median_s"],
            "best_s": row["min_s"], "images_per_s": row["batch"] / row["median_s"]} for row in rows_of(report, "loop")]
    for entry in out:
        off = find(out, images=entry["images"], pruning="off")
        entry["against_off"] = ratio(off and off["seconds"], entry["seconds"])
    return out


# ---- the bars


def bar(name, value, unit, least=None, most=None):
    """One bar; `met` is None if there is no value."""
    good = None
    if value is not None:
        good = value >= least if least is not None else value <= most
    return {"name": name, "value": value, "unit": unit, "least": least, "most": most, "met": good}


def bars(result):
    """The bars of PERFORMANCE.md, for one H200."""
    out = []
    for pruning, least in (("at-edm-c", 1.5), ("at-edm-dagger", 1.4)):
        for images in (1, 8):
            entry = find(result["loops"], images=images, pruning=pruning)
            out.append(bar(f"{pruning} against off, denoising loop of {images}", entry and entry["against_off"], "x", least=least))
    for entry in result["evaluations"]:
        if entry["pruning"] == "off":
            compiled = find(result["pytorch"].get("evaluations", []), batch=entry["batch"], mode="compiled")
            out.append(bar(f"unpruned evaluation of {entry['batch']} against PyTorch compiled",
                           ratio(entry["seconds"], compiled and compiled["seconds"]), "of its time", most=1))
    served = find(result["requests"], kind="throughput", pruning="at-edm-c")
    out.append(bar("20 steps with guidance, at-edm-c", served and served["images_per_s"], "images/s", least=2.4))
    single = find(result["requests"], kind="latency", pruning="at-edm-c")
    out.append(bar("30 steps with guidance, batch 1, at-edm-c", single and single["p50_s"], "s", most=1.1))
    attention = find(result["kernels"], op="attention", size=1)
    out.append(bar("attention, heads of 64, 4096 tokens", attention and attention["flops_per_s"] * 1e-12, "TFLOP/s", least=320))
    if result["hopper"]:
        hopper = find(result["hopper"]["kernels"], op="attention", way="hopper", size=1)
        out.append(bar("the same by the Hopper path", hopper and hopper["flops_per_s"] * 1e-12, "TFLOP/s", least=320))
    for cost in result["pruning_cost"]:
        shares = [cost[key] for key in ("ranking_share", "ranking_by_difference_share") if cost[key] is not None]
        out.append(bar(f"G-WPR's share of an evaluation of {cost['batch']}", max(shares), "", most=0.05))
    return out
