"""End-to-end goldens: StableDiffusionXLPipeline in f32 on the toy models, every intermediate recorded."""

from __future__ import annotations

import contextlib
import unittest.mock
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import DPMSolverMultistepScheduler, StableDiffusionXLPipeline
from diffusers.utils.torch_utils import randn_tensor

from common import DATA_DIR, load_pipeline, scheduler_for, write_json, write_tensors

PROMPT = "a photo of a red fox in the snow, it's 2024!"
NEGATIVE = "blurry, low quality"
SPECIAL_TOKENS_PROMPT = "a red fox! <|endoftext|> in the snow <|startoftext|>"
LONG_PROMPT = "a watercolor painting of a lighthouse on a rocky coast under a stormy sky, " * 9
# How far the last latents of f32 may be from those of f64, as relative L2: a fifth of what the C tests allow.
MAX_ROUNDING = 2e-5
# For each model the guidance and the seeds of its 20 steps. Model c predicts v: from guidance 2 on it amplifies rounding
# a hundred to a thousand times over the steps, and with most seeds at 1.5 more than MAX_ROUNDING allows.
TRAJECTORIES = {"a": (7.0, (42, 43, 44)), "b": (7.0, (1042, 1043, 1044)), "c": (1.5, (2042, 2047, 2051))}

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Request:
    """The fields of POST /generate that a case sets, by their names in api.md."""

    prompt: str
    negative_prompt: str | None
    width: int
    height: int
    steps: int
    guidance_scale: float
    seed: int
    num_images: int
    sampler: str = "euler"


@dataclass(frozen=True)
class Case:
    """One run. `embeds` keeps the prompt embeddings, `full_image` keeps f32 pixels (else 8 bits)."""

    name: str
    model: str
    request: Request
    embeds: bool = True
    full_image: bool = True


def cases() -> list[Case]:
    """20 guided steps at two sizes and in a batch of three for each model, then single features."""
    out: list[Case] = []
    for name, (guidance, seeds) in TRAJECTORIES.items():
        out += [
            Case(f"{name}-96x64", name, Request(PROMPT, NEGATIVE, 96, 64, 20, guidance, seeds[0], 1)),
            Case(f"{name}-32x96", name, Request(PROMPT, "", 32, 96, 20, min(guidance, 5.0), seeds[1], 1), embeds=False),
            Case(f"{name}-batch3", name, Request(PROMPT, NEGATIVE, 96, 64, 20, guidance, seeds[2], 3), False, False),
        ]
    out += [
        Case("a-negative-null", "a", Request(PROMPT, None, 64, 32, 3, 7.0, 7, 1), full_image=False),
        Case("a-negative-empty", "a", Request(PROMPT, "", 64, 32, 3, 7.0, 7, 1), full_image=False),
        Case("b-negative-null", "b", Request(PROMPT, None, 64, 32, 3, 7.0, 7, 1), full_image=False),
        Case("a-unguided", "a", Request(PROMPT, NEGATIVE, 64, 32, 3, 1.0, 2**53 + 1, 1), full_image=False),
        Case("b-long-prompt", "b", Request(LONG_PROMPT, NEGATIVE, 64, 32, 2, 7.0, 9, 1), full_image=False),
        Case("c-odd-grid", "c", Request(PROMPT, NEGATIVE, 104, 72, 3, 7.0, 11, 1), False, False),
        Case("c-special-tokens", "c", Request(SPECIAL_TOKENS_PROMPT, "!", 64, 32, 1, 2.0, 3, 1), full_image=False),
        Case("a-dpmpp-2m-karras", "a", Request(PROMPT, NEGATIVE, 64, 32, 6, 7.0, 13, 1, "dpmpp_2m_karras"), full_image=False),
        Case("b-dpmpp-2m", "b", Request(PROMPT, NEGATIVE, 64, 32, 17, 7.0, 13, 2, "dpmpp_2m"), False, False),
        Case("c-dpmpp-2m", "c", Request(PROMPT, NEGATIVE, 64, 32, 4, 1.5, 13, 2, "dpmpp_2m"), False, False),
        Case("b-euler-ancestral", "b", Request(PROMPT, NEGATIVE, 64, 32, 6, 7.0, 17, 2, "euler_ancestral"), False, False),
        Case("b-one-step", "b", Request("a", "a", 32, 64, 1, 30.0, 0, 1), False, False),
    ]
    return out


def token_ids(pipeline: StableDiffusionXLPipeline, texts: list[str]) -> Tensors:
    """[texts, 77] of both tokenizers, padded and cut as the pipeline does it."""
    options = {"padding": "max_length", "max_length": 77, "truncation": True, "return_tensors": "pt"}
    return {
        "tokens": pipeline.tokenizer(texts, **options).input_ids,
        "tokens_2": pipeline.tokenizer_2(texts, **options).input_ids,
    }


def text_stage(pipeline: StableDiffusionXLPipeline, request: Request) -> Tensors:
    """Tokens and embeddings, negative first; without guidance there is only the positive row."""
    guided = request.guidance_scale > 1.0
    positive, negative, pooled, negative_pooled = pipeline.encode_prompt(
        request.prompt, negative_prompt=request.negative_prompt, do_classifier_free_guidance=guided
    )
    texts = [request.negative_prompt or "", request.prompt] if guided else [request.prompt]
    tensors = token_ids(pipeline, texts)
    tensors["prompt_embeds"] = torch.cat([negative, positive]) if guided else positive
    tensors["pooled_prompt_embeds"] = torch.cat([negative_pooled, pooled]) if guided else pooled
    return tensors


def in_sigma_scale(pipeline: StableDiffusionXLPipeline, latents: torch.Tensor, step: int) -> torch.Tensor:
    """As Euler's scheduler has latents before `step`: x0 + sigma e. The other one has them of unit variance, in which
    we have only the last ones too."""
    scheduler = pipeline.scheduler
    if isinstance(scheduler, DPMSolverMultistepScheduler) and step < len(scheduler.timesteps):
        return latents * (scheduler.sigmas[step] ** 2 + 1) ** 0.5
    return latents


def initial_latents(pipeline: StableDiffusionXLPipeline, request: Request) -> torch.Tensor:
    """[num_images, 4, height / 8, width / 8], or what the VAE scales by; image i is drawn from seed + i, then scaled by
    init_noise_sigma."""
    shape = (1, 4, request.height // pipeline.vae_scale_factor, request.width // pipeline.vae_scale_factor)
    noise = [
        torch.randn(shape, generator=torch.Generator("cpu").manual_seed(request.seed + i))
        for i in range(request.num_images)
    ]
    pipeline.scheduler.set_timesteps(request.steps)
    return in_sigma_scale(pipeline, torch.cat(noise) * pipeline.scheduler.init_noise_sigma, 0)


def given_embeds(pipeline: StableDiffusionXLPipeline, text: Tensors, dtype: torch.dtype) -> Tensors:
    """What text_stage made as arguments of the pipeline, which then needs no text encoders and loses them (f64 is
    more than they can do)."""
    pipeline.register_modules(text_encoder=None, text_encoder_2=None)
    embeds, pooled = text["prompt_embeds"].to(dtype), text["pooled_prompt_embeds"].to(dtype)
    given = {"prompt_embeds": embeds[-1:], "pooled_prompt_embeds": pooled[-1:]}
    if len(embeds) == 2:
        given |= {"negative_prompt_embeds": embeds[:1], "negative_pooled_prompt_embeds": pooled[:1]}
    return given


@contextlib.contextmanager
def noise_as_in_f32() -> Iterator[None]:
    """A generator draws other numbers in float64: a run in that gets those of f32."""

    def draw_f32(*args: Any, dtype: torch.dtype | None = None, **options: Any) -> torch.Tensor:
        return randn_tensor(*args, dtype=torch.float32, **options).to(dtype)

    places = (
        "diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl.randn_tensor",
        "diffusers.schedulers.scheduling_euler_ancestral_discrete.randn_tensor",
    )
    with contextlib.ExitStack() as stack:
        for place in places:
            stack.enter_context(unittest.mock.patch(place, draw_f32))
        yield


def run(pipeline: StableDiffusionXLPipeline, request: Request, dtype: torch.dtype = torch.float32) -> Tensors:
    """Runs the pipeline and returns its intermediates under the names of `--dump`. The text stage and the scheduler
    stay in f32, and so does the noise."""
    tensors = text_stage(pipeline, request) | {"latents_init": initial_latents(pipeline, request)}
    given = given_embeds(pipeline, tensors, dtype)
    pipeline.unet.to(dtype)
    pipeline.vae.to(dtype)
    calls: list[tuple[dict[str, Any], torch.Tensor]] = []
    latents: list[torch.Tensor] = []

    def on_unet(_module: torch.nn.Module, _args: tuple, kwargs: dict[str, Any], output: tuple) -> None:
        calls.append((kwargs, output[0]))

    def on_step(_pipeline: Any, _step: int, _timestep: Any, values: dict[str, torch.Tensor]) -> dict:
        latents.append(values["latents"].clone())
        return values

    hook = pipeline.unet.register_forward_hook(on_unet, with_kwargs=True)
    with noise_as_in_f32():
        image = pipeline(
            **given,
            width=request.width,
            height=request.height,
            num_inference_steps=request.steps,
            guidance_scale=request.guidance_scale,
            num_images_per_prompt=request.num_images,
            generator=[torch.Generator("cpu").manual_seed(request.seed + i) for i in range(request.num_images)],
            output_type="pt",
            callback_on_step_end=on_step,
        ).images
    hook.remove()
    tensors["add_time_ids"] = calls[0][0]["added_cond_kwargs"]["time_ids"][:: request.num_images]
    tensors["sigmas"] = pipeline.scheduler.sigmas
    tensors["timesteps"] = pipeline.scheduler.timesteps.to(torch.float32)
    tensors |= {f"noise_pred.{k}": output for k, (_, output) in enumerate(calls)}
    tensors |= {f"latents.{k}": in_sigma_scale(pipeline, value, k + 1) for k, value in enumerate(latents)}
    tensors["image"] = image * 2.0 - 1.0
    return tensors


def to_bytes(image: torch.Tensor) -> torch.Tensor:
    """-1..1 to 0..255, rounded to nearest (ties to even), as diffusers' image processor does."""
    return ((image + 1.0) / 2.0 * 255.0).round().clamp(0, 255).to(torch.uint8)


def trim(case: Case, tensors: Tensors) -> Tensors:
    """Drops what would only repeat itself: the middle steps, embeddings and f32 pixels where not wanted."""
    last = case.request.steps - 1
    kept_steps = {"0", str(last // 2), str(last)} if case.request.num_images == 1 else {str(last)}
    out: Tensors = {}
    for name, tensor in tensors.items():
        stem, _, step = name.partition(".")
        dropped = step not in kept_steps if step else stem == "prompt_embeds" and not case.embeds
        if not dropped:
            out[name] = tensor
    if not case.full_image:
        out["image_u8"] = to_bytes(out.pop("image"))
    return out


def run_case(case: Case, dtype: torch.dtype) -> Tensors:
    pipeline = load_pipeline(case.model)
    pipeline.scheduler = scheduler_for(case.request.sampler, pipeline.scheduler.config)
    return run(pipeline, case.request, dtype)


def write_all(folder: Path = DATA_DIR / "pipeline") -> None:
    for case in cases():
        tensors = run_case(case, torch.float32)
        last = f"latents.{case.request.steps - 1}"
        exact = run_case(case, torch.float64)[last]
        rounding = ((tensors[last] - exact).norm() / exact.norm()).item()
        if not rounding <= MAX_ROUNDING:
            raise ValueError(f"{case.name}: f32 is {rounding:.1e} from f64: no reference for others")
        saturated = (tensors["image"].abs() >= 1.0).float().mean().item()
        if saturated > 0.05:
            raise ValueError(f"{case.name}: {saturated:.1%} of the image is saturated")
        write_tensors(folder / f"{case.name}.safetensors", trim(case, tensors))
        request = {name: value for name, value in asdict(case.request).items() if value != "euler"}
        write_json(folder / f"{case.name}.json", {"model": case.model, "request": request})
        print(f"{case.name}: image std {tensors['image'].std():.3f}, saturated {saturated:.4f}, {rounding:.1e} from f64")
