"""The tokenizer golden: strings and their ids by CLIPTokenizerFast, and where the slow tokenizer differs."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any
from unicodedata import ucd_3_2_0

from transformers import CLIPTokenizer, CLIPTokenizerFast
from transformers.models.clip.tokenization_clip import BasicTokenizer

from common import DATA_DIR, MODELS_DIR, write_json

MODEL = "a"

# fmt: off
PLAIN = (
    "", " ", "   ", "a", "A", "z", "!", "a photo of a red fox", "A PHOTO of a Red FOX",
    "masterpiece, best quality",
    "a photo of a red fox in the snow at night", "trending in the gallery, 8k, ultra-realistic, f/1.8",
    "(masterpiece:1.2), [low quality], {best}, <lora:foo:0.8>", "snake_case camelCase kebab-case",
    "a.b.c", "a,b,c",
    "e-mail: someone@example.org", "path/to/file.png", "100% #hashtag $5 ^caret & ampersand *star*",
    "1+1=2", "3.14159",
    "0", "007", "1234567890", "2024-12-31T23:59:59Z", "x1y2z3", "1st 2nd 3rd", "4k 8K 16:9", "½ ¾ ² ³ ¹",
    "Ⅷ ⅷ Ⅻ",
    "٠١٢٣", "१२३", "一二三", "①②③", "𝟘𝟙𝟚", "1,000,000.00",
    "antidisestablishmentarianism", "supercalifragilisticexpialidocious" * 3, "a" * 100, "ab" * 64,
    "zq" * 50, "!" * 40,
    "?!?!?!", "......", "----", "____", "~`@#$%^&*()_+-={}|[]\\:\";'<>?,./", "“curly” ‘quotes’",
    "«guillemets»", "…—–",
    "\\n is not a newline", "%s %d %n", "'; DROP TABLE images; --", "<script>alert(1)</script>",
    "\"quoted\"", "back\\slash",
)
CONTRACTIONS = (
    "it's", "IT'S", "don't", "they're", "I've", "i'm", "we'll", "he'd", "'s", "'S", "'t", "'re", "'VE",
    "'m", "'ll", "'d",
    "'", "''", "'''s", "a's b't c're d've e'm f'll g'd", "rock'n'roll", "'sword", "'tis", "'dare",
    "'llama", "'really",
    "it’s", "don’t", "'ſ", "'K", "o'clock", "y'all'd've", "dogs' bones", "!'s", "!!'s", "('s)", "1's",
    "''s", "don't!!'s",
    "'s's's", "'ss", "' s", "'\u0301s",
)
SPACES = (
    " leading", "trailing ", "  both  ", "a  b", "a\tb", "a\nb", "a\r\nb", "a\vb", "a\fb", "\t\n\r",
    "a\u00a0b", "a\u1680b",
    "a\u2000b\u2001c\u2002d\u2003e", "a\u2004b\u2005c\u2006d\u2007e", "a\u2008b\u2009c\u200ad",
    "a\u2028b", "a\u2029b",
    "a\u202fb", "a\u205fb", "a\u3000b", "a\u0085b", "a\u200bb", "a\u200cb", "a\u200db", "a\u2060b",
    "\ufeffa", "a\ufeffb",
    "a\u180eb", "a\u00adb", "a \n \t b", "\u3000全角\u3000",
)
CONTROLS = (
    "a\u0001b", "a\u0007b", "a\u0008b", "a\u000eb", "a\u001bb", "a\u001cb", "a\u001db", "a\u001eb",
    "a\u001fb", "a\u007fb",
    "a\u0080b", "a\u009fb", "\u001b[31mred\u001b[0m", "a\ufffdb", "\ufffd", "a\ufffeb", "a\uffffb",
    "\U0010ffff", "\ue000",
    "\U000f0000", "a\u202eb\u202c", "a\u2066b\u2069", "\u0378",
)
CASES = (
    "ÀÉÎÕÜ", "àéîõü", "ŸŠŽ", "ÆŒØÅ", "ẞ", "ß", "STRASSE Straße", "İstanbul", "ISTANBUL", "ıI", "ΑΒΓΔ",
    "ΣΑΣ", "ὈΔΥΣΣΕΎΣ",
    "ΑΣ.", "ς", "ϴ", "Ω", "K", "Å", "ǅ Ǆ ǆ", "ǈǋǲ", "ПРИВЕТ мир", "ЁЖ", "ԱՐԵՎ", "ႠႡႢ", "ᲐᲑᲒ", "Ꭰ ꭰ Ᏸ ᏸ",
    "Ⓐⓐ", "ＡＢＣ ａｂｃ",
    "𐐀𐐨", "𝐀𝒜𝔸", "Ⱥ Ⱦ", "Ɐ", "ᾈ ᾼ ῼ", "ŉ", "ﬁ ﬂ ﬃ", "Ǳ", "Ꞌ", "Ꙋ",
)
MARKS = (
    "e\u0301", "é", "E\u0301", "n\u0303", "A\u030a", "\u212b", "o\u0308\u0304", "o\u0304\u0308",
    "q\u0307\u0323", "q\u0323\u0307",
    "s\u0323\u0307", "\u1e69", "\u0301", "\u0301a", "a\u0301\u0302\u0303\u0304", "a\u0338", "=\u0338",
    "I\u0307", "i\u0307",
    "\u0344", "\u0958", "\u2126", "\u1100\u1161\u11a8", "각", "ᄀ", "ｶﾞ", "ガ", "か\u3099", "\ufb1d",
    "\uf900", "\U0002f800",
    "Z̴̖̈a̷͠l̶g̵o̴", "क्षि", "ไทย", "தமிழ்", "ქართული", "!e\u0301", "e!\u0301", "\u0f73",
    "\u1112\u1161\u11ab\u1100\u1173\u11af",
)
SCRIPTS = (
    "日本語", "東京タワーの夜景", "漢字かな交じり文", "中文提示词：一只红狐狸", "你好，世界！", "한국어 안녕하세요", "русский кот", "українська ї",
    "Ελληνικά", "עברית", "שָׁלוֹם", "العربية", "مُحَمَّد", "فارسی", "हिन्दी", "বাংলা", "ภาษาไทย",
    "Tiếng Việt", "ພາສາລາວ", "አማርኛ", "ትግርኛ",
    "ᚠᚢᚦ", "𓀀𓁐", "𠮷野家", "㍿㈱", "ﷺ", "café", "mañana", "naïve über straße", "smörgåsbord", "Łódź", "ĳ",
    "ɐɔı", "ʻokina", "ˈfɒks",
    "ªº", "µm", "ᵃᵇ", "ₐ₁", "々〆〇", "〡〢〣", "ゝヽ", "ー", "・", "ꀀ", "ߊߋ", "𞤀𞤢",
)
EMOJI = (
    "🙂", "🦊", "🦊🦊🦊", "a🦊b", "❤️", "❤", "👍🏽", "👨‍👩‍👧‍👦", "🇩🇪", "🇩🇪🇫🇷", "1️⃣", "#️⃣", "🏴󠁧󠁢󠁥󠁮󠁧󠁿", "😀!", "!😀",
    "☺︎", "™©®", "→←↑↓", "★☆", "♥♦♣♠", "∑∫√∞",
    "€£¥₿", "°C", "🫠🫡", "🧑‍🚀 riding 🐎 on the 🌙", "🅰🅱", "㊗️", "𝄞", "🂡",
)
SPECIALS = (
    "<|startoftext|>", "<|endoftext|>", "a <|endoftext|> b", "<|startoftext|>a<|endoftext|>", "<|ENDOFTEXT|>",
    "<|EndOfText|>x", "<|endoftext|", "|endoftext|>", "< |endoftext| >", "<|endoftext|><|endoftext|>",
    "a!b", "!a!", "a !b! c",
    "hello!", "!!!", "wow!!! nice!", "¡hola!", "！", "<|startoftext|>!<|endoftext|>", "<w>", "</w>",
    "a</w>", "[UNK]", "<pad>", "Ġ", "ġ", "Âł",
    "<|end\u200boftext|>", "don!'t", "!'s", "!\u0301",
)
ENTITIES = (
    "&amp;", "&lt;b&gt;", "&quot;x&quot;", "&#39;s", "&amp;amp;", "caf&eacute;", "&nbsp;", "a&b", "&",
    "ã©", "Ã©", "â€™", "schÃ¶n",
)
# fmt: on


def random_strings(count: int, seed: int) -> list[str]:
    """Strings over all of Unicode, surrogates and U+0000 aside, most of it from the lower planes."""
    source = random.Random(seed)

    def character(limit: int) -> str:
        while True:
            code = source.randrange(1, limit)
            if not 0xD800 <= code < 0xE000:
                return chr(code)

    limits = (0x80, 0x250, 0x3000, 0x10000, 0x110000)
    return ["".join(character(source.choice(limits)) for _ in range(source.randrange(1, 25))) for _ in range(count)]


def assigned_only(texts: list[str]) -> list[str]:
    """Leaves out characters younger than Unicode 3.2: their class depends on the age of a library's tables."""
    return ["".join(c for c in text if ucd_3_2_0.category(c) != "Cn") for text in texts]


def strings() -> list[str]:
    fixed = [*PLAIN, *CONTRACTIONS, *SPACES, *CONTROLS, *CASES, *MARKS, *SCRIPTS, *EMOJI, *SPECIALS, *ENTITIES]
    return list(dict.fromkeys(fixed + assigned_only(random_strings(60, seed=5))))


def slow_without_ftfy(folder: Path) -> CLIPTokenizer:
    """The slow tokenizer as it is where ftfy is not installed."""
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    tokenizer.fix_text = None
    tokenizer.nlp = BasicTokenizer(strip_accents=False, do_split_on_punc=False)
    return tokenizer


def write_all(file: Path = DATA_DIR / "tokens.json") -> None:
    """`ids` with tokenizer/, `ids_2` with tokenizer_2/, neither padded nor cut; the rest only where it differs."""
    folder = MODELS_DIR / MODEL / "tokenizer"
    first = CLIPTokenizerFast.from_pretrained(folder)
    second = CLIPTokenizerFast.from_pretrained(MODELS_DIR / MODEL / "tokenizer_2")
    others = {"slow": slow_without_ftfy(folder), "slow_ftfy": CLIPTokenizer.from_pretrained(folder)}
    rows: list[dict[str, Any]] = []
    for text in strings():
        row: dict[str, Any] = {"text": text, "ids": first(text).input_ids, "ids_2": second(text).input_ids}
        row |= {name: ids for name, slow in others.items() if (ids := slow(text).input_ids) != row["ids"]}
        rows.append(row)
    write_json(file, rows)
    counts = {name: sum(name in row for row in rows) for name in others}
    print(f"tokens: {len(rows)} strings, of which the slow tokenizers differ on {counts}")
