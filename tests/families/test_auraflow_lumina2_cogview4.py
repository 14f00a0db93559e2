"""What AuraFlow, Lumina2 and CogView4 have of their own: padding on the left, a text before the prompt, shifts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_draws import CAT, DOG, PROMPT, draw, is_steered

from learn_to_steer.collection import CollectConfig, collect
from learn_to_steer.conditioning import record
from learn_to_steer.errors import PromptError
from learn_to_steer.families import find, resolve
from learn_to_steer.families.testing import tiny
from learn_to_steer.loading import skeleton

# Of diffusers' Euler scheduler with new versions of NumPy.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

LONGER = "a small red photo of a teddy bear and a blue bird on a large green boat, above a horse and under a kite"


def words(tokenizer: Any, ids: Any, columns: Any) -> list[str]:
    """What stands in the text columns of each object."""
    return [tokenizer.decode([ids[column] for column in group]).strip() for group in columns]


@pytest.mark.parametrize(
    ("model", "layers", "channels"), [("auraflow", 36, 432), ("lumina2", 26, 624), ("cogview4", 28, 896)]
)
def test_layouts_of_the_released_models(model: str, layers: int, channels: int) -> None:
    family, empty = skeleton(model)
    layout = family.layout(empty)
    assert (family.name, len(layout.layers), layout.channels) == (resolve(model).family, layers, channels)


@pytest.mark.parametrize("side", ["left", "right"])
def test_auraflow_finds_words_on_whichever_side_its_tokenizer_pads(steer: Any, side: str) -> None:
    """The class of its tokenizer pads on the left, unless the tokenizer's config says otherwise."""
    pipe = tiny("auraflow")
    pipe.tokenizer.padding_side = side
    family, read = find(pipe), {"truncation": True, "max_length": 24}
    ids = pipe.tokenizer(PROMPT, padding="max_length", **read).input_ids
    columns = family.token_indices(pipe, PROMPT, [DOG, CAT], {"max_sequence_length": 24})
    assert words(pipe.tokenizer, ids, columns) == ["dog", "cat"]
    cut = "a dog to the left of a cat" + " large" * 30
    columns = family.token_indices(pipe, cut, [DOG, CAT], {"max_sequence_length": 24})
    assert words(pipe.tokenizer, pipe.tokenizer(cut, **read).input_ids, columns) == ["dog", "cat"]
    is_steered(pipe, steer, max_sequence_length=24)


def test_the_words_of_auraflow_come_after_its_register_tokens() -> None:
    pipe = tiny("auraflow")
    family = find(pipe)
    call = record(pipe, family, [PROMPT, LONGER], 64, 64, {"max_sequence_length": 24}).call
    assert [(span.start, span.length, span.image) for span in family.spans(pipe.transformer, call)] == [(8, 24, 32)] * 2


def test_auraflow_is_drawn_at_what_its_positions_allow() -> None:
    pipe = tiny("auraflow")
    assert find(pipe).default_variant(pipe, "folder").resolution == 128
    pipe.transformer.register_to_config(pos_embed_max_size=9216)
    assert find(pipe).default_variant(pipe, "folder").resolution == 1024


@pytest.mark.parametrize("given", [None, "", "You are an assistant"])
def test_the_words_of_lumina2_come_after_its_system_prompt(steer: Any, given: str | None) -> None:
    pipe = tiny("lumina2")
    arguments = {} if given is None else {"system_prompt": given}
    before = pipe.system_prompt if given is None else given
    ids = pipe.tokenizer(f"{before} <Prompt Start> {PROMPT}").input_ids
    columns = find(pipe).token_indices(pipe, PROMPT, [DOG, CAT], arguments)
    assert words(pipe.tokenizer, ids, columns) == ["dog", "cat"]
    is_steered(pipe, steer, **arguments)


def test_the_system_prompt_of_lumina2_counts_among_the_tokens_that_are_read() -> None:
    pipe = tiny("lumina2")
    read = len(pipe.tokenizer(f"{pipe.system_prompt} <Prompt Start> {PROMPT}").input_ids)
    family = find(pipe)
    assert family.token_indices(pipe, PROMPT, [CAT], {"max_sequence_length": read}) == [(read - 1,)]
    with pytest.raises(PromptError, match=f"'cat' lies beyond the {read - 1} tokens"):
        family.token_indices(pipe, PROMPT, [CAT], {"max_sequence_length": read - 1})


def test_lumina2_is_steered_where_guidance_ends_early(steer: Any) -> None:
    """As its variant does: later steps call the transformer once instead of twice."""
    assert resolve("lumina2").arguments == {"cfg_trunc_ratio": 0.25, "cfg_normalization": True}
    is_steered(tiny("lumina2"), steer, negative_prompt=LONGER, **resolve("lumina2").arguments)


def test_the_words_of_cogview4_are_found_beside_a_longer_text() -> None:
    """A word of the shorter text changes its states from that word on, for its encoder reads from left to right."""
    pipe = tiny("cogview4")
    family = find(pipe)
    (columns,) = family.token_indices(pipe, PROMPT, [CAT], {})
    for beside in ([], [LONGER]):
        one, other = (
            record(pipe, family, [text, *beside], 64, 64).call.rest["encoder_hidden_states"][0]
            for text in (PROMPT, PROMPT.replace("cat", "bird"))
        )
        changed = (one - other).abs().amax(1) > 1e-6
        assert len(changed) % 16 == 0 and int(changed.nonzero()[0]) == len(changed) + columns[0]


def test_columns_that_are_given_with_a_text_count_from_its_start(steer: Any) -> None:
    """On the left, too, where the columns before the text are padding."""
    pipe = tiny("cogview4")
    given: dict[str, Any] = {"relations": "dog | left of | cat"}
    own = {"dog": [2], "cat": [len(pipe.tokenizer(PROMPT).input_ids) - 1]}
    assert words(pipe.tokenizer, pipe.tokenizer(PROMPT).input_ids, own.values()) == ["dog", "cat"]
    mine = draw(steer(pipe), **given, columns=own)
    assert mine.steering.images[0].passes > 0
    assert torch.equal(mine.images, draw(steer(pipe), **given).images)
    with pytest.raises(PromptError, match="but 15 is given"):
        draw(steer(pipe), **given, columns={**own, "cat": [15]})


def test_the_noise_of_cogview4_is_that_of_its_scheduler_at_every_size() -> None:
    """At the same time, larger images have more noise."""
    pipe = tiny("cogview4")
    family, levels = find(pipe), []
    for side in (64, 128):
        record(pipe, family, [PROMPT], side, side, steps=5)
        times, sigmas = pipe.scheduler.timesteps, pipe.scheduler.sigmas[:-1]
        mine = [family.noise_level(pipe, family.model_timestep(pipe, time)) for time in times]
        torch.testing.assert_close(torch.tensor(mine), sigmas, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(family.times(pipe, sigmas), times, rtol=1e-3, atol=1e-2)
        levels.append(mine)
    assert levels[1][2] > levels[0][2] + 0.05
    assert levels[0][2] != pytest.approx(float(times[2]) / 1000, abs=0.05)


def test_maps_of_cogview4_are_collected_at_the_noise_levels_of_their_size(tmp_path: Path) -> None:
    """Whatever size was drawn before."""
    pipe = tiny("cogview4")
    record(pipe, find(pipe), [PROMPT], 128, 128)
    times: list[float] = []
    pipe.transformer.register_forward_pre_hook(
        lambda _, args, kwargs: times.append(float(kwargs["timestep"][0])), with_kwargs=True
    )
    config = CollectConfig("tiny", "emoji", limit=1, side=64, levels=(0.9, 0.5), quality=1e9, batch=1)
    collect(pipe, tmp_path, config, progress=False)
    levels = [find(pipe).noise_level(pipe, torch.tensor(time)) for time in times[-2:]]
    assert levels == pytest.approx([0.9, 0.5], abs=1e-3)
