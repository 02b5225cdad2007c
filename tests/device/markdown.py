"""The figures of a GPU benchmark as tables."""
import figures


def number(value, digits=4):
    if value is None:
        return ""
    return f"{value:.{digits}g}" if isinstance(value, float) else str(value)


def ms(seconds):
    return number(seconds * 1e3 if seconds is not None else None)


def percent(share):
    return "" if share is None else f"{100 * share:.1f} %"


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]) + "\n"


def label(pruning):
    return f"`{pruning}`"


def bound(bar):
    return f">= {bar['least']}" if bar["least"] is not None else f"<= {bar['most']}"


def verdict(bar):
    return {True: "met", False: "not met", None: "not measured"}[bar["met"]]


def operations_table(entry, wait_s):
    rows = [[op["op"], number(op["calls"]), ms(op["net_s"]), percent(op["share"]), number(op["flops"] * 1e-9),
             number(op["bytes"] * 2.0 ** -20), ms(op["floor_s"]), percent(op["floor_share"])] for op in entry["operations"]]
    return (f"### Batch {entry['batch']}, {label(entry['pruning'])}\n\n" +
            f"Waiting for each call, {wait_s * 1e6:.1f} us, is taken off.\n\n" +
            table(("operation", "calls", "ms", "share", "GFLOP", "MiB", "floor, ms", "floor/time"), rows))


def pytorch_text(result):
    if "skipped" in result["pytorch"]:
        return f"Not measured: {result['pytorch']['skipped']}\n"
    rows = []
    for entry in result["pytorch"]["evaluations"]:
        # Compared with a pruning of about as many FLOPs.
        pruning = "at-edm-c" if "tome" in entry["mode"] else "off"
        own = next((e for e in result["evaluations"] if e["pruning"] == pruning and e["batch"] == entry["batch"]), None)
        rows.append([entry["mode"], entry["batch"], number(entry.get("flops") and 1e-9 * entry["flops"]), ms(entry["seconds"]), label(pruning),
                     ms(own and own["seconds"]), number(own and entry["seconds"] / own["seconds"])])
    versions = ", ".join(f"{key} {value}" for key, value in result["pytorch"]["versions"].items())
    return f"{versions}\n\n" + table(("PyTorch", "batch", "GFLOP", "ms", "atedm", "ms", "its time over ours"), rows)


def hopper_text(result):
    """Attention, convolutions and linear layers with each choice of kernel, and evaluations with them."""
    if not result["hopper"]:
        return "Not measured: the device is not of compute capability 9.0.\n"

    def rows_of(entries, *keys, units):
        rows = []
        for ways in figures.all_ways(entries, *keys):
            one = next(entry for entry in ways if entry)
            values = [entry and entry[key] and entry[key] * unit for key, unit in units.items() for entry in ways]
            faster = [figures.ratio(ways[0] and ways[0]["seconds"], entry and entry["seconds"]) for entry in ways[1:]]
            rows.append([*(label(one[key]) if key == "pruning" else one[key] for key in keys), *map(number, values + faster)])
        return rows

    rows = rows_of(result["hopper"]["kernels"], "op", "case", units={"seconds": 1e6, "flops_per_s": 1e-12})
    text = table(("operation", "case", "without, us", "with, us", "tried, us", "without, TFLOP/s", "with, TFLOP/s", "tried, TFLOP/s",
                  "times as fast", "tried"), rows)
    rows = rows_of(result["hopper"]["evaluations"], "op", "batch", "pruning", units={"seconds": 1e3})
    return text + "\n" + table(("operation", "batch of an evaluation", "pruning", "without, ms", "with, ms", "tried, ms",
                                "times as fast", "tried"), rows)


def requests_text(result):
    rows = [[r["kind"], label(r["pruning"]), r["steps"], r["clients"], number(r["images_per_s"]), number(r["p50_s"]),
             number(r["mean_batch"])] for r in result["requests"]]
    return table(("", "pruning", "steps", "clients", "images/s", "p50, s", "mean batch"), rows)


def text(result):
    """The whole report."""
    ceilings, settings = result["ceilings"], result["settings"]
    parts = [
        f"# {result['device']['name']}, {result['date']}\n",
        f"    {result['command']}\n",
        f"Commit {result['commit']}, driver {result['device']['driver']}; {settings['arch']} with random weights, "
        f"{settings['dtype']}, {settings['size']}, guidance {settings['guidance']}, backend {settings['backend']}.\n",
        "## Bars\n", table(("", "value", "bar", "unit", ""), [[b["name"], number(b["value"]), bound(b), b["unit"], verdict(b)]
                                                              for b in result["bars"]]),
        "## Ceilings, of the same run\n",
        table(("matrix product", "copy", "shortest operation"),
              [[f"{ceilings['matrix_flops_per_s'] * 1e-12:.4g} TFLOP/s", f"{ceilings['copy_bytes_per_s'] * 1e-9:.4g} GB/s",
                f"{ceilings['wait_s'] * 1e6:.2f} us"]]),
        "## One UNet evaluation\n",
        table(("batch", "pruning", "ms", "best, ms", "TFLOP", "overhead", "floor, ms", "floor/time", "against off", "FLOPs against off"),
              [[e["batch"], label(e["pruning"]), ms(e["seconds"]), ms(e["best_s"]), number(e["flops"] * 1e-12),
                number(e["overhead_flops"] * 1e-12), ms(e["floor_s"]), percent(e["floor_s"] / e["seconds"]),
                number(e["against_off"]), number(e["flops_against_off"])] for e in result["evaluations"]]),
        "## What pruning costs\n",
        table(("batch", "evaluation, ms", "G-WPR, ms", "share", "by difference", "recovery, ms", "share", "by difference",
               "all iterations, ms", "nothing aside, ms", "on 66 multiprocessors", "on 44", "first", "first, on 66"),
              [[c["batch"], ms(c["evaluation_s"]), ms(c["ranking_s"]), percent(c["ranking_share"]),
                percent(c["ranking_by_difference_share"]), ms(c["recovery_s"]), percent(c["recovery_share"]),
                percent(c["recovery_by_difference_share"]), ms(c["all_iterations_s"]), ms(c["in_order_s"]),
                ms(c["aside_66_s"]), ms(c["aside_44_s"]), ms(c["aside_first_s"]), ms(c["aside_66_first_s"])]
               for c in result["pruning_cost"]]),
        "## Denoising loops, with guidance\n",
        table(("images", "pruning", "steps", "s", "images/s", "against off"),
              [[e["images"], label(e["pruning"]), e["steps"], number(e["seconds"]), number(e["images_per_s"]),
                number(e["against_off"])] for e in result["loops"]]),
        "## Kernels for compute capability 9.0, beside the others\n", hopper_text(result),
        "## PyTorch beside it\n", pytorch_text(result),
        "## Text encoders, VAE\n",
        table(("stage", "batch", "ms"), [[s["stage"], s["batch"], ms(s["seconds"])] for s in result["stages"]]),
        "## Whole requests, over HTTP\n", requests_text(result),
        "## Operations on their own\n",
        table(("operation", "case", "us", "TFLOP/s", "floor, us", "floor/time"),
              [[k["op"], k["case"], number(k["seconds"] * 1e6),
                number(k["flops_per_s"] and k["flops_per_s"] * 1e-12), number(k["floor_s"] * 1e6), percent(k["floor_share"])]
               for k in result["kernels"]]),
        "## Operations of an evaluation\n",
        *[operations_table(e, ceilings["wait_s"]) for e in result["evaluations"] if e["pruning"] in ("off", "at-edm-c")],
    ]
    return "\n".join(parts)
