"""A small byte-pair vocabulary in CLIP's file format, learned from a few sentences.

CLIP's order of ids: 256 byte symbols, the same 256 with the end-of-word mark, one per merge, then
`<|startoftext|>` and `<|endoftext|>`.
"""

from __future__ import annotations

import json
from collections import Counter
from itertools import pairwise
from pathlib import Path

END_OF_WORD = "</w>"
SPECIAL_TOKENS = ("<|startoftext|>", "<|endoftext|>")

TEXT = """
a photo of a red fox in the snow at night a photograph of an astronaut riding a horse on the moon
a watercolor painting of a lighthouse on a rocky coast under a stormy sky with dramatic lighting
portrait of an old man with a white beard and a blue hat highly detailed digital art by a great artist
the city in the rain at sunset neon lights reflecting on wet streets cinematic photography sharp focus
a small cottage in a green forest with a river and mountains in the background oil on canvas
blurry low quality ugly bad anatomy deformed watermark text signature worst quality jpeg artifacts
a bowl of fruit on a wooden table still life in the style of the dutch masters soft light
two cats playing chess in a library it's a sunny day they're happy i've seen that we'll go i'm here he'd
an isometric drawing of a castle trending in the gallery masterpiece best quality ultra realistic
café über straße naïve 日本 東京 日本語 фото кот mañana … — “quoted” 2024 100
"""

Pair = tuple[str, str]


def byte_symbols() -> dict[int, str]:
    """A printable character for every byte, in the order in which CLIP numbers them."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    symbols = {byte: chr(byte) for byte in printable}
    symbols.update({byte: chr(256 + i) for i, byte in enumerate(others)})
    return symbols


def merge_word(word: tuple[str, ...], pair: Pair) -> tuple[str, ...]:
    """Joins every occurrence of the pair in the word, from the left."""
    out: list[str] = []
    i = 0
    while i < len(word):
        if word[i : i + 2] == pair:
            out.append(pair[0] + pair[1])
            i += 2
        else:
            out.append(word[i])
            i += 1
    return tuple(out)


def learn_merges(text: str, count: int) -> list[Pair]:
    """The `count` most frequent pairs, one at a time; ties go to the pair that sorts first."""
    symbols = byte_symbols()
    words: Counter[tuple[str, ...]] = Counter()
    for raw in text.lower().split():
        letters = [symbols[byte] for byte in raw.encode()]
        words[(*letters[:-1], letters[-1] + END_OF_WORD)] += 1
    merges: list[Pair] = []
    while len(merges) < count:
        pairs: Counter[Pair] = Counter()
        for word, times in words.items():
            for pair in pairwise(word):
                pairs[pair] += times
        if not pairs:
            raise ValueError(f"the text has only {len(merges)} merges, {count} wanted")
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        words = Counter({merge_word(word, best): times for word, times in words.items()})
    return merges


def write_vocabulary(folder: Path, merge_count: int) -> int:
    """Writes vocab.json and merges.txt and returns the number of tokens."""
    merges = learn_merges(TEXT, merge_count)
    singles = list(byte_symbols().values())
    tokens = [*singles, *(s + END_OF_WORD for s in singles), *(a + b for a, b in merges), *SPECIAL_TOKENS]
    if len(set(tokens)) != len(tokens):
        raise ValueError("a merge repeats a token")
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = {token: i for i, token in enumerate(tokens)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")
    lines = ["#version: 0.2", *(f"{a} {b}" for a, b in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return len(tokens)
