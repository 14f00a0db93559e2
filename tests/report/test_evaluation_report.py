"""The report of an evaluation: its numbers, images, filters and comparison; hostile texts, its size, old folders."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from learn_to_steer.errors import DataError
from learn_to_steer.report import evaluation_report
from learn_to_steer.report.evaluation_report import write_report
from learn_to_steer.report.evaluation_tables import changes, groups, headline

HOSTILE = "a dog to the left of a cat</title><script>alert(1)</script><img src=x onerror=alert(2)> \u202e\x1b[0m"
OUTCOMES: tuple[dict[str, Any], ...] = (
    {"correct": True, "present": True, "once": True, "held": [True], "on_axis": [True], "reason": ""},
    {"correct": True, "present": True, "once": False, "held": [True], "on_axis": [True], "reason": ""},
    {"correct": False, "present": True, "once": True, "held": [False], "on_axis": [False], "reason": "wrong side: dog"},
    {"correct": False, "present": False, "once": False, "held": [False], "on_axis": [None], "reason": "missing: cat"},
)


def write_run(
    folder: Path, outcomes: list[int], prompt: str = "a dog left of a cat", **more: Any
) -> list[dict[str, Any]]:
    """A finished evaluation with two images for each prompt; outcome n is that of ``OUTCOMES``."""
    noise = np.random.default_rng(0)
    rows = []
    for number, outcome in enumerate(outcomes):
        index, sample = divmod(number, 2)
        path = folder / "images" / f"{index:05d}" / "samples" / f"{sample:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise.integers(0, 255, (48, 64, 3), dtype=np.uint8)).save(path)
        boxes = [
            {"name": "dog", "score": 0.9, "box": [1, 2, 30, 40]},
            {"name": "<b>", "score": 0.5, "box": [50, 2, 60, 9]},
        ]
        steps = [{"step": n, "passes": 1, "probability": [p]} for n, p in enumerate((0.2, 0.6, 0.95))]
        predicate = "left of" if index % 2 else "above"
        row = {"index": index, "sample": sample, "tag": "", "prompt": prompt, "relations": [["dog", predicate, "cat"]]}
        rows.append(row | {"boxes": boxes, "steps": steps, "passes": 3} | OUTCOMES[outcome] | more)
    (folder / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = {"model": "flux:emoji", "benchmark": "geneval-position", "objective": "learned", "seed": 0}
    config |= {"out": "secret-place", "sampling": {"steps": 25}, "steering": {"threshold": 0.9}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "summary.json").write_text(json.dumps({"judged_by": {"name": "emoji"}, "versions": {"torch": "2.0"}}))
    return rows


def page_of(folder: Path, against: Path | None = None) -> str:
    return write_report(folder, against).read_text()


def figures(page: str) -> dict[str, set[str]]:
    """For each image on a page its classes."""
    return {name: set(classes.split()) for name, classes in re.findall(r'<figure data-id="(\S+)" class="(.*?)">', page)}


def shown(page: str, kind: str) -> list[str]:
    """The images that the filter of that name shows, by the rules of the page's own style sheet."""
    control = re.search(rf'<label for="(k-\w+)">{re.escape(kind)} <span>', page)
    assert control, kind
    assert f'<input type="radio" name="kind" id="{control[1]}"' in page
    rule = re.search(rf"#{control[1]}:checked~\.grid figure:not\(\.(\w+)\)\{{display:none\}}", page)
    assert rule, kind
    return [name for name, classes in figures(page).items() if rule[1] in classes]


def test_numbers_and_settings(tmp_path: Path) -> None:
    rows = write_run(tmp_path, [0, 1, 2, 3, 0, 0])
    page = page_of(tmp_path)
    assert "<h1>flux:emoji on geneval-position</h1>" in page
    assert "Steered by the learned classifier. 3 prompts, 6 images, scored by the detector emoji, seed 0." in page
    total, relations = groups(rows)
    assert (total["rows"][0]["count"], total["rows"][0]["value"]) == (6, pytest.approx(4 / 6))
    assert [(row["name"], row["value"], row["present"]) for row in relations["rows"]] == [
        ("above", 1.0, 1.0),
        ("left of", 0.0, 0.5),
    ]
    assert [round(one["value"], 3) for one in headline(rows)] == [0.667, 0.833, 0.667]
    low, high = total["rows"][0]["interval"]
    assert low < 0.667 < high and f"{low:.3f} to {high:.3f}" in page
    assert "steering.threshold" in page and "sampling.steps" in page and "secret-place" not in page
    assert "by task" not in page and "by number of relations" not in page


def test_filters_show_the_images_of_an_outcome(tmp_path: Path) -> None:
    write_run(tmp_path, [0, 1, 2, 3])
    page = page_of(tmp_path)
    assert list(figures(page)) == ["00000-0000", "00000-0001", "00001-0000", "00001-0001"]
    assert shown(page, "right") == ["00000-0000", "00000-0001"]
    assert shown(page, "doubled") == ["00000-0001"]
    assert shown(page, "wrong side") == ["00001-0000"]
    assert shown(page, "missing") == ["00001-0001"]
    assert 'id="k-all" checked><label for="k-all">all <span>4</span>' in page


def test_boxes_and_curves_are_drawn(tmp_path: Path) -> None:
    write_run(tmp_path, [0, 2])
    page = page_of(tmp_path)
    assert page.count('<rect x="1.0" y="2.0" width="29.0" height="38.0" class="c0"/>') == 2
    assert page.count('text-anchor="end">&lt;b&gt;</text>') == 2  # at the right edge, and of no object of the prompt
    assert page.count('points="0.0,48.0 85.0,24.0 170.0,3.0 "') == 2  # .2, .6 and .95 of a height of 60
    assert page.count('class="goal" x1="0" x2="170" y1="6.0"') == 2
    assert "dog above cat: 0.20 to 0.95" in page and "Attention maps were not kept" in page
    assert 'alt="a dog left of a cat; the detector sees: dog 0.90, &lt;b&gt; 0.50"' in page


def test_hostile_texts_stay_texts_and_nothing_is_loaded(tmp_path: Path) -> None:
    write_run(tmp_path, [0, 3], prompt=HOSTILE, reason="</style><script>x", note='"><script>')
    page = page_of(tmp_path)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page and "\\u202e" in page and "\\u001b" in page
    assert not set("\u202e\x1b") & set(page)
    assert page.count("<script") == 1 and page.count("</style>") == 1 and page.count("</title>") == 1
    assert "<img src=x" not in page
    # The only script is the one that the policy names.
    code = re.search(r"<script>(.*?)</script>", page, re.DOTALL)
    assert code
    digest = base64.b64encode(hashlib.sha256(code[1].encode()).digest()).decode()
    policy = re.search(r'Content-Security-Policy" content="(.*?)"', page)
    assert policy and f"script-src &#39;sha256-{digest}&#39;" in policy[1] and "default-src &#39;none&#39;" in policy[1]
    assert set(re.findall(r'(?:src|href)="(.{0,11})', page)) == {"data:image/"}
    assert not re.search(r"url\(|@import|https?:", page)


def test_comparison(tmp_path: Path) -> None:
    rows = write_run(tmp_path / "steered", [0, 0, 0, 2])
    others = write_run(tmp_path / "plain", [0, 2, 3, 0])
    page = page_of(tmp_path / "steered", tmp_path / "plain")
    counts = changes(rows, others)
    assert [counts[name] for name in ("images", "gained", "lost", "both", "neither")] == [4, 2, 1, 1, 0]
    assert counts["differences"][0]["difference"][0] == pytest.approx(0.25)
    text = " ".join(page.split())
    assert "4 images are in both runs, from the same prompts and noise" in text
    assert "<b>2</b> went from wrong to right, <b>1</b> from right to wrong" in text
    assert shown(page, "wrong → right") == ["00000-0001", "00001-0000"] and shown(page, "right → wrong") == [
        "00001-0001"
    ]
    assert page.count('src="data:image/webp') == 8
    assert page.count('<div class="image right">') == 5 and page.count('<div class="image wrong">') == 3
    # The one that the summary names is found again; without it the page says so.
    summary = tmp_path / "steered" / "summary.json"
    summary.write_text(json.dumps({"against": {"folder": str(tmp_path / "plain")}}))
    assert "Against plain" in page_of(tmp_path / "steered")
    (tmp_path / "plain" / "results.jsonl").unlink()
    assert "which is no longer there" in page_of(tmp_path / "steered")


def test_another_noise_and_missing_images_of_the_other_run_are_said(tmp_path: Path) -> None:
    write_run(tmp_path / "a", [0, 0])
    write_run(tmp_path / "b", [0, 2])
    config = json.loads((tmp_path / "b" / "config.json").read_text())
    (tmp_path / "b" / "config.json").write_text(json.dumps(config | {"seed": 1}))
    (tmp_path / "b" / "images" / "00000" / "samples" / "0001.png").unlink()
    page = page_of(tmp_path / "a", tmp_path / "b")
    assert "sampling or noise differs" in page and "the image of b is missing" in page
    with pytest.raises(DataError, match="is the evaluation itself"):
        write_report(tmp_path / "a", tmp_path / "a")
    with pytest.raises(DataError, match="holds no evaluation"):
        write_report(tmp_path / "a", tmp_path / "nowhere")


def test_the_page_keeps_its_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_run(tmp_path, [0, 1, 2, 3] * 6)
    whole = len(page_of(tmp_path))
    monkeypatch.setattr(evaluation_report, "LARGEST", whole // 2)
    page = page_of(tmp_path)
    images = len(figures(page))
    assert len(page.encode()) <= whole // 2 and 1 < images < 24
    assert f"{images} of 24 images" in page and f"{24 - images} are left out" in page
    assert "doubled <span>6</span>" in page  # of the whole run
    monkeypatch.setattr(evaluation_report, "MOST", 3)
    assert len(figures(page_of(tmp_path))) == 3
    monkeypatch.setattr(evaluation_report, "FOR_IMAGES", 0)
    assert not figures(page_of(tmp_path))


def test_labels_are_of_random_images_though_changed_ones_come_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_run(tmp_path / "a", [0] * 30)
    write_run(tmp_path / "b", [0] * 26 + [2] * 4)
    monkeypatch.setattr(evaluation_report, "MOST", 8)
    found = figures(page_of(tmp_path / "a", tmp_path / "b"))
    assert sum("gained" in classes for classes in found.values()) == 4 and len(found) == 8
    sampled = [name for name, classes in found.items() if "unsampled" not in classes]
    assert len(sampled) == 4 and any("gained" not in found[name] for name in sampled)


def test_folders_of_older_versions_and_unfinished_ones(tmp_path: Path) -> None:
    rows = write_run(tmp_path, [0, 2, 3, 0])
    kept = ("index", "sample", "prompt", "correct", "reason", "boxes")
    old = [{name: row[name] for name in kept} for row in rows]
    (tmp_path / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in old))
    for name in ("config.json", "summary.json"):
        (tmp_path / name).unlink()
    (tmp_path / "images" / "00001" / "samples" / "0001.png").unlink()
    page = page_of(tmp_path)
    assert f"<h1>{tmp_path.name}</h1>" in page and "is not finished" in page
    assert len(figures(page)) == 3 and "1 images are missing" in page
    assert "were not kept in this run" in " ".join(page.split())
    with pytest.raises(DataError, match="holds no evaluation"):
        write_report(tmp_path / "nowhere")
