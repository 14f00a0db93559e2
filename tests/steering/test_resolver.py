"""One resolver of the effective settings: profile, then model, then explicit settings; two spellings, one meaning."""

from __future__ import annotations

import json

import pytest

from learn_to_steer.configs import EvaluateConfig, ModelConfig
from learn_to_steer.errors import UnknownNameError
from learn_to_steer.families import Variant
from learn_to_steer.losses.base import NEVER
from learn_to_steer.steering import SteeringConfig
from learn_to_steer.steering.config import STORED_NAMES, profile, resolve_config

VARIANT = Variant(
    "sd:test",
    "sd",
    "",
    64,
    4,
    1.0,
    step_size=7.5,
    steering={"window": 0.2},
    tuned_settings={"threshold": 0.7, "passes": 10},
)
PUBLISHED = {"profile": "theirs", "window": 0.9, "passes": 1, "threshold": NEVER}


def test_the_models_settings_replace_the_profiles() -> None:
    config = resolve_config({}, VARIANT)
    assert (config.window, config.threshold, config.iterations) == (0.2, 0.7, 10)
    assert resolve_config({}, None) == SteeringConfig()


def test_published_schedules_do_not_get_what_was_tuned_for_ours() -> None:
    config = resolve_config(PUBLISHED, VARIANT)
    assert (config.window, config.threshold, config.iterations) == (0.2, NEVER, 1)


def test_equal_has_no_stop_and_official_takes_the_models_step_size() -> None:
    equal, official = (resolve_config(PUBLISHED, VARIANT, name) for name in ("equal", "official"))
    assert (equal.window, equal.threshold, equal.iterations) == (0.2, NEVER, 10)
    assert (official.window, official.iterations, official.step_size) == (0.2, 16, 7.5)


def test_fixed_budget_is_another_name_of_equal() -> None:
    assert profile("fixed-budget") == profile("equal")
    assert resolve_config(PUBLISHED, VARIANT, "fixed-budget") == resolve_config(PUBLISHED, VARIANT, "equal")
    assert SteeringConfig().changed(profile="fixed-budget").as_dict()["profile"] == "equal"
    assert ModelConfig(profile="fixed-budget") == ModelConfig(profile="equal")
    assert EvaluateConfig(profile="fixed-budget").decisive()["profile"] == "equal"
    with pytest.raises(UnknownNameError, match="fixed-budget"):
        profile("fixed")


@pytest.mark.parametrize("name", ["default", "equal", "official"])
def test_explicit_settings_win(name: str) -> None:
    config = resolve_config(PUBLISHED, VARIANT, name, {"passes": 3, "window": 0.4, "threshold": 0.1})
    assert (config.iterations, config.window, config.threshold) == (3, 0.4, 0.1)


def test_both_spellings_are_one_setting() -> None:
    old = dict(rate=0.5, passes=3, total_passes=7, pick="sum")
    new = dict(step_size=0.5, iterations=3, max_iterations=7, relation_reduction="sum")
    assert SteeringConfig().changed(**old) == SteeringConfig().changed(**new) == SteeringConfig(**new)
    with pytest.raises(UnknownNameError, match="both of its names"):
        SteeringConfig().changed(rate=0.5, step_size=0.5)


def test_files_keep_their_names() -> None:
    config = SteeringConfig(refinement=((0.2, 20, 0.5),), search=(1, 2, 3))
    stored = config.as_dict()
    assert not set(STORED_NAMES) & set(stored) and set(STORED_NAMES.values()) <= set(stored)
    assert json.loads(json.dumps(stored)) == stored
    assert SteeringConfig.from_dict(stored) == SteeringConfig.from_dict(config.image_settings()) == config


def test_settings_of_version_0_1_0_check_on_their_own() -> None:
    """It knew no ``check_while_sampling``, so that its folders can be completed with the profiles that have it off."""
    assert "check_while_sampling" not in profile("official").image_settings()
    assert SteeringConfig.from_dict(profile("official").image_settings()) == profile("official")
    assert profile("default").image_settings()["check_while_sampling"]
    assert not SteeringConfig.from_dict({"rate": 0.02}).check_while_sampling
