"""The automatic score of rows of docs/tables.md against labels made by eye (paper, Table 10).

    python reproduce/labelled_rows.py --model sd:emoji --row multi-relation-3-2-learned-default
    python reproduce/paper_tables.py --write                               # Table 10, from all labels that are there

The script needs the pictures that paper_tables.py left in out/tables. It writes pages to label from (prompts, no
verdicts) to out/labelled, and all pictures as one sheet to docs/results/labelled/MODEL/ROW.webp, ten across in the
order of the labels. ROW.json beside it is what whoever labels then writes: picture -> right, wrong (all objects there,
misplaced) or missing, as the page of ``learn-to-steer audit`` saves it. made.json remembers what the pictures were
made with: labels of other pictures are refused.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from PIL import Image

from learn_to_steer import storage
from learn_to_steer.evaluation.image_folders import image_path
from learn_to_steer.report import Panel, image_grid
from learn_to_steer.report.audit import image_id
from table_page import LABELS, lines, settings, stored
from table_rows import tables

COUNT, ACROSS, A_PAGE, SIDE = 100, 10, 5, 256


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    rows = {row.name: row for row in tables()["10"].rows}
    parser.add_argument("--model", default="sd:emoji")
    parser.add_argument("--row", choices=list(rows), required=True)
    parser.add_argument("--pictures", type=Path, default=Path("out/tables"))
    parser.add_argument("--out", type=Path, default=Path("out/labelled"))
    options = parser.parse_args()
    name = options.model.replace(":", "-")
    kept = lines(options.model, rows[options.row])[:COUNT]
    folder = options.pictures / name / options.row
    if not kept or not (folder / "images").is_dir():
        raise SystemExit(f"{options.row} of {options.model} has no pictures in {folder}: run paper_tables.py first")
    bound, labels = LABELS / name / "made.json", LABELS / name / f"{options.row}.json"
    known, made = stored(bound), settings(options.model)[options.row]
    if labels.exists() and known.get(options.row) != made:
        raise SystemExit(f"{labels} labels pictures made otherwise than those of now: move it away, then label these")
    pictures = [Image.open(image_path(folder, line["index"], line["sample"])).convert("RGB") for line in kept]
    width, height = pictures[0].size
    tiled = Image.new("RGB", (ACROSS * width, -(-len(pictures) // ACROSS) * height))
    for number, picture in enumerate(pictures):
        tiled.paste(picture, (number % ACROSS * width, number // ACROSS * height))
    (LABELS / name).mkdir(parents=True, exist_ok=True)
    tiled.save(LABELS / name / f"{options.row}.webp", quality=85, method=6)
    storage.write_json(bound, known | {options.row: made})
    options.out.mkdir(parents=True, exist_ok=True)
    shown = [
        Panel(picture, None, f"{image_id(line)}: {line['prompt'].removeprefix('a photo of ')}")
        for picture, line in zip(pictures, kept, strict=True)
    ]
    shown += [Panel(Image.new("RGB", (width, height), "white"))] * (-len(shown) % A_PAGE**2)
    for start in range(0, len(shown), A_PAGE**2):
        page = [("", shown[first : first + A_PAGE]) for first in range(start, start + A_PAGE**2, A_PAGE)]
        path = options.out / f"{name}-{options.row}-{start // A_PAGE**2 + 1}.png"
        image_grid([""] * A_PAGE, page, SIDE).save(path)
        print(path)


if __name__ == "__main__":
    main()
