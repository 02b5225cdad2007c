#!/usr/bin/env python3
"""Times diffusers' UNet2DConditionModel with random weights, in bf16 with scaled dot product attention: as it is (eager), with
torch.compile, and with tokens merged by ToMe (tomesd), another way to make SDXL cheaper without training. Reports the FLOPs
of an evaluation, by PyTorch's own counter. Skipped (77) if a package is missing.

usage: pytorch_unet.py --config UNET_CONFIG.json [--size PIXELS] [--batch N...] [--modes eager compiled tome tome-compiled]
                       [--tome-ratio SHARE] [--repeat N] [--device cpu] [--dtype f32]
"""
import argparse
import json
import pathlib
import sys
import time

SKIPPED = 77
TEXT_TOKENS = 77
WARM_UP = 3
PIXELS_A_LATENT = 8
# Merging half of the tokens in attention, cross-attention and feed-forward of all levels leaves as many FLOPs as at-edm-c:
# 61.2 % at 1024x1024, including the search for the tokens to merge.
TOME_RATIO = 0.5
TOME_EVERYWHERE = {"max_downsample": 8, "merge_crossattn": True, "merge_mlp": True}


def inputs(torch, config, batch, latent, device, dtype):
    def random(*shape):
        return torch.randn(shape, device=device, dtype=dtype)

    pooled = config["projection_class_embeddings_input_dim"] - 6 * config["addition_time_embed_dim"]
    sample = random(batch, config["in_channels"], latent, latent).to(memory_format=torch.channels_last)
    # At the places where tomesd looks for them.
    return (sample, torch.tensor(500, device=device)), {
        "encoder_hidden_states": random(batch, TEXT_TOKENS, config["cross_attention_dim"]),
        "added_cond_kwargs": {"text_embeds": random(batch, pooled), "time_ids": random(batch, 6)}, "return_dict": False}


def patch(unet, settings):
    """Makes the module merge tokens, with tomesd's settings; None stops that."""
    import tomesd
    tomesd.remove_patch(unet)
    if settings:
        tomesd.apply_patch(unet, **settings)


def count_flops(torch, unet, args, fields):
    """FLOPs, counted on a device that computes nothing, where attention consists of products, which the counter knows."""
    from torch.utils.flop_counter import FlopCounterMode

    def there(value):
        if isinstance(value, dict):
            return {key: there(item) for key, item in value.items()}
        return value.to("meta") if isinstance(value, torch.Tensor) else value

    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        unet(*map(there, args), **there(fields))
    return counter.get_total_flops()


def seconds(torch, call, device, repeat):
    """Seconds of each of `repeat` calls, ascending, after some calls to warm up."""
    def wait():
        if device == "cuda":
            torch.cuda.synchronize()

    for _ in range(WARM_UP):
        call()
    out = []
    for _ in range(repeat):
        wait()
        start = time.perf_counter()
        call()
        wait()
        out.append(time.perf_counter() - start)
    return sorted(out)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=pathlib.Path, required=True)
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--batch", type=int, nargs="+", default=[1])
    parser.add_argument("--modes", nargs="+", choices=("eager", "compiled", "tome", "tome-compiled"),
                        default=["eager", "compiled"])
    parser.add_argument("--tome-ratio", type=float, default=TOME_RATIO)
    parser.add_argument("--repeat", type=int, default=10)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--dtype", choices=("bf16", "f32"), default="bf16")
    args = parser.parse_args()
    has_tome = any("tome" in mode for mode in args.modes)
    try:
        import torch
        import diffusers
        if has_tome:
            import tomesd
            del tomesd
    except ImportError as missing:
        print(f"no figures of PyTorch: {missing}")
        return SKIPPED
    config = json.loads(args.config.read_text(encoding="utf-8"))
    dtype = torch.bfloat16 if args.dtype == "bf16" else torch.float32
    torch.manual_seed(1)
    torch.set_default_dtype(dtype)
    def make(device):
        with torch.device(device):  # its default attention processor uses SDPA
            unet = diffusers.UNet2DConditionModel.from_config(config)
        return unet.eval().to(memory_format=torch.channels_last)

    unet, counted = make(args.device), make("meta")
    rows = []
    with torch.inference_mode():
        for mode in args.modes:
            for module in (unet, counted) if has_tome else ():
                patch(module, {"ratio": args.tome_ratio, **TOME_EVERYWHERE} if "tome" in mode else None)
            # Compiled for each batch: code for any batch would be slower.
            model = torch.compile(unet, dynamic=False) if "compiled" in mode else unet
            for batch in args.batch:
                given, fields = inputs(torch, config, batch, args.size // PIXELS_A_LATENT, args.device, dtype)
                flops = count_flops(torch, counted, given, fields)
                times = seconds(torch, lambda m=model, g=given, f=fields: m(*g, **f), args.device, args.repeat)
                rows.append({"mode": mode, "batch": batch, "seconds": times[len(times) // 2], "best_s": times[0],
                             "flops": flops})
                print(f"{mode}, batch {batch}: {1e3 * times[0]:.2f} ms, {1e-9 * flops:.1f} GFLOP", file=sys.stderr)
    print(json.dumps({"versions": {"torch": torch.__version__, "diffusers": diffusers.__version__}, "evaluations": rows}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
