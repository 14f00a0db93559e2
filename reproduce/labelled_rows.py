"""Sheets for labelling rows of docs/tables.md by eye, to compare the automatic score with (paper, Table 10).

    python reproduce/labelled_rows.py --model sd:emoji --row multi-relation-3-2-learned-default     # seconds
    python reproduce/paper_tables.py --write     # afterwards: Table 10, from all labels that are there

Needs the images that paper_tables.py left in out/tables. Pages with images and prompts, but without the automatic
score, go to out/labelled; all images in one sheet go to docs/results/labelled/MODEL/ROW.webp, ten across. The person
who labels writes ROW.json beside it: image -> "right", "wrong" (all objects present, but misplaced) or "missing", as
the page of ``learn-to-steer audit`` saves it. made.json keeps what the images were made with, so that labels of other
images are refused.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from PIL import Image

from learn_to_steer import storage
from learn_to_steer.report import Panel, image_pages
from learn_to_steer.result_rows import image_id, image_path
from table_page import LABELS, lines, settings, stored
from table_rows import tables

COUNT, ACROSS, A_PAGE, SIDE = 100, 10, 5, 256


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    rows = {row.name: row for row in tables()["10"].rows}
    parser.add_argument("--model", default="sd:emoji")
    parser.add_argument("--row", choices=list(rows), required=True, metavar="ROW", help=", ".join(rows))
    parser.add_argument("--pictures", type=Path, default=Path("out/tables"), help="--out of paper_tables.py")
    parser.add_argument("--out", type=Path, default=Path("out/labelled"))
    options = parser.parse_args()
    name = options.model.replace(":", "-")
    kept = lines(options.model, rows[options.row])[:COUNT]
    folder = options.pictures / name / options.row
    if not kept or not (folder / "images").is_dir():
        raise SystemExit(f"{options.row} of {options.model} has no images in {folder}: run paper_tables.py first")
    made_with, labels = LABELS / name / "made.json", LABELS / name / f"{options.row}.json"
    known, made = stored(made_with), settings(options.model)[options.row]
    if labels.exists() and known.get(options.row) != made:
        raise SystemExit(f"{labels} has labels of images made with other settings: move it away, then label these")
    images = [Image.open(image_path(folder, line["index"], line["sample"])).convert("RGB") for line in kept]
    width, height = images[0].size
    tiled = Image.new("RGB", (ACROSS * width, -(-len(images) // ACROSS) * height))
    for number, image in enumerate(images):
        tiled.paste(image, (number % ACROSS * width, number // ACROSS * height))
    (LABELS / name).mkdir(parents=True, exist_ok=True)
    tiled.save(LABELS / name / f"{options.row}.webp", quality=85, method=6)
    storage.write_json(made_with, known | {options.row: made})
    options.out.mkdir(parents=True, exist_ok=True)
    panels = [
        Panel(image, None, f"{image_id(line)}: {line['prompt'].removeprefix('a photo of ')}")
        for image, line in zip(images, kept, strict=True)
    ]
    for number, page in enumerate(image_pages(panels, A_PAGE, SIDE), 1):
        path = options.out / f"{name}-{options.row}-{number}.png"
        page.save(path)
        print(path)


if __name__ == "__main__":
    main()
