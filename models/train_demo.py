#!/usr/bin/env python3
"""Makes the demo model: draws pictures of its world, trains autoencoder, text encoders and UNet, and writes models/demo.

    python3 -m venv .venv && .venv/bin/pip install -r models/requirements.txt
    .venv/bin/python models/train_demo.py --work /tmp/demo-training --out models/demo

The defaults take about two hours and a quarter on two cores with AVX2, or an hour and a half with AVX-512 BF16. The
resulting model is nearly as good as the shipped one, which was trained for more steps, in several runs: see
models/demo/README.md.

The script uses a GPU if there is one, else all cores; it computes in bf16 if the device multiplies bf16 matrices fast. You
can stop it at any time: every stage keeps a checkpoint in the work folder, and the next run continues from there. The seed
fixes the pictures and their order. The weights still differ between machines, because the last bits of sums do.

A later run may ask for more steps of a stage: the number of steps only sets when the learning rate falls. To train a
finished model further, start from its folder. Its text encoders and its VAE encoder stay as they are; the VAE decoder and
the UNet are trained further.

    .venv/bin/python models/train_demo.py --work /tmp/further --start models/demo --out models/demo --unet-steps 0 4000 800
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))

from demo_training import sample, text, unet, vae  # noqa: E402
from demo_training.architecture import NATIVE_SIZE  # noqa: E402
from demo_training.write import write_model  # noqa: E402


def computes_bf16(device: torch.device) -> bool:
    """Whether the device computes faster in bf16 than in f32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    return "amx_bf16" in flags or "avx512_bf16" in flags


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for checkpoints and sample pictures")
    parser.add_argument("--out", type=Path, required=True, help="folder to write the model to")
    parser.add_argument("--start", type=Path, help="model folder to start from")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--vae-steps", type=int, default=1200)
    parser.add_argument("--text-steps", type=int, default=1000)
    parser.add_argument("--unet-steps", type=int, nargs=3, default=(800, 900, 500), metavar=("SMALL", "NATIVE", "MIXED"))
    parser.add_argument("--stages", nargs="+", default=["vae", "text", "unet", "write"], choices=["vae", "text", "unet", "write"],
                        help="the stages to run; the others must have run before")
    return parser.parse_args()  # fmt: skip


def main() -> None:
    args = parse()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    half = computes_bf16(device)
    print(f"{device.type}, {'bf16' if half else 'f32'}, {torch.get_num_threads()} threads", flush=True)
    args.work.mkdir(parents=True, exist_ok=True)
    vae_steps = args.vae_steps if "vae" in args.stages else 0
    autoencoder = vae.train(args.work / "vae.pt", vae_steps, args.seed, device, args.start)
    if args.start:
        encoders = text.load(args.start)
    else:
        steps = args.text_steps if "text" in args.stages else 0
        encoders = text.train(args.work / "model", args.work / "text.pt", steps, args.seed, device)
    trainer = unet.Trainer(encoders, device, half, args.seed, args.start)
    small, native, mixed = args.unet_steps

    def look(state: unet.Trainer) -> None:
        size = NATIVE_SIZE // 2 if state.done <= small else NATIVE_SIZE
        sample.look(state.average, encoders, autoencoder, args.work / f"look-{state.done:06}.png", size)

    plan = unet.phases(small, native, mixed) if "unet" in args.stages else []
    average = unet.train(trainer, autoencoder, plan, args.work / "unet.pt", look)
    if "write" in args.stages:
        write_model(args.out, args.start or args.work / "model", autoencoder, encoders, average)


if __name__ == "__main__":
    main()
