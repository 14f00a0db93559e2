"""Configs are checked when they are made, from Python as from the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from learn_to_steer.collection import CollectConfig
from learn_to_steer.configs import EvaluateConfig, GenerateConfig, ScoreConfig
from learn_to_steer.errors import SteerError
from learn_to_steer.placement import Placement
from learn_to_steer.plain_text import shown
from learn_to_steer.steering import SteeringConfig
from learn_to_steer.training import TrainConfig
from learn_to_steer.validation import check_fields

NAN = float("nan")
RECURSIVE: list[Any] = []
RECURSIVE.append(RECURSIVE)
REQUIRED: dict[Any, dict[str, Any]] = {
    CollectConfig: {"model": "sd:emoji", "source": "emoji"},
    ScoreConfig: {"pictures": "out"},
}
WRONG: list[tuple[Any, str, list[Any]]] = [
    (GenerateConfig, "images", [0, -1, True, 1.5, "2", None, NAN, [1]]),
    (GenerateConfig, "seed", [-1, False, "0", 0.0]),
    (GenerateConfig, "guidance", [NAN, float("inf"), "7", True]),
    (GenerateConfig, "height", [0, 7, 64.0, "64"]),
    (GenerateConfig, "prompts", ["a dog", [1], None, RECURSIVE]),
    (GenerateConfig, "strict", [1, "yes", None]),
    (GenerateConfig, "settings", [[], "threshold=1", None]),
    (GenerateConfig, "model", [None, 5, b"sd:emoji"]),
    (GenerateConfig, "profile", [None, 5, ["default"]]),
    (GenerateConfig, "lora", ["file", [5]]),
    (EvaluateConfig, "batch", [0, "8", NAN]),
    (EvaluateConfig, "limit", [0, -5, 2.0]),
    (EvaluateConfig, "out", [None, 5]),
    (ScoreConfig, "limit", [0]),
    (ScoreConfig, "pictures", [None, 1]),
    (CollectConfig, "limit", [0, True]),
    (CollectConfig, "batch", [0]),
    (CollectConfig, "side", [0, 10**6, "128", 128.0]),
    (CollectConfig, "map_side", [0, 10**6]),
    (CollectConfig, "levels", [[NAN], ["0.5"], 0.5, [True]]),
    (CollectConfig, "quality", [NAN, "1"]),
    (CollectConfig, "reduce", ["most", None]),
    (CollectConfig, "source", [None]),
    (CollectConfig, "arguments", [None, [1]]),
    (TrainConfig, "depth", [0, 1001, True, "3", "all", 2.0, NAN]),
    (TrainConfig, "epochs", [0, -1, True, 2.5, "3"]),
    (TrainConfig, "batch", [0]),
    (TrainConfig, "patience", [0]),
    (TrainConfig, "rate", [-1.0, NAN, float("inf"), "1e-3"]),
    (TrainConfig, "dropout", [-0.1, 1.0, NAN]),
    (TrainConfig, "weight_decay", [-1, NAN]),
    (TrainConfig, "plateau_factor", [0, 1, NAN]),
    (TrainConfig, "layers", [0, 2**31]),
    (TrainConfig, "heads", [0, 1.0]),
    (TrainConfig, "prompts", ["all"]),
    (TrainConfig, "augment", [1]),
    (Placement, "dtype", [5, "bf16"]),
    (Placement, "lora", ["file", [None]]),
    (SteeringConfig, "threshold", [NAN, -1, True, "0.5"]),
    (SteeringConfig, "step_size", [NAN, float("inf"), -1]),
    (SteeringConfig, "iterations", [2.0, -1, True, 10**30]),
    (SteeringConfig, "loss_targets", [[NAN], 5, RECURSIVE]),
    (SteeringConfig, "profile", [None]),
]


@pytest.mark.parametrize(
    ("config", "field", "value"),
    [
        pytest.param(config, field, value, id=f"{config.__name__} {field} {str(value)[:20]}")
        for config, field, values in WRONG
        for value in values
    ],
)
def test_a_wrong_value_is_refused_by_its_field(config: Any, field: str, value: Any) -> None:
    with pytest.raises(SteerError, match=field) as refusal:
        config(**REQUIRED.get(config, {}) | {field: value})
    assert shown(value) in str(refusal.value) or isinstance(value, list) or value == "bf16"
    assert len(str(refusal.value)) < 300


def test_values_become_what_their_type_says() -> None:
    levels: Any = [np.float64(0.5), np.float32(0.25)]
    config = CollectConfig("sd:emoji", "emoji", levels=levels, data=Path("file"), limit=np.int64(5))  # type: ignore[arg-type]
    assert (config.levels, config.data, config.limit) == ((0.5, 0.25), "file", 5)
    assert {type(level) for level in config.levels or ()} == {float} and type(config.limit) is int


def test_a_mapping_stays_the_callers_own() -> None:
    settings = {"threshold": 0.5}
    assert GenerateConfig(settings=settings).settings is settings


@pytest.mark.parametrize("value", ["x" * 10_000, list(range(10_000)), 10**5000, RECURSIVE], ids=["a", "b", "c", "d"])
def test_long_values_are_cut_in_messages(value: Any) -> None:
    assert len(shown(value)) <= 80


def test_only_what_is_wrong_is_refused() -> None:
    check_fields(TrainConfig(), "the setting")
    assert SteeringConfig(threshold=float("inf")).threshold == float("inf")
