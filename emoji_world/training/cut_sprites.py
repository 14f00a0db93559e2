"""Cut the sprites of the emoji world from Noto Color Emoji (Debian: fonts-noto-color-emoji); takes seconds.

    python training/cut_sprites.py --font /usr/share/fonts/truetype/noto/NotoColorEmoji.ttf

Writes sprites.png and sprites.json (names, splits, aliases) into the package, so that only this script needs the font.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

DATA = Path(__file__).resolve().parents[1] / "src" / "learn_to_steer_emoji" / "data"
NATIVE = 109  # the only bitmap size that the font has
SIDE = 80  # pixels a side of a packaged sprite: scenes draw them no larger than that

# Name -> code point and aliases. Each name has one sprite; "mouse" is the computer mouse.
# Classifiers are trained on these: COCO's names in GenEval's position prompts (also the paper's in-distribution ones).
SEEN: dict[str, tuple[str, tuple[str, ...]]] = {
    "backpack": ("1F392", ()),
    "bowl": ("1F35C", ()),
    "cat": ("1F408", ()),
    "skateboard": ("1F6F9", ()),
    "bottle": ("1F37E", ()),
    "cake": ("1F370", ()),
    "tie": ("1F454", ()),
    "vase": ("1F3FA", ()),
    "sheep": ("1F411", ()),
    "toothbrush": ("1FAA5", ()),
    "teddy bear": ("1F9F8", ()),
    "suitcase": ("1F9F3", ()),
    "mouse": ("1F5B1", ("computer mouse",)),
    "knife": ("1F52A", ()),
    "chair": ("1FA91", ()),
    "umbrella": ("2602", ()),
    "cow": ("1F404", ()),
    "zebra": ("1F993", ()),
    "couch": ("1F6CB", ()),
    "laptop": ("1F4BB", ()),
    "tv": ("1F4FA", ()),
    "stop sign": ("1F6D1", ()),
    "train": ("1F686", ()),
    "hot dog": ("1F32D", ()),
    "elephant": ("1F418", ()),
    "frisbee": ("1F94F", ()),
    "horse": ("1F40E", ()),
    "broccoli": ("1F966", ()),
    "dog": ("1F415", ()),
    "kite": ("1FA81", ()),
    "sports ball": ("26BD", ()),
    "pizza": ("1F355", ()),
    "keyboard": ("2328", ("computer keyboard",)),
    "bed": ("1F6CF", ()),
    "wine glass": ("1F377", ()),
    "cup": ("2615", ()),
    "bird": ("1F426", ()),
    "potted plant": ("1FAB4", ()),
    "bus": ("1F68C", ()),
    "sandwich": ("1F96A", ()),
    "boat": ("26F5", ()),
    "skis": ("1F3BF", ()),
    "motorcycle": ("1F3CD", ()),
    "banana": ("1F34C", ()),
    "airplane": ("2708", ()),
    "bear": ("1F43B", ()),
    "truck": ("1F69A", ()),
    "clock": ("1F570", ()),
}
# Classifiers are never trained on these: the paper's out-of-distribution objects that have an emoji.
UNSEEN: dict[str, tuple[str, tuple[str, ...]]] = {
    "teapot": ("1FAD6", ()),
    "robot": ("1F916", ()),
    "turtle": ("1F422", ()),
    "rabbit": ("1F407", ()),
    "butterfly": ("1F98B", ()),
    "key": ("1F511", ()),
    "pig": ("1F416", ()),
    "bee": ("1F41D", ()),
    "tiger": ("1F405", ()),
    "hammer": ("1F528", ()),
    "monkey": ("1F412", ()),
    "razor": ("1FA92", ()),
    "snake": ("1F40D", ()),
}


def cut(font: ImageFont.FreeTypeFont, code: str) -> Image.Image:
    """Draw one glyph, cropped to its visible part and centred in a transparent square of SIDE pixels."""
    canvas = Image.new("RGBA", (200, 200), (0, 0, 0, 0))
    ImageDraw.Draw(canvas).text((20, 20), chr(int(code, 16)), font=font, embedded_color=True)
    box = canvas.getchannel("A").getbbox()
    if box is None:
        raise SystemExit(f"the font has no glyph for U+{code}")
    glyph = canvas.crop(box)
    scale = (SIDE - 2) / max(glyph.size)
    glyph = glyph.resize((round(glyph.width * scale), round(glyph.height * scale)), Image.Resampling.LANCZOS)
    square = Image.new("RGBA", (SIDE, SIDE), (0, 0, 0, 0))
    square.paste(glyph, ((SIDE - glyph.width) // 2, (SIDE - glyph.height) // 2))
    return square


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--font", type=Path, default=Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf"))
    font = ImageFont.truetype(str(parser.parse_args().font), NATIVE)
    entries = [(name, "seen", *SEEN[name]) for name in SEEN] + [(name, "unseen", *UNSEEN[name]) for name in UNSEEN]
    columns = 10
    atlas = Image.new("RGBA", (columns * SIDE, math.ceil(len(entries) / columns) * SIDE), (0, 0, 0, 0))
    for index, (_, _, code, _) in enumerate(entries):
        atlas.paste(cut(font, code), (index % columns * SIDE, index // columns * SIDE))
    DATA.mkdir(parents=True, exist_ok=True)
    atlas.save(DATA / "sprites.png", optimize=True)
    names = {
        "font": "Noto Color Emoji",
        "side": SIDE,
        "columns": columns,
        "sprites": [
            {"name": name, "code": code, "split": split, "aliases": list(aliases)}
            for name, split, code, aliases in entries
        ],
    }
    (DATA / "sprites.json").write_text(json.dumps(names, indent=1, ensure_ascii=False) + "\n")
    print(f"{len(entries)} sprites, {(DATA / 'sprites.png').stat().st_size // 1024} KiB")


if __name__ == "__main__":
    main()
