"""The page for manual labels, and their agreement with the automatic score."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from learn_to_steer.errors import DataError
from learn_to_steer.report.audit import agreement, audit_page, row_agreement


@pytest.fixture
def evaluation(tmp_path: Path) -> Path:
    rows = []
    for index in range(6):
        path = tmp_path / "images" / f"{index:05d}" / "samples" / "0000.png"
        path.parent.mkdir(parents=True)
        Image.new("RGB", (64, 48)).save(path)
        boxes = [{"name": "dog <i>", "score": 0.9, "box": [1, 2, 30, 40]}]
        right = index < 3
        rows.append(
            {"index": index, "sample": 0, "prompt": f"a <dog> & {index}", "correct": right, "boxes": boxes}
            | {"reason": "" if right else "missing: cat"}
        )
    (tmp_path / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def test_page_shows_images_and_boxes_and_escapes_what_prompts_say(evaluation: Path) -> None:
    text = audit_page(evaluation, count=4).read_text()
    assert text.count("<figure data-id=") == 4 and 'data-labelling="always"' in text
    assert text.count('<rect x="1.0" y="2.0" width="29.0" height="38.0"/>') == 4
    assert "a &lt;dog&gt; &amp;" in text and "a <dog>" not in text and "dog <i>" not in text
    assert all(
        word in text
        for word in ('data-id="0000', 'viewBox="0 0 64 48"', "labels.json", "as the prompt says", 'src="images/0000')
    )
    assert "{{" not in text and "{%" not in text
    assert '<text x="1.0" y="3.4" font-size="3.4">' in text  # inside the image, although the box is at its top
    assert audit_page(evaluation, count=4).read_text() == text
    assert audit_page(evaluation, count=4, seed=1).read_text() != text


def test_agreement(evaluation: Path) -> None:
    labels = {f"{n:05d}-0000": label for n, label in enumerate(["right", "right", "wrong", "missing", "right"])}
    found = agreement(evaluation, labels)
    assert (found["pictures"], found["manual"], found["automatic"], found["same"]) == (5, 0.6, 0.6, 0.6)
    assert found["kappa"] == pytest.approx(1 / 6)
    with pytest.raises(DataError, match="no label"):
        agreement(evaluation, {"00000-0000": "fine"})
    with pytest.raises(DataError, match="no label"):
        agreement(evaluation, {"00009-0000": "right"})
    with pytest.raises(DataError, match="no labels"):
        agreement(evaluation, {})


def test_folders_without_an_evaluation(evaluation: Path, tmp_path: Path) -> None:
    (evaluation / "images" / "00002" / "samples" / "0000.png").unlink()
    with pytest.raises(DataError, match="is missing"):
        audit_page(evaluation)
    with pytest.raises(DataError, match="holds no evaluation"):
        audit_page(tmp_path / "nowhere")


def test_images_of_one_prompt_are_not_independent() -> None:
    rows = [{"index": n, "sample": k, "correct": n == 0} for n in (0, 1) for k in range(3)]
    found = row_agreement(rows, {f"{n:05d}-{k:04d}": "right" for n in (0, 1) for k in range(3)})
    assert (found["manual"], found["automatic"], found["same"]) == (1.0, 0.5, 0.5)
    assert found["automatic_minus_manual"] == (-0.5, -1.0, 0.0)
    assert found["same_interval"] == (0.0, 1.0)  # six independent images would give less
