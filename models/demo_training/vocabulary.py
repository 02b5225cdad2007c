"""Learns a small byte-pair vocabulary from a text, and writes it in CLIP's file format.

The ids are in CLIP's order: 256 byte symbols, the same 256 with the end-of-word mark, one for each merge, then
`<|startoftext|>` and `<|endoftext|>`.
"""

from __future__ import annotations

import json
from collections import Counter
from itertools import pairwise
from pathlib import Path

END_OF_WORD = "</w>"
SPECIAL_TOKENS = ("<|startoftext|>", "<|endoftext|>")

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


def learn_merges(text: str, count: int | None) -> list[Pair]:
    """Merges the most frequent pair `count` times; of equally frequent pairs the one that sorts first. Without a count, it
    merges until each word is one token."""
    symbols = byte_symbols()
    words: Counter[tuple[str, ...]] = Counter()
    for raw in text.lower().split():
        letters = [symbols[byte] for byte in raw.encode()]
        words[(*letters[:-1], letters[-1] + END_OF_WORD)] += 1
    merges: list[Pair] = []
    while count is None or len(merges) < count:
        pairs: Counter[Pair] = Counter()
        for word, times in words.items():
            for pair in pairwise(word):
                pairs[pair] += times
        if not pairs and count is None:
            break
        if not pairs:
            raise ValueError(f"the text has only {len(merges)} merges, {count} wanted")
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        words = Counter({merge_word(word, best): times for word, times in words.items()})
    return merges


def write_vocabulary(folder: Path, text: str, merge_count: int | None = None) -> int:
    """Writes vocab.json and merges.txt, and returns the number of tokens."""
    merges = learn_merges(text, merge_count)
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
