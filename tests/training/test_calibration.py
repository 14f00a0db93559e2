"""Temperatures: found where they are known, close to each other where images are few, and of the probability alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from learn_to_steer.classifier import ClassifierConfig, RelationClassifier, load, save
from learn_to_steer.classifier.card import model_card
from learn_to_steer.collection import MapDataset
from learn_to_steer.configs import ModelConfig
from learn_to_steer.errors import DataError
from learn_to_steer.evaluation import open_model
from learn_to_steer.losses.base import ObjectPair, StepInfo
from learn_to_steer.losses.learned import Learned
from learn_to_steer.maps import AttentionMaps, Layout
from learn_to_steer.storage import load_tensors, save_tensors
from learn_to_steer.training import TrainConfig, train
from learn_to_steer.training.calibration import calibration_error, fit_temperatures, measure_calibration

EDITION1 = Path(__file__).parents[1] / "fixtures" / "edition1" / "collection"
SMALL = TrainConfig(epochs=2, width=4, layers=1, heads=1, hidden=4, head_layers=1, head_heads=1, head_hidden=4)
CLASSES = 5


def overconfident(factors: list[float], images: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Logits that are ``factors`` times those of the true probabilities, a level each; labels, levels and images."""
    true = 2 * torch.randn(len(factors) * images, CLASSES)
    label = torch.multinomial(true.softmax(1), 1)[:, 0]
    level = torch.arange(len(factors)).repeat_interleave(images)
    return true * torch.tensor(factors)[level, None], label, level, torch.arange(images).repeat(len(factors))


def test_known_temperatures_are_found() -> None:
    factors = [0.5, 1.0, 1.5, 3.0]
    logits, label, level, group = overconfident(factors, 1500)
    found = fit_temperatures(logits, label, level, group, 4)
    assert found == pytest.approx(factors, rel=0.1)
    correct = logits.argmax(1) == label
    for number, temperature in enumerate(found):
        its = level == number
        before, after = (
            calibration_error(part.softmax(1).amax(1), correct[its])
            for part in (logits[its], logits[its] / temperature)
        )
        assert after < 0.045
        assert before > 0.08 or number == 1


def test_few_images_say_little() -> None:
    logits, label, level, group = overconfident([3.0, 3.0, 3.0, 1.0], 400)
    few = torch.cat([torch.arange(1200), torch.arange(1200, 1203)])
    found = fit_temperatures(*(part[few] for part in (logits, label, level, group)), 4)
    assert found[3] == pytest.approx(3, rel=0.2)  # of three images: nearly what the others have in common
    assert fit_temperatures(*(part[:1200] for part in (logits, label, level, group)), 4)[3] == pytest.approx(3, rel=0.1)
    nothing = fit_temperatures(logits[:0], label[:0], level[:0], group[:0], 3)
    assert nothing == (1.0, 1.0, 1.0)
    # All right, with four images: the likelihood alone would make the probabilities one.
    sure = fit_temperatures(torch.eye(CLASSES)[:4] * 3, torch.arange(4), torch.zeros(4).long(), torch.arange(4), 1)
    assert 0.3 < sure[0] < 1


def test_rows_of_one_image_count_once() -> None:
    logits, label, level, group = overconfident([3.0, 1.0], 40)
    wide = fit_temperatures(logits, label, level, group, 2)
    tied = fit_temperatures(logits, label, level, group // 20, 2)
    assert tied[0] - tied[1] < (wide[0] - wide[1]) / 2


def test_the_error_of_a_calibration() -> None:
    half = torch.tensor([True, False] * 100)
    assert calibration_error(torch.full((200,), 0.9), half) == pytest.approx(0.4)
    assert calibration_error(torch.full((200,), 0.5), half) < 0.05
    # In one bin, what is too much and what is too little would cancel each other.
    probability, half = torch.tensor([0.3, 0.7] * 100), torch.tensor([True, True, False, False] * 50)
    assert calibration_error(probability, half) == pytest.approx(0.2, abs=0.02)
    assert calibration_error(probability[:3], half[:3]) == pytest.approx(abs(1.3 - 2) / 3)
    assert calibration_error(probability[:0], half[:0]) == 0


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trained")
    train(EDITION1, out, SMALL, progress=False)
    return out


def test_training_stores_temperatures_and_says_what_they_are_worth(trained: Path) -> None:
    model = load(trained)
    calibration = json.loads((trained / "metrics.json").read_text())["calibration"]
    per_level = calibration["per_level"]
    assert model.config.temperatures == tuple(its["temperature"] for its in per_level.values())
    assert [float(level) for level in per_level] == pytest.approx(model.config.levels, abs=1e-4)
    rows = MapDataset.open(EDITION1, calibration["split"])
    again = measure_calibration(model, rows, model.config.temperatures)
    for its, ours in zip(again["per_level"].values(), per_level.values(), strict=True):
        assert its["error"] == pytest.approx(ours["error"], abs=0.02)  # the weights are kept in fp16
    card = (trained / "README.md").read_text()
    level, its = next(iter(per_level.items()))
    assert f"| {float(level):.3g} | {its['temperature']:.2f} | {its['error']['before']:.3f} |" in card


def small(**changes: Any) -> RelationClassifier:
    sizes: dict[str, Any] = {"width": 8, "layers": 1, "heads": 1, "hidden": 4, "head_layers": 1, "head_hidden": 4}
    given = sizes | {"channels": 2, "times": 2, "levels": (0.9, 0.5), "side": 8, "query_heads": 1, "head_heads": 1}
    layout = {"layout": Layout.from_dict(json.loads((EDITION1 / "manifest.json").read_text())["layout"]).as_dict()}
    layers = given | {"channels": Layout.from_dict(layout["layout"]).channels} | layout
    return RelationClassifier(ClassifierConfig(classes=("above", "below"), **(layers | changes)))


def test_a_file_keeps_them_where_version_0_1_does_not_look(tmp_path: Path) -> None:
    path = save(small(temperatures=(1.5, 0.8)), tmp_path)
    assert load(tmp_path).config.temperatures == (1.5, 0.8)
    state, header = load_tensors(path)
    assert "temperatures" not in json.loads(header["config"])
    assert "temperatures" not in load_tensors(save(small(), tmp_path / "none"))[1]
    for wrong in ("[1.5]", "[0, 1]", "[1e9, 1]", '["a", 1]', "{}", "[1.5, NaN]", "["):
        save_tensors(path, state, header | {"temperatures": wrong})
        with pytest.raises(DataError, match="temperatures"):
            load(path)


def test_temperatures_belong_to_levels() -> None:
    config = small(temperatures=(2.0, 0.5)).config
    assert [config.temperature(config.row(level, 0, 50)) for level in (1.0, 0.8, 0.6, 0.1)] == [2.0, 2.0, 0.5, 0.5]
    assert small().config.temperature(1) == 1.0
    with pytest.raises(DataError, match="trained at steps"):
        small(temperatures=(2.0, 0.5), steps=(0, 1))


def test_the_card_says_on_which_images_temperatures_were_fitted_and_measured() -> None:
    level = {"0.9000": {"temperature": 1.5, "rows": 8, "error": {"before": 0.2, "after": 0.1}}}
    texts = {}
    for split in ("test", "val"):
        metrics = {"calibration": {"split": split, "pictures": 12, "per_level": level}}
        texts[split] = " ".join(model_card(small().config, metrics, {}, 1).split())
        assert "fitted on the validation images" in texts[split] and "| 0.9 | 1.50 | 0.200 | 0.100 |" in texts[split]
    assert "on 12 test images, which had no part in the fit" in texts["test"]
    assert "on the same 12 images" in texts["val"] and "12 test images" not in texts["val"]


def evaluated(classifier: RelationClassifier, level: float) -> tuple[Tensor, Tensor, Tensor]:
    """Loss, probability and gradient of two relations at random maps."""
    layout = classifier.layout
    assert layout is not None
    torch.manual_seed(1)
    maps = torch.rand(1, 2, layout.channels, 8, 8, requires_grad=True)

    class Maps(AttentionMaps):
        def __init__(self) -> None:
            pass

        def stack(self, *arguments: Any) -> Tensor:
            return maps

    pairs = [[ObjectPair(0, "above", 1), ObjectPair(1, "above", 0)]]
    output = Learned(classifier)(Maps(), pairs, StepInfo(level, 0))
    (gradient,) = torch.autograd.grad(output.loss.sum(), maps)
    return output.loss.detach(), output.probability.detach(), gradient


def test_the_probability_changes_and_the_steering_does_not() -> None:
    classifier = small()
    loss, probability, _ = evaluated(classifier, 0.5)
    torch.testing.assert_close(probability, (-loss).exp(), rtol=0, atol=0)
    for level, temperature in ((0.9, 4.0), (0.5, 0.25)):
        plain = evaluated(classifier, level)
        classifier.config = replace(classifier.config, temperatures=(4.0, 0.25))
        calibrated = evaluated(classifier, level)
        classifier.config = replace(classifier.config, temperatures=())
        assert torch.equal(calibrated[0], plain[0]) and torch.equal(calibrated[2], plain[2])
        # Of two classes, the logarithm of the odds is divided.
        odds = [(part[1] / (1 - part[1])).log() for part in (plain, calibrated)]
        torch.testing.assert_close(odds[1] * temperature, odds[0], rtol=1e-3, atol=1e-4)
        assert not torch.allclose(odds[1], odds[0], atol=1e-3)
    assert torch.equal(evaluated(classifier, 0.5)[1], probability)


def test_an_evaluation_tells_temperatures_apart(
    saved_sd: Path, tiny_sd: Any, random_classifier: Callable[..., Any], tmp_path: Path
) -> None:
    classifier = random_classifier(tiny_sd)
    found = []
    for temperatures in ((), (2.0,) * len(classifier.config.levels)):
        classifier.config = replace(classifier.config, temperatures=temperatures)
        save(classifier, tmp_path)
        found.append(open_model(ModelConfig(model=str(saved_sd), classifier=str(tmp_path))).fingerprints)
    assert "temperatures" not in found[0] and found[0]["classifier"] == found[1]["classifier"]
    assert found[1]["temperatures"].split() == ["2.0"] * len(classifier.config.levels)
