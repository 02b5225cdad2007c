#!/usr/bin/env python3
"""Times diffusers' UNet2DConditionModel with random weights, in bf16 with scaled dot product attention and with torch.compile.
Skipped (77) where torch or diffusers is not there.

usage: pytorch_unet.py --config UNET_CONFIG.json [--size PIXELS] [--batch N...] [--modes eager compiled] [--repeat N]
                       [--device cpu] [--dtype f32]
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


def inputs(torch, config, batch, latent, device, dtype):
    def random(*shape):
        return torch.randn(shape, device=device, dtype=dtype)

    pooled = config["projection_class_embeddings_input_dim"] - 6 * config["addition_time_embed_dim"]
    sample = random(batch, config["in_channels"], latent, latent).to(memory_format=torch.channels_last)
    return {"sample": sample, "timestep": torch.tensor(500, device=device),
            "encoder_hidden_states": random(batch, TEXT_TOKENS, config["cross_attention_dim"]),
            "added_cond_kwargs": {"text_embeds": random(batch, pooled), "time_ids": random(batch, 6)}, "return_dict": False}


def seconds(torch, call, device, repeat):
    """Of each of `repeat` calls behind some to warm up, ascending."""
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
    parser.add_argument("--modes", nargs="+", choices=("eager", "compiled"), default=["eager", "compiled"])
    parser.add_argument("--repeat", type=int, default=10)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--dtype", choices=("bf16", "f32"), default="bf16")
    args = parser.parse_args()
    try:
        import torch
        import diffusers
    except ImportError as missing:
        print(f"no figures of PyTorch: {missing}")
        return SKIPPED
    config = json.loads(args.config.read_text(encoding="utf-8"))
    dtype = torch.bfloat16 if args.dtype == "bf16" else torch.float32
    torch.manual_seed(1)
    torch.set_default_dtype(dtype)
    with torch.device(args.device):  # its default processor is the one with SDPA
        unet = diffusers.UNet2DConditionModel.from_config(config)
    unet = unet.eval().to(memory_format=torch.channels_last)
    rows = []
    with torch.inference_mode():
        for mode in args.modes:
            # Compiled for each batch: code for any batch would be slower.
            model = torch.compile(unet, dynamic=False) if mode == "compiled" else unet
            for batch in args.batch:
                fields = inputs(torch, config, batch, args.size // PIXELS_A_LATENT, args.device, dtype)
                times = seconds(torch, lambda m=model, f=fields: m(**f), args.device, args.repeat)
                rows.append({"mode": mode, "batch": batch, "seconds": times[len(times) // 2], "best_s": times[0]})
                print(f"{mode}, batch {batch}: {1e3 * times[0]:.2f} ms", file=sys.stderr)
    print(json.dumps({"versions": {"torch": torch.__version__, "diffusers": diffusers.__version__}, "evaluations": rows}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
