"""Collection of pictures that a tiny random pipeline draws; a stand-in for a detector says what they show."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from learn_to_steer import storage
from learn_to_steer.attention import AttentionCapture
from learn_to_steer.collection import CollectConfig, Manifest, MapDataset, collect, estimate_drawing, verify
from learn_to_steer.collection.picture_labels import DISAGREE, MISSING, SEVERAL, LabellingDetector, PictureLabels
from learn_to_steer.detectors import Query
from learn_to_steer.errors import DataError, UnsupportedError
from learn_to_steer.families import find
from learn_to_steer.geometry import NEUTRAL, Detection, label_of
from learn_to_steer.maps import MapSpec, columns_to_weights

ARGUMENTS = {"num_inference_steps": 5, "guidance_scale": 3.0}
CONFIG = CollectConfig(
    "tiny",
    "drawn",
    inversion="path",
    limit=8,
    side=64,
    levels=(0.99, 0.9),
    batch=4,
    contrast=False,
    arguments=ARGUMENTS,
)
PLACES = {0: (0, 0, 10, 10), 1: (40, 2, 50, 12), 2: (2, 40, 12, 50)}  # the second right of the first, the third below


class Seer:
    """Sees the first objects of a query at fixed places, and nothing of the others: of two objects as told apart."""

    name, tells_colors, counting, identity = "seer", False, None, {"name": "seer"}

    def __init__(self, most: int = 5, of_two: int = 2, twice: bool = False) -> None:
        self.most, self.of_two, self.twice = most, of_two, twice

    def detect(self, images: Sequence[Any], queries: Sequence[Query] | None = None) -> list[list[Detection]]:
        assert queries is not None and len(queries) == len(images)
        return [
            [
                Detection(name, 0.9, PLACES.get(n, (20 + 5 * n, 20, 26 + 5 * n, 26)))
                for n, name in enumerate(query.names[: min(self.most, self.of_two if len(query.names) == 2 else 5)])
                for _ in range(1 + self.twice)
            ]
            for query in queries
        ]


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Puts stand-ins into the place of the detectors."""

    def put(*seers: Seer) -> None:
        labels = PictureLabels([LabellingDetector(seer, None) for seer in seers])
        monkeypatch.setattr("learn_to_steer.collection.preparation.load_labels", lambda *_: labels)

    put(Seer())
    return put


def draw(pipe: Any, folder: Path, **changes: Any) -> Manifest:
    return collect(pipe, folder, replace(CONFIG, **changes), progress=False)


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return [row for path in sorted((folder / "shards").glob("*.jsonl")) for row in storage.read_jsonl(path)]


@pytest.fixture(params=["tiny_sd", "tiny_flux"])
def pipe(request: pytest.FixtureRequest) -> Iterator[Any]:
    yield request.getfixturevalue(request.param)


@pytest.mark.usefixtures("seen")
def test_pictures_are_drawn_labelled_and_kept(pipe: Any, tmp_path: Path) -> None:
    manifest = draw(pipe, tmp_path)
    assert verify(tmp_path) == manifest.counts and manifest.complete
    assert sum(manifest.counts["pictures"].values()) == 8 == manifest.drawn["pictures"]
    entries = [row for path in (tmp_path / "pictures").glob("*.jsonl") for row in storage.read_jsonl(path)]
    assert len(entries) == 8
    by_id = {entry["picture"]: entry for entry in entries}
    for row in rows_of(tmp_path):
        entry = by_id[row["picture"]]
        boxes = {one["name"]: one["box"] for one in entry["detections"][0]}
        assert row["relation"] == label_of(boxes[row["subject"]], boxes[row["object"]])
        assert row["kind"] == "drawn" and row["prompt"] == entry["prompt"]
        with Image.open(tmp_path / "pictures" / entry["file"]) as image:
            assert image.size == (64, 64)
    dataset = MapDataset.open(tmp_path, "train")
    sums = dataset.maps(range(len(dataset))).float().sum((-2, -1))
    torch.testing.assert_close(sums, torch.ones_like(sums), atol=5e-3, rtol=0)


@pytest.mark.usefixtures("seen")
def test_maps_are_those_of_the_path_and_cost_no_forward(pipe: Any, tmp_path: Path) -> None:
    """The maps are captured once more here, by hand, from the conditional rows of the recorded denoiser calls."""
    family = find(pipe)
    denoiser = getattr(pipe, family.denoiser)
    calls: list[Any] = []
    handle = denoiser.register_forward_pre_hook(
        lambda _, args, kwargs: calls.append(family.read(denoiser, args, kwargs)), with_kwargs=True
    )
    manifest = draw(pipe, tmp_path, limit=1)
    handle.remove()
    drawn = calls[-ARGUMENTS["num_inference_steps"] :]  # before them, the schedule and the estimate
    assert len(calls) <= len(drawn) + 4
    (entry,) = storage.read_jsonl(tmp_path / "pictures" / "train-0000.jsonl")
    first, second = (
        entry["prompt"].index(name) for name in (entry["pairs"][0]["subject"], entry["pairs"][0]["object"])
    )
    spans = [(first, first + len(entry["pairs"][0]["subject"])), (second, second + len(entry["pairs"][0]["object"]))]
    stored = MapDataset.open(tmp_path, "train").maps([0, 1]).float()
    for level, step in enumerate(manifest.drawn["steps"]):
        call = drawn[step]
        columns = family.token_indices(pipe, entry["prompt"], spans, manifest.drawn["arguments"])
        weights = columns_to_weights([columns], family.text_length(call)).expand(len(call.latents), -1, -1)
        capture = AttentionCapture(family.attention_layers(denoiser), spec=MapSpec("text"))
        with torch.no_grad(), capture.capture(weights, *family.latent_size(denoiser, call)) as maps:
            denoiser(**family.write(call))
            conditional = maps().stack(16)[-1]
        torch.testing.assert_close(stored[level], conditional.cpu(), atol=1e-3, rtol=1e-2)


@pytest.mark.usefixtures("seen")
def test_wrong_words_are_wrong_and_new(pipe: Any, tmp_path: Path) -> None:
    draw(pipe, tmp_path, contrast=True, limit=24)
    verify(tmp_path)
    rows = rows_of(tmp_path)
    said = {(r["picture"], r["subject"], r["object"]): r["prompted"] for r in rows if r["kind"] == "drawn"}
    wrong = [row for row in rows if row["kind"] == "wrong"]
    assert wrong
    for row in wrong:
        assert row["prompted"] not in (row["relation"], said[row["picture"], row["subject"], row["object"]])
    dataset = MapDataset.open(tmp_path, "train")
    lines = [row for row in storage.read_jsonl(tmp_path / "shards" / "train-0000.jsonl") if row["level"] == 0]
    index = {(r["picture"], r["subject"], r["object"], r["kind"]): 2 * n for n, r in enumerate(lines)}
    key = next(key for key in index if key[-1] == "wrong")
    one, other = dataset.maps([index[key], index[(*key[:-1], "drawn")]])
    assert not torch.equal(one, other)


@pytest.mark.parametrize("obeys", [True, False])
@pytest.mark.usefixtures("seen")
def test_wrong_words_are_read_where_the_model_obeys(
    tiny_sd: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, obeys: bool
) -> None:
    counts = (10, 5) if obeys else (10, 4)
    monkeypatch.setattr("learn_to_steer.collection.drawing.obedience", lambda _: counts)
    manifest = draw(tiny_sd, tmp_path, contrast=None, limit=4)
    assert manifest.drawn["contrast"] is obeys
    assert ("wrong" in {row["kind"] for row in rows_of(tmp_path)}) is obeys


@pytest.mark.usefixtures("seen")
def test_a_killed_run_ends_with_the_same_bytes(tiny_sd: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first shard is there and has decided on wrong words; the second was killed half way."""
    monkeypatch.setattr("learn_to_steer.collection.drawing.OBEYS", 0.0)
    manifest = draw(tiny_sd, tmp_path, contrast=None)
    assert manifest.shards == ["train-0000", "val-0000"] and manifest.drawn["contrast"]
    before = {path.name: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    (tmp_path / "shards" / "val-0000.json").unlink()
    (tmp_path / "pictures" / "val-0000.jsonl").unlink()
    monkeypatch.setattr("learn_to_steer.collection.drawing.OBEYS", 2.0)  # would decide otherwise
    draw(tiny_sd, tmp_path, contrast=None)
    assert {path.name: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_pairs_that_lack_an_object_are_at_most_half_of_is(
    tiny_sd: Any, tmp_path: Path, seen: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen(Seer(most=1))
    with pytest.raises(DataError, match="does the model draw these objects") as caught:
        draw(tiny_sd, tmp_path / "none", limit=3)
    assert "beyond half" in str(caught.value)
    assert list((tmp_path / "none" / "pictures").glob("*.png"))
    monkeypatch.setitem(PLACES, 1, (12, 12, 22, 22))  # diagonal to the first, so "is"
    seen(Seer(most=2, of_two=1))
    manifest = draw(tiny_sd, tmp_path / "some", limit=24)
    lacking = Counter(
        pair["lacks_one"]
        for path in (tmp_path / "some" / "pictures").glob("*.jsonl")
        for entry in storage.read_jsonl(path)
        for pair in entry["pairs"]
        if pair["used"] and pair["relation"] == NEUTRAL
    )
    assert 0 < lacking[True] == lacking[False]
    assert set(manifest.drawn["labels"]) == {NEUTRAL}


def test_what_two_detectors_agree_on_is_kept() -> None:
    far, twice = Seer(), Seer(twice=True)

    def verdict(*seers: Seer, names: tuple[str, ...] = ("dog", "cat")) -> Any:
        labels = PictureLabels([LabellingDetector(seer, None) for seer in seers])
        (found,) = labels.detect([Image.new("RGB", (64, 64))], [names])
        return labels.verdict(found, "dog", "cat")

    assert verdict(far).label == verdict(far, far).label == "left of"
    assert verdict(far, names=("cat", "dog")).label == "right of"
    assert verdict(Seer(most=1)).lacks_one and verdict(Seer(most=1)).label == NEUTRAL
    assert verdict(far, Seer(most=1)).reason == DISAGREE
    assert verdict(far, twice).reason == SEVERAL
    assert verdict(Seer(most=0), far).reason == MISSING


@pytest.mark.usefixtures("seen")
def test_other_objects_in_the_same_folder_are_refused(tiny_sd: Any, tmp_path: Path) -> None:
    objects = tmp_path / "objects.txt"
    objects.write_text("# mine\nDog\n\nteapot\n")
    draw(tiny_sd, tmp_path / "out", limit=2, objects=str(objects))
    assert {row["subject"] for row in rows_of(tmp_path / "out")} <= {"dog", "teapot"}
    objects.write_text("dog\nkettle\n")
    with pytest.raises(DataError, match="objects"):
        draw(tiny_sd, tmp_path / "out", limit=2, objects=str(objects))


@pytest.mark.usefixtures("seen")
def test_an_estimate_draws_nothing(pipe: Any) -> None:
    ahead = estimate_drawing(pipe, replace(CONFIG, contrast=True))
    assert ahead.pictures == 8 and len(ahead.prompts) == 5 and ahead.size > 0 and ahead.seconds > 0
    assert len(ahead.levels) == 2 and ahead.arguments["num_inference_steps"] == 5
    with pytest.raises(DataError, match="exist already"):
        estimate_drawing(pipe, replace(CONFIG, source="emoji", inversion="noise", contrast=None))


@pytest.mark.usefixtures("seen")
def test_levels_are_those_of_the_models_own_steps(tiny_flux: Any, tmp_path: Path) -> None:
    steps = {"num_inference_steps": 4}
    manifest = draw(tiny_flux, tmp_path, limit=2, levels=(0.8, 0.76, 0.5), arguments=steps)
    assert manifest.levels == [0.75, 0.5] and manifest.drawn["steps"] == [1, 2]


@pytest.mark.usefixtures("seen")
def test_too_little_memory_draws_fewer_at_a_time(tiny_sd: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = type(tiny_sd).__call__
    sizes: list[int] = []
    most = 1

    def limited(self: Any, prompt: list[str], **arguments: Any) -> Any:
        if "generator" in arguments:
            sizes.append(len(prompt))
            if len(prompt) > most:
                raise torch.OutOfMemoryError
        return usual(self, prompt, **arguments)

    monkeypatch.setattr(type(tiny_sd), "__call__", limited)
    draw(tiny_sd, tmp_path / "fits", limit=4)
    assert sizes[:3] == [3, 1, 1]
    most = 0
    with pytest.raises(UnsupportedError, match="--offload model"):
        draw(tiny_sd, tmp_path / "full", limit=1)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"inversion": "noise"}, "need each other"),
        ({"source": "emoji"}, "need each other"),
        ({"source": "emoji", "inversion": "noise"}, "--contrast"),
        ({"data": "a.json"}, "no --data"),
        ({"levels": (1.5,)}, "between 0 and 1"),
    ],
)
@pytest.mark.usefixtures("seen")
def test_settings_of_the_other_kind_of_source(tiny_sd: Any, tmp_path: Path, changes: Any, told: str) -> None:
    with pytest.raises(DataError, match=told):
        draw(tiny_sd, tmp_path, **changes)
    assert not list(tmp_path.iterdir())


def test_settings_of_older_collections_stay_as_they_were() -> None:
    """New settings at their defaults are not recorded, so that a collection of 0.1.0 can be resumed."""
    recorded = CollectConfig("sd:emoji", "emoji").settings()
    assert not {"objects", "detectors", "contrast"} & set(recorded) and recorded["inversion"] == "noise"
    assert json.dumps(recorded)
