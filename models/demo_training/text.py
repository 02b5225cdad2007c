"""Stage 2: vocabulary, tokenizers and both text encoders.

The encoders learn to preserve what a caption says. For this, classifiers predict every attribute of the scene: from the
hidden states, which they read by attention as the UNet will, and from the pooled output. Afterwards the classifiers are
discarded. So UNet training has meaningful embeddings from its first step, and it leaves the encoders as they are.
"""

from __future__ import annotations

import random
from pathlib import Path

import torch
import torch.nn.functional as F
from demo_world.caption import caption, training_caption
from demo_world.scene import BACKGROUNDS, COLOURS, POSITIONS, RELATIONS, SHAPES, SIZES, Scene
from torch import nn
from tqdm import tqdm
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from . import checkpoint
from .architecture import POOLED_WIDTH, TEXT_WIDTH, TOKENS, text_config
from .data import random_scenes
from .layout import TOKENIZERS, write_tokenizers

BATCH = 128
RATE = 2e-3
EMBEDDING = 0.3  # standard deviation of token embeddings at the start
CHECKPOINT_STEPS = 500

_NONE = "none"
_ATTRIBUTES: tuple[tuple[str, ...], ...] = (
    BACKGROUNDS,
    tuple(COLOURS),  # first colour of the background
    (*COLOURS, _NONE),  # second colour of the background
    (*POSITIONS, *RELATIONS),
    tuple(COLOURS), SHAPES, tuple(SIZES),  # first object
    (*COLOURS, _NONE), (*SHAPES, _NONE), (*SIZES, _NONE),  # second object
)  # fmt: skip


def attributes(scene: Scene) -> list[int]:
    """The scene's class index for each of _ATTRIBUTES."""
    first, second = scene.things[0], scene.things[1] if len(scene.things) > 1 else None
    values = (
        scene.background, scene.colours[0], scene.colours[1] if len(scene.colours) > 1 else _NONE,
        scene.position or scene.relation, first.colour, first.shape, first.size,
        *((second.colour, second.shape, second.size) if second else (_NONE,) * 3),
    )  # fmt: skip
    return [names.index(value) for names, value in zip(_ATTRIBUTES, values)]


def _write_tokenizers(folder: Path, seed: int) -> None:
    """Writes tokenizers with a vocabulary in which every word of the captions is one token."""
    rng = random.Random(f"{seed} vocabulary")
    write_tokenizers(folder, "\n".join(caption(scene, rng) for scene in random_scenes(rng, 4000)))


class TextEncoders(nn.Module):
    """Both text encoders with their tokenizers, as SDXL uses them."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.tokenizers = [CLIPTokenizer.from_pretrained(folder / name) for name in TOKENIZERS]
        size = len(self.tokenizers[0])
        self.first = CLIPTextModel(CLIPTextConfig(**text_config(False, size)))
        self.second = CLIPTextModelWithProjection(CLIPTextConfig(**text_config(True, size)))
        for encoder in (self.first, self.second):
            nn.init.normal_(encoder.text_model.embeddings.token_embedding.weight, std=EMBEDDING)
            nn.init.normal_(encoder.text_model.embeddings.position_embedding.weight, std=EMBEDDING / 3)
        self._words: tuple[dict[str, list[int]], dict[str, list[int]]] = ({}, {})

    def tokens(self, captions: list[str], length: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Padded token ids, by each tokenizer. Because the tokenizers are slow, this keeps the ids of every word it has
        seen. That is exact, since no token spans white space; and the captions use few different words."""
        both = []
        for tokenizer, words in zip(self.tokenizers, self._words):
            rows = []
            for text in captions:
                ids = [tokenizer.bos_token_id]
                for word in text.split():
                    if word not in words:
                        words[word] = tokenizer(word, add_special_tokens=False).input_ids
                    ids += words[word]
                ids = ids[: TOKENS - 1] + [tokenizer.eos_token_id]
                rows.append((ids + [tokenizer.pad_token_id] * TOKENS)[:length])
            both.append(torch.tensor(rows))
        return both[0], both[1]

    def longest(self, captions: list[str]) -> int:
        """The number of tokens of the longest caption, start and end tokens included."""
        ids, _ = self.tokens(captions, TOKENS)
        return 1 + int((ids == self.tokenizers[0].eos_token_id).int().argmax(dim=1).max())

    def forward(self, captions: list[str], length: int = TOKENS) -> tuple[torch.Tensor, torch.Tensor]:
        """Hidden states [n, length, 2 * TEXT_WIDTH] and pooled output [n, POOLED_WIDTH]. Tokens after the first `length`
        would change neither, since attention is causal. The end token of every caption has to be among the first."""
        device = next(self.parameters()).device
        first, second = (ids.to(device) for ids in self.tokens(captions, length))
        one = self.first(first, output_hidden_states=True).hidden_states[-2]
        two = self.second(second, output_hidden_states=True)
        return torch.cat([one, two.hidden_states[-2]], dim=-1), two.text_embeds


class _Classifiers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        width, classes = 2 * TEXT_WIDTH, sum(map(len, _ATTRIBUTES))
        self.queries = nn.Parameter(torch.randn(len(_ATTRIBUTES), width) / 8)
        self.key, self.value = nn.Linear(width, width), nn.Linear(width, width)
        self.heads = nn.ModuleList(nn.Linear(width, len(names)) for names in _ATTRIBUTES)
        self.pooled = nn.Sequential(nn.Linear(POOLED_WIDTH, 256), nn.GELU(), nn.Linear(256, classes))

    def forward(self, hidden: torch.Tensor, pooled: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """For each attribute, its logits from the hidden states and from the pooled output."""
        queries = self.queries.expand(len(hidden), -1, -1)
        read = F.scaled_dot_product_attention(queries, self.key(hidden), self.value(hidden))
        parts = self.pooled(pooled).split([len(names) for names in _ATTRIBUTES], dim=-1)
        return [(head(read[:, i]), parts[i]) for i, head in enumerate(self.heads)]


@torch.no_grad()
def _set_scale(encoder: nn.Module, factor: float) -> None:
    """Multiplies the hidden states by a factor, and changes nothing else. It scales everything that is added to the
    residual stream; the layers compute the same as before, since each reads the stream through a layer norm."""
    model = encoder.text_model
    model.embeddings.token_embedding.weight.mul_(factor)
    model.embeddings.position_embedding.weight.mul_(factor)
    for layer in model.encoder.layers:
        for linear in (layer.self_attn.out_proj, layer.mlp.fc2):
            linear.weight.mul_(factor)
            linear.bias.mul_(factor)


@torch.no_grad()
def _normalise(encoders: TextEncoders, captions: list[str]) -> None:
    """Scales the weights so that hidden states and pooled output have a standard deviation of 1."""
    hidden, pooled = encoders(captions)
    _set_scale(encoders.first, 1 / hidden[..., :TEXT_WIDTH].std().item())
    _set_scale(encoders.second, 1 / hidden[..., TEXT_WIDTH:].std().item())
    encoders.second.text_projection.weight.div_(pooled.std())


def load(folder: Path) -> TextEncoders:
    """Loads the encoders of a model folder."""
    encoders = TextEncoders(folder)
    encoders.first = CLIPTextModel.from_pretrained(folder / "text_encoder", torch_dtype=torch.float32)
    encoders.second = CLIPTextModelWithProjection.from_pretrained(folder / "text_encoder_2", torch_dtype=torch.float32)
    return encoders.eval()


def train(folder: Path, path: Path, steps: int, seed: int, device: torch.device) -> TextEncoders:
    """Trains the encoders for `steps` steps in all. Writes the tokenizers into `folder`; `path` is the checkpoint."""
    if not (folder / "tokenizer_2" / "vocab.json").exists():
        _write_tokenizers(folder, seed)
    torch.manual_seed(seed)
    encoders, classifiers = TextEncoders(folder), _Classifiers()
    both = nn.ModuleList([encoders, classifiers]).to(device)
    optimizer = torch.optim.AdamW(both.parameters(), lr=RATE, betas=(0.9, 0.98), weight_decay=0.01)
    done = 0
    if state := checkpoint.load(path):
        both.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        done = state["step"]
    bar = tqdm(range(done, steps), desc="text encoders", initial=done, total=steps, mininterval=5)
    for step in bar:
        rng = random.Random(f"{seed} text {step}")
        scenes = random_scenes(rng, BATCH)
        captions = [training_caption(scene, rng) for scene in scenes]
        length = encoders.longest(captions)
        wanted = torch.tensor([attributes(scene) for scene in scenes], device=device).T
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1, (step + 1) / 100) * min(1, (1 - step / steps) / 0.5)
        logits = classifiers(*encoders(captions, length))
        loss = sum(F.cross_entropy(a, w) + F.cross_entropy(b, w) for (a, b), w in zip(logits, wanted))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(both.parameters(), 1.0)
        optimizer.step()
        if step % 20 == 0:
            right = [sum((x[k].argmax(-1) == w).float().mean() for x, w in zip(logits, wanted)) / len(wanted) for k in (0, 1)]
            bar.set_postfix(loss=f"{loss.item():.2f}", hidden=f"{right[0]:.3f}", pooled=f"{right[1]:.3f}")
        last = step + 1 == steps
        if last:
            _normalise(encoders, captions)
        if last or (step + 1) % CHECKPOINT_STEPS == 0:
            checkpoint.save(path, {"model": both.state_dict(), "optimizer": optimizer.state_dict(), "step": step + 1})
    return encoders.eval()
