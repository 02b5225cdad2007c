"""Makes one PNG that shows the effects of seed, guidance, negative prompt, size and pruning on the demo model's pictures.

usage: contact_sheet.py FILE.png        (ATEDMD and ATEDM_TEST_MODEL in the environment, as for quality.py)
"""

from __future__ import annotations

import io
import sys

from PIL import Image, ImageDraw, ImageFont

import world  # noqa: F401  (makes daemon.py importable)

from daemon import Daemon  # isort: skip

CELL = 128  # longer side of a picture on the sheet, in pixels
LABEL = 15  # height of a line of text below it, in pixels
COLUMNS = 8

STAR = "a big red star in the middle on a white background"
PAIR = "a small red star left of a big blue circle on a white background"
OPEN = "a big heart on a black background"  # says nothing about the heart's colour
BASE = {"prompt": STAR, "steps": 20, "guidance_scale": 4.0, "seed": 1, "pruning": "off"}

# (title, [(label, the fields that differ from BASE)])
ROWS = [
    ("one object", [(text, {"prompt": text}) for text in (
        "a huge yellow star on a blue background",
        "a small green heart in the top left corner on a white background",
        "a big pink ring on a blue and white striped background",
        "a cyan cross at the bottom on a background fading from red to black",
        "a medium purple triangle on the right on a yellow background",
        "a big red diamond on a white background",
        "on a black background, a huge orange circle",
        "a small white square on a green to blue gradient",
    )]),
    ("two objects", [(text, {"prompt": text}) for text in (
        PAIR,
        "a big blue circle left of a small red star on a white background",
        "a green triangle above an orange square on a black background",
        "a yellow ring below a pink heart on a purple background",
        "a black cross right of a white diamond on a cyan background",
        "a red heart above a blue cross on a pink and white striped background",
        "a medium orange circle left of a medium green circle on a white to blue gradient",
        "a big purple star below a big yellow diamond on a black background",
    )]),
    ("seeds 1 to 8, with a prompt that leaves colour and place open: \"a star\"",
     [(f"seed {i}", {"prompt": "a star", "seed": i}) for i in range(1, 9)]),
    ("guidance", [(f"{g:g}", {"prompt": PAIR, "guidance_scale": g}) for g in (0, 1.5, 2.5, 4, 5.5, 7, 10, 15)]),
    (f"negative prompts with \"{OPEN}\"", [("absent" if text is None else text or "empty", {"prompt": OPEN, "negative_prompt": text, "seed": 4}) for text in (
        None, "", "red", "orange", "yellow", "green", "blue", "white",
    )]),
    ("sizes (width x height)", [(f"{w}x{h}", {"prompt": PAIR, "width": w, "height": h}) for w, h in (
        (192, 192), (256, 192), (192, 256), (320, 320), (384, 256), (256, 384), (384, 384), (512, 512),
    )]),
    ("pruning", [(label, {"prompt": PAIR, "pruning": p}) for label, p in (
        ("off", "off"),
        ("at-edm-d", "at-edm-d"),
        ("at-edm-dagger", "at-edm-dagger"),
        ("at-edm-c", "at-edm-c"),
        ("at-edm-b", "at-edm-b"),
        ("at-edm-a", "at-edm-a"),
        ("at-edm-dagger, map random", {"preset": "at-edm-dagger", "score": {"map": "random"}}),
        ("at-edm-c, map random", {"preset": "at-edm-c", "score": {"map": "random"}}),
    )]),
]  # fmt: skip


def picture(daemon: Daemon, difference: dict) -> Image.Image:
    answer = daemon.post("/generate", {**BASE, **difference, "response_format": "png"})
    if answer.status != 200:
        raise SystemExit(f"{difference}: {answer.status} {answer.body.decode(errors='replace')}")
    return Image.open(io.BytesIO(answer.body)).convert("RGB")


def lines_of(text: str, draw: ImageDraw.ImageDraw, font: ImageFont.ImageFont) -> list[str]:
    """Splits the text into lines that are no wider than a picture."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and draw.textlength(longer, font) > CELL:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def row(daemon: Daemon, title: str, cells: list[tuple[str, dict]], font: ImageFont.ImageFont) -> Image.Image:
    measure = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    labels = [lines_of(label, measure, font) for label, _ in cells]
    height = LABEL + 6 + CELL + LABEL * max(map(len, labels)) + 8
    strip = Image.new("RGB", (COLUMNS * (CELL + 8), height), "white")
    draw = ImageDraw.Draw(strip)
    draw.text((4, 2), title, "black", font)
    for i, (_, difference) in enumerate(cells):
        image = picture(daemon, difference)
        image.thumbnail((CELL, CELL), Image.LANCZOS)
        left, top = i * (CELL + 8) + 4, LABEL + 6
        strip.paste(image, (left + (CELL - image.width) // 2, top + (CELL - image.height) // 2))
        for k, line in enumerate(labels[i]):
            draw.text((left, top + CELL + 2 + k * LABEL), line, "#444444", font)
    return strip


def main(path: str) -> None:
    font = ImageFont.load_default()
    with Daemon() as daemon:
        strips = [row(daemon, title, cells, font) for title, cells in ROWS]
    sheet = Image.new("RGB", (strips[0].width, sum(strip.height for strip in strips)), "white")
    top = 0
    for strip in strips:
        sheet.paste(strip, (0, top))
        top += strip.height
    sheet.save(path, optimize=True)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    main(sys.argv[1])
