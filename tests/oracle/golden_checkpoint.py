"""Where a checkpoint, one file in the layout of Stability AI's own code, keeps each parameter.

The names are put together here and judged by diffusers' conversion of such files: what it makes of a checkpoint of
these names has to be the component's own parameters, all of them, bit by bit.
"""

from __future__ import annotations

import re

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.loaders.single_file_utils import (
    convert_ldm_clip_checkpoint,
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
    convert_open_clip_checkpoint,
)
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from common import DATA_DIR, load_pipeline, write_json
from topologies import (
    MODELS,
    SDXL_BASE_TEXT_1,
    SDXL_BASE_TEXT_2,
    SDXL_BASE_UNET,
    SDXL_BASE_VAE,
    SDXL_BASE_VOCABULARY,
    text_config,
)

COMPONENTS = ("text_encoder", "text_encoder_2", "unet", "vae")
PREFIXES = {
    "text_encoder": "conditioner.embedders.0.transformer.",
    "text_encoder_2": "conditioner.embedders.1.model.",
    "unet": "model.diffusion_model.",
    "vae": "first_stage_model.",
}
FORMS = ("as asked", "first third", "second third", "last third", "transposed", "pointwise")

Place = tuple[str, str]  # name in the checkpoint, form
Tensors = dict[str, torch.Tensor]


def first_match(name: str, rules: list[tuple[str, str]]) -> str:
    """The name with its beginning replaced by the first rule that fits."""
    for pattern, replacement in rules:
        changed, count = re.subn("^" + pattern, replacement, name)
        if count:
            return changed
    return name


def unet_place(name: str, config: dict) -> Place:
    per_stage = config["layers_per_block"] + 1
    resnets = {
        "norm1": "in_layers.0",
        "conv1": "in_layers.2",
        "time_emb_proj": "emb_layers.1",
        "norm2": "out_layers.0",
        "conv2": "out_layers.3",
        "conv_shortcut": "skip_connection",
    }
    if found := re.match(r"(down|up)_blocks\.(\d+)\.(resnets|attentions)\.(\d+)\.(.*)", name):
        side, stage, kind, layer, rest = found.groups()
        place = int(stage) * per_stage + int(layer)
        block = f"input_blocks.{place + 1}" if side == "down" else f"output_blocks.{place}"
        part = 0 if kind == "resnets" else 1
    elif found := re.match(r"mid_block\.(resnets|attentions)\.(\d+)\.(.*)", name):
        kind, layer, rest = found.groups()
        block, part = "middle_block", 1 if kind == "attentions" else 2 * int(layer)
    elif found := re.match(r"down_blocks\.(\d+)\.downsamplers\.0\.conv\.(.*)", name):
        return f"input_blocks.{(int(found[1]) + 1) * per_stage}.0.op.{found[2]}", "as asked"
    elif found := re.match(r"up_blocks\.(\d+)\.upsamplers\.0\.conv\.(.*)", name):
        part = 2 if config["up_block_types"][int(found[1])].startswith("CrossAttn") else 1
        return f"output_blocks.{(int(found[1]) + 1) * per_stage - 1}.{part}.conv.{found[2]}", "as asked"
    else:
        rules = [
            (r"conv_in\.", "input_blocks.0.0."),
            (r"time_embedding\.linear_1", "time_embed.0"),
            (r"time_embedding\.linear_2", "time_embed.2"),
            (r"add_embedding\.linear_1", "label_emb.0.0"),
            (r"add_embedding\.linear_2", "label_emb.0.2"),
            (r"conv_norm_out", "out.0"),
            (r"conv_out", "out.2"),
        ]
        return first_match(name, rules), "as asked"
    if kind == "resnets":
        inner, _, kept = rest.partition(".")
        rest = f"{resnets[inner]}.{kept}"
    return f"{block}.{part}.{rest}", "as asked"


def vae_place(name: str, config: dict) -> Place:
    last = len(config["block_out_channels"]) - 1
    attention = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
    if found := re.match(r"decoder\.mid_block\.attentions\.0\.(.*)\.(weight|bias)$", name):
        return f"decoder.mid.attn_1.{attention[found[1]]}.{found[2]}", "pointwise"
    name = name.replace("conv_shortcut", "nin_shortcut").replace("conv_norm_out", "norm_out")
    if found := re.match(r"decoder\.up_blocks\.(\d+)\.(.*)", name):
        rest = found[2].replace("resnets", "block").replace("upsamplers.0", "upsample")
        return f"decoder.up.{last - int(found[1])}.{rest}", "as asked"
    if found := re.match(r"decoder\.mid_block\.resnets\.(\d+)\.(.*)", name):
        return f"decoder.mid.block_{int(found[1]) + 1}.{found[2]}", "as asked"
    return name, "as asked"


def open_clip_place(name: str) -> Place:
    if name == "text_projection.weight":
        return "text_projection", "transposed"
    thirds = {"q": FORMS[1], "k": FORMS[2], "v": FORMS[3]}
    if found := re.match(r"text_model\.encoder\.layers\.(\d+)\.self_attn\.([qkv])_proj\.(.*)", name):
        return f"transformer.resblocks.{found[1]}.attn.in_proj_{found[3]}", thirds[found[2]]
    if found := re.match(r"text_model\.encoder\.layers\.(\d+)\.(.*)", name):
        rules = [
            ("layer_norm", "ln_"),
            (r"mlp\.fc1", "mlp.c_fc"),
            (r"mlp\.fc2", "mlp.c_proj"),
            ("self_attn", "attn"),
        ]
        return f"transformer.resblocks.{found[1]}.{first_match(found[2], rules)}", "as asked"
    rules = [
        (r"text_model\.embeddings\.token_embedding", "token_embedding"),
        (r"text_model\.embeddings\.position_embedding\.weight", "positional_embedding"),
        (r"text_model\.final_layer_norm", "ln_final"),
    ]
    return first_match(name, rules), "as asked"


def place(component: str, name: str, config: dict) -> Place:
    if component == "unet":
        found, form = unet_place(name, config)
    elif component == "vae":
        found, form = vae_place(name, config)
    elif component == "text_encoder_2":
        found, form = open_clip_place(name)
    else:
        found, form = name, "as asked"
    return PREFIXES[component] + found, form


def stored(parameters: Tensors, places: dict[str, Place]) -> Tensors:
    """A component as the checkpoint has it."""
    checkpoint: Tensors = {}
    thirds: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in parameters.items():
        where, form = places[name]
        if form.endswith("third"):
            thirds.setdefault(where, {})[form] = tensor
        elif form == "transposed":
            checkpoint[where] = tensor.T
        elif form == "pointwise" and tensor.dim() == 2:
            checkpoint[where] = tensor[:, :, None, None]
        else:
            checkpoint[where] = tensor
    for where, parts in thirds.items():
        checkpoint[where] = torch.cat([parts[form] for form in FORMS[1:4]])
    return checkpoint


def converted(component: str, module: nn.Module, checkpoint: Tensors) -> Tensors:
    """What diffusers makes of it."""
    if component == "unet":
        return convert_ldm_unet_checkpoint(checkpoint, dict(module.config))
    if component == "vae":
        return convert_ldm_vae_checkpoint(checkpoint, dict(module.config))
    if component == "text_encoder":
        return convert_ldm_clip_checkpoint(checkpoint)
    return convert_open_clip_checkpoint(module, checkpoint, prefix=PREFIXES[component])


def parameters_of(component: str, module: nn.Module) -> Tensors:
    """Those that making a picture takes: of the VAE the decoder's."""
    tensors = module.state_dict()
    if component == "vae":
        return {name: t for name, t in tensors.items() if not name.startswith(("encoder.", "quant_conv."))}
    return {name: t for name, t in tensors.items() if not name.endswith("position_ids")}


def places_of(component: str, module: nn.Module) -> dict[str, Place]:
    config = dict(module.config) if component in ("unet", "vae") else {}
    parameters = parameters_of(component, module)
    places = {name: place(component, name, config) for name in parameters}
    back = converted(component, module, stored(parameters, places))
    assert back.keys() == parameters.keys(), back.keys() ^ parameters.keys()
    for name, tensor in parameters.items():
        assert back[name].shape == tensor.shape, name
        assert tensor.is_meta or torch.equal(back[name], tensor), name
    return places


def digest(places: dict[str, Place]) -> str:
    """64-bit FNV-1a of a line for each parameter, in the order of their names."""
    value = 0xCBF29CE484222325
    for name in sorted(places):
        where, form = places[name]
        for byte in f"{name} {where} {form}\n".encode():
            value = (value ^ byte) * 0x100000001B3 % 2**64
    return f"{value:016x}"


def sdxl_base() -> dict[str, nn.Module]:
    with torch.device("meta"):
        return {
            "text_encoder": CLIPTextModel(CLIPTextConfig(**text_config(SDXL_BASE_TEXT_1, SDXL_BASE_VOCABULARY))),
            "text_encoder_2": CLIPTextModelWithProjection(
                CLIPTextConfig(**text_config(SDXL_BASE_TEXT_2, SDXL_BASE_VOCABULARY))
            ),
            "unet": UNet2DConditionModel(**SDXL_BASE_UNET),
            "vae": AutoencoderKL(**SDXL_BASE_VAE),
        }


def write_all() -> None:
    golden: dict[str, dict] = {}
    for model in MODELS[1:]:  # c differs from b in all that counts here; a is between them
        pipeline = load_pipeline(model.name)
        golden[model.name] = {
            component: places_of(component, getattr(pipeline, component)) for component in COMPONENTS
        }
    golden["sdxl-base"] = {
        component: {"count": len(places), "fnv1a": digest(places)}
        for component, module in sdxl_base().items()
        for places in [places_of(component, module)]
    }
    write_json(DATA_DIR / "checkpoint.json", golden)
