"""A whole evaluation on a tiny model: layout, resuming, refusing to mix, noise."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from learn_to_steer.errors import DataError
from learn_to_steer.evaluation import Job, ModelConfig, draw, evaluate, noise_generator, open_model
from learn_to_steer.prompts import parse

PROMPTS = [{"prompt": "a dog to the left of a cat"}, {"prompt": "a cat to the left of a puppy"}]


@pytest.fixture
def config(config_of):
    return config_of(PROMPTS, images=2, batch=3)


def test_writes_genevals_layout_rows_and_summary(config, left_dog, tmp_path):
    progress = []
    summary = evaluate(config, lambda done, total: progress.append((done, total)), scorer=left_dog)
    out = tmp_path / "out"
    images = sorted(path.relative_to(out / "images").as_posix() for path in out.rglob("*.png"))
    assert images == [f"{index:05d}/samples/{k:04d}.png" for index in (0, 1) for k in (0, 1)]
    assert json.loads((out / "images" / "00001" / "metadata.jsonl").read_text())["tag"] == "position"
    rows = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    assert [(row["index"], row["sample"], row["correct"]) for row in rows] == [
        (0, 0, True),
        (0, 1, True),
        (1, 0, False),
        (1, 1, False),
    ]
    assert all(row["passes"] >= 1 and 0 < row["probability"][0] < 1 and row["seconds"] > 0 for row in rows)
    assert (summary["accuracy"], summary["both_present"], summary["images"]) == (0.5, 1.0, 4)
    assert summary["accuracy_interval"] == [0.0, 1.0]
    assert summary["failures"] == {"wrong side": 2}
    assert json.loads((out / "summary.json").read_text()) == summary
    assert progress == [(0, 4), (3, 4), (4, 4)]


def test_a_baseline_is_evaluated_like_the_learned_objective(config, left_dog, tmp_path):
    settings = {"refinement": ((0.0, 1, 2.0),)}
    summary = evaluate(
        replace(config, objective="attend-and-excite", classifier=None, images=1, settings=settings), scorer=left_dog
    )
    rows = [json.loads(line) for line in (tmp_path / "out" / "results.jsonl").read_text().splitlines()]
    assert [row["passes"] for row in rows] == [2, 2]
    assert list(summary["fingerprints"]) == ["denoiser"]
    again = evaluate(
        replace(config, objective="attend-and-excite", classifier=None, images=1, settings=settings), scorer=left_dog
    )
    assert again["passes_per_image"] == summary["passes_per_image"] == 2


def test_only_what_is_missing_is_made_again(config, left_dog, tmp_path):
    config = replace(config, batch=1, objective="none", classifier=None)
    evaluate(config, scorer=left_dog)
    out = tmp_path / "out"
    lost = out / "images" / "00001" / "samples" / "0000.png"
    before, rows = lost.read_bytes(), (out / "results.jsonl").read_text()
    lost.unlink()
    left_dog.detector.seen = 0
    evaluate(config, scorer=left_dog)
    assert left_dog.detector.seen == 1
    assert lost.read_bytes() == before
    again = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    assert [row | {"seconds": 0} for row in again] == [json.loads(line) | {"seconds": 0} for line in rows.splitlines()]
    evaluate(replace(config, images=3), scorer=left_dog)
    assert left_dog.detector.seen == 3


def test_another_evaluation_is_not_mixed_in(config, left_dog, tmp_path):
    config = replace(config, objective="none", classifier=None, images=1)
    evaluate(config, scorer=left_dog)
    with pytest.raises(DataError, match=r"another evaluation \(seed 0, now 1\)"):
        evaluate(replace(config, seed=1), scorer=left_dog)
    (tmp_path / "prompts.jsonl").write_text(json.dumps({"prompt": "a cat to the right of a dog"}) + "\n")
    with pytest.raises(DataError, match="other prompts"):
        evaluate(config, scorer=left_dog)


def test_noise_depends_on_seed_prompt_and_index_only(saved_sd):
    model = open_model(ModelConfig(model=str(saved_sd), objective="none", steps=2, device="cpu"))
    jobs = [Job(line["prompt"], parse(line["prompt"]), index) for line in PROMPTS for index in (0, 1)]
    together = [np.asarray(one.image, dtype=float) for one in draw(model, jobs, 5, steer=False)]
    (alone,) = draw(model, jobs[3:], 5, steer=False)
    assert np.abs(np.asarray(alone.image, dtype=float) - together[3]).max() <= 2
    assert np.abs(together[2] - together[3]).max() > 20


def test_generators_differ_in_every_part():
    noises = [
        torch.randn(4, generator=noise_generator(*key)) for key in [(0, "a", 0), (1, "a", 0), (0, "b", 0), (0, "a", 1)]
    ]
    assert len({tuple(noise.tolist()) for noise in noises}) == 4
    assert torch.equal(noises[0], torch.randn(4, generator=noise_generator(0, "a", 0)))


def test_other_defaults_of_steering_are_another_evaluation(config, left_dog, tmp_path):
    evaluate(replace(config, images=1), scorer=left_dog)
    path = tmp_path / "out" / "config.json"
    stored = json.loads(path.read_text())
    assert stored["steering"]["passes"] == 1 and "checkpointing" not in stored["steering"]
    path.write_text(json.dumps(stored | {"steering": stored["steering"] | {"window": 0.4}}))
    with pytest.raises(DataError, match="another evaluation \\(steering"):
        evaluate(replace(config, images=1), scorer=left_dog)


def test_maps_are_kept_of_the_first_images_and_change_none(config_of, left_dog, tmp_path, caplog):
    config = config_of(PROMPTS, images=2, batch=3, device="cpu")
    evaluate(replace(config, out=str(tmp_path / "without")), scorer=left_dog)
    evaluate(replace(config, maps=2), scorer=left_dog)
    out, without = tmp_path / "out", tmp_path / "without"
    assert sorted(path.name for path in (out / "maps").iterdir()) == [
        "00000-0000.safetensors",
        "00000-0001.safetensors",
    ]
    images = sorted(path.relative_to(out) for path in out.rglob("*.png"))
    assert len(images) == 4 and all((out / one).read_bytes() == (without / one).read_bytes() for one in images)
    page = (out / "report.html").read_text()
    assert page.count('alt="attention maps of dog"') == 2 and page.count('alt="attention maps of cat"') == 2
    assert "attention maps of" not in (without / "report.html").read_text()
    several = replace(
        config, maps=2, tries=2, verifier="classifier", settings={"passes": 1}, out=str(tmp_path / "tries")
    )
    evaluate(several, scorer=left_dog)
    assert "leave out --tries" in caplog.text and not (tmp_path / "tries" / "maps").exists()
