"""The inputs of a steered call: the relations of each prompt, and the text columns of the objects they name.

All arguments of the call are checked here, before anything is encoded or drawn.
"""

from __future__ import annotations

import logging
import re
import reprlib
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from learn_to_steer import prompts as text
from learn_to_steer.errors import PromptError
from learn_to_steer.families import Family
from learn_to_steer.losses.base import Loss, ObjectPair
from learn_to_steer.maps import TextSpan
from learn_to_steer.prompts import Relation
from learn_to_steer.steering.arguments import (
    Columns,
    columns_per_prompt,
    nested_relations,
    relation,
    text_list,
    whole_number,
)
from learn_to_steer.steering.report import LeftOut

MOST_WORDS = 8  # named in one warning
log = logging.getLogger(__name__)
Mention = tuple[str, tuple[int, int] | None]  # name and span of an object


@dataclass(frozen=True)
class Target:
    """What the images of one prompt are steered towards; without relations they are not steered.

    Attributes:
        prompt: As the caller gave it; empty with ``prompt_embeds``.
        relations: Its relations.
        object_pairs: The same relations, with indices of objects in place of names.
        columns: Per object, the text columns (token positions) of its name.
        words: The text columns of all words, for losses that read every column; empty otherwise, and with
            ``prompt_embeds``.
        left_out: Relations that were found in the prompt but cannot be steered.
    """

    prompt: str
    relations: tuple[Relation, ...]
    object_pairs: tuple[ObjectPair, ...]
    columns: tuple[tuple[int, ...], ...]
    words: tuple[int, ...] = ()
    left_out: tuple[LeftOut, ...] = ()


def with_sampling_defaults(pipe: Any, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a call of ``pipe``, completed with the defaults of its model.

    Args:
        pipe: Any pipeline. Only those of ``load_pipeline`` have such defaults.
        arguments: The caller's arguments. They replace the defaults, except where they are None.
    """
    defaults = getattr(pipe, "steering_defaults", {})
    given = {name: value for name, value in arguments.items() if value is not None or name not in defaults}
    return {**defaults, **given}


def read_targets(
    pipe: Any,
    family: Family,
    loss: Loss,
    prompt: str | Sequence[str] | None,
    relations: Any,
    columns: Any,
    kwargs: Mapping[str, Any],
    strict: bool = False,
) -> list[Target]:
    """Return the target of each prompt, or of each row of ``prompt_embeds``.

    Args:
        pipe: The diffusers pipeline.
        family: Its family.
        loss: The loss, which supports some predicates.
        prompt: One prompt, several, or None with ``prompt_embeds``.
        relations: Used instead of the relations in the prompts.
        columns: The text columns of objects, for each prompt or row of ``prompt_embeds``.
        kwargs: Further arguments of the pipeline call.
        strict: Whether a relation that was found in a prompt but cannot be steered is an error, as one that the caller
            gives always is. Otherwise it is left out, with a warning.

    Raises:
        PromptError: An argument has another form than expected, or a relation cannot be steered.
    """
    if not isinstance(strict, bool):
        raise PromptError(f"strict is {reprlib.repr(strict)}; it must be True or False")
    if "num_images_per_prompt" in kwargs:
        whole_number("num_images_per_prompt", kwargs["num_images_per_prompt"])
    texts: list[str] | None = None
    if prompt is None:
        rows = _embedding_rows(relations, columns, kwargs)
        prompts = [""] * rows
    else:
        prompts = [prompt] if isinstance(prompt, str) else text_list("prompt", prompt)
        texts = _texts(family, prompts, kwargs)
        for one_text in (*prompts, *texts):
            text.require_characters(one_text)
        warn_of_untaught_words(pipe, prompts)
    given_columns = _columns(pipe, family, columns, len(prompts), kwargs)
    # Textual inversion replaces one word by several tokens; text columns count in the text that is encoded.
    expand = _expansion(pipe, family)
    per_prompt = _relations(texts, relations, len(prompts), expand, text.added_tokens(family.tokenizer(pipe)))
    targets = []
    for number, (given_prompt, its_relations, its_columns) in enumerate(
        zip(prompts, per_prompt, given_columns, strict=True)
    ):
        its_text = expand(texts[number]) if texts is not None else None
        if its_text is not None:  # the caller counts from the start of the text, whatever it is filled up with
            its_columns = {name: family.padded(pipe, its_text, its, kwargs) for name, its in its_columns.items()}
        _require_objects(its_columns, its_relations, its_text, explicit=relations is not None)
        kept, left_out, found = _divide(pipe, family, loss, its_text, its_relations, kwargs, its_columns)
        if left_out and relations is not None:
            raise PromptError(left_out[0].reason)
        if left_out and strict:
            first = left_out[0]
            raise PromptError(f"{_quoted(first.relation)} cannot be steered: {first.reason}; or drop strict")
        warn_of_left_out(left_out)
        objects, object_pairs = _pairs(kept)
        words: tuple[int, ...] = ()
        if kept and its_text is not None and loss.spec.columns == "every":
            words = _columns_of_words(pipe, family, its_text, kwargs)
        targets.append(Target(given_prompt, kept, object_pairs, tuple(found[one] for one in objects), words, left_out))
    return targets


def select_relations(
    pipe: Any,
    family: Family,
    loss: Loss | None,
    encoded_text: str | None,
    relations: Sequence[Relation],
    arguments: Mapping[str, Any],
    columns: Columns | None = None,
) -> tuple[tuple[Relation, ...], tuple[LeftOut, ...]]:
    """Divide the relations of a prompt into those that can be steered and those that cannot.

    Args:
        pipe: The diffusers pipeline.
        family: Its family.
        loss: The loss, which supports some predicates. None: only the text columns are looked at.
        encoded_text: The text in which the relations have their spans; None with ``prompt_embeds``.
        relations: The relations.
        arguments: Further arguments of the pipeline call; some change how many tokens are read.
        columns: Text columns of objects, which are used instead of those of the spans.

    Returns:
        Both groups; the second with the reasons.
    """
    kept, left_out, _ = _divide(pipe, family, loss, encoded_text, relations, arguments, columns or {})
    return kept, left_out


def _divide(
    pipe: Any,
    family: Family,
    loss: Loss | None,
    encoded_text: str | None,
    relations: Sequence[Relation],
    arguments: Mapping[str, Any],
    columns: Columns,
) -> tuple[tuple[Relation, ...], tuple[LeftOut, ...], dict[Mention, tuple[int, ...]]]:
    """The groups of ``select_relations``, and the text columns of every object of the first."""
    kept: list[Relation] = []
    left_out: list[LeftOut] = []
    found: dict[Mention, tuple[int, ...]] = {}
    for one in relations:
        try:
            if loss is not None and one.predicate not in loss.predicates():
                known = ", ".join(loss.predicates())
                raise PromptError(f"{one.predicate!r} cannot be steered with this loss; it can: {known}")
            for mention in _mentions(one):
                if mention not in found:
                    found[mention] = _object_columns(pipe, family, encoded_text, mention, arguments, columns)
            both = [found[mention] for mention in _mentions(one)]
            if set(both[0]) == set(both[1]):
                raise PromptError(
                    f"both objects of {_quoted(one)} are in the text columns {list(both[0])}; name two objects, "
                    "each in a place of its own, and give columns under two different names"
                )
        except PromptError as error:
            left_out.append(LeftOut(one, str(error)))
        else:
            kept.append(one)
    return tuple(kept), tuple(left_out), found


def warn_of_left_out(left_out: Sequence[LeftOut]) -> None:
    """Log each relation that is left out of the steering, and why.

    Args:
        left_out: The second group of ``select_relations``.
    """
    for one in left_out:
        log.warning("%s is left out of the steering: %s", _quoted(one.relation), one.reason)


def warn_of_untaught_words(pipe: Any, prompts: Sequence[str]) -> None:
    """Log the words of each prompt that the model has never been taught, once per prompt.

    Args:
        pipe: A diffusers pipeline. Only the model of ``load_pipeline`` is known, and few models tell their words.
        prompts: The prompts.
    """
    for prompt in prompts:
        if words := untaught_words(pipe, prompt):
            named = ", ".join(words[:MOST_WORDS]) + (", ..." if len(words) > MOST_WORDS else "")
            _warn_once(
                f"{pipe.steering_variant.name} was never taught these words of {prompt!r}: {named}; it leaves them out "
                "or draws something else, so use other words"
            )


def untaught_words(pipe: Any, prompt: str) -> tuple[str, ...]:
    """Return the words of a prompt that the model has never been taught; none for a model that does not tell.

    Args:
        pipe: A diffusers pipeline.
        prompt: The prompt.
    """
    tell = getattr(getattr(pipe, "steering_variant", None), "untaught_words", None)
    return tuple(tell(prompt)) if tell else ()


@lru_cache(maxsize=1024)
def _warn_once(message: str) -> None:
    log.warning(message)


def word_columns(
    targets: Sequence[Target], tokens: int, spans: Sequence[TextSpan] | None = None
) -> Bool[Tensor, "targets tokens"]:
    """Return which text columns hold words; where ``Target.words`` is empty, all but the first and the last.

    Args:
        targets: The targets.
        tokens: Number of text columns.
        spans: Per target, how many of them are its own; None: all.
    """
    mask = torch.zeros(len(targets), tokens, dtype=torch.bool)
    for number, target in enumerate(targets):
        row = mask[number, : spans[number].length if spans is not None else tokens]
        if target.words:
            row[list(target.words)] = True
        else:
            row[1:-1] = True
    return mask


def _columns_of_words(pipe: Any, family: Family, its_text: str, arguments: Mapping[str, Any]) -> tuple[int, ...]:
    """The text columns of all words that the model reads."""
    try:
        return family.token_indices(pipe, its_text, [(0, len(its_text))], arguments)[0]
    except PromptError:  # the text is longer than what is read of it
        found: set[int] = set()
        for word in re.finditer(r"\S+", its_text):
            with suppress(PromptError):
                found.update(*family.token_indices(pipe, its_text, [word.span()], arguments))
        return tuple(sorted(found))


def _texts(family: Family, prompts: list[str], arguments: Mapping[str, Any]) -> list[str]:
    """The texts that are encoded into text columns, one per prompt."""
    second = arguments.get("prompt_2")
    if second and not isinstance(second, str):
        text_list("prompt_2", second)
    texts = family.text(prompts, arguments)
    if len(texts) == 1 < len(prompts) and arguments.get("num_images_per_prompt", 1) == 1:
        texts = texts * len(prompts)  # the pipeline, too, then gives one second prompt to all images
    if len(texts) != len(prompts):
        raise PromptError(f"{len(prompts)} prompts but {len(texts)} second prompts; give one for each")
    return texts


def _expansion(pipe: Any, family: Family) -> Callable[[str], str]:
    """The pipeline's own expansion of textual inversion's words in a prompt."""
    convert, tokenizer = getattr(pipe, "maybe_convert_prompt", None), family.tokenizer(pipe)
    return lambda prompt: convert(prompt, tokenizer) if convert else prompt


def _embedding_rows(relations: Any, columns: Any, arguments: Mapping[str, Any]) -> int:
    """The number of rows of ``prompt_embeds``, with which the caller has to give relations and columns."""
    embeds = arguments.get("prompt_embeds")
    if embeds is None:
        raise PromptError("give a prompt, or prompt_embeds with relations and columns")
    if not _text_lengths(embeds):
        raise PromptError(
            f"prompt_embeds is {reprlib.repr(embeds)}; it must be a tensor of shape (prompts, text columns, width), or "
            "a list with one of shape (text columns, width) for each prompt"
        )
    if relations is None or columns is None:
        raise PromptError(
            "prompt_embeds carry no text to find objects in: give relations, and columns with the text columns "
            'of each object, e.g. columns=[{"dog": [5], "teddy bear": [9, 10]}]'
        )
    return len(embeds)


def _text_lengths(embeds: Any) -> list[int]:
    """The number of text columns of each row of ``prompt_embeds``; empty if they are none."""
    rows = list(embeds) if isinstance(embeds, (list, tuple)) or getattr(embeds, "ndim", 0) == 3 else []
    return [len(row) for row in rows] if all(isinstance(row, Tensor) and row.ndim == 2 for row in rows) else []


def _columns(pipe: Any, family: Family, given: Any, prompts: int, arguments: Mapping[str, Any]) -> list[Columns]:
    """The caller's text columns per prompt."""
    if given is None:
        return [{}] * prompts
    if lengths := _text_lengths(arguments.get("prompt_embeds")):
        window = max(lengths)
    elif (longest := arguments.get("max_sequence_length")) is not None:
        window = whole_number("max_sequence_length", longest)
    else:
        window = int(family.tokenizer(pipe).model_max_length)
    return columns_per_prompt(given, prompts, window)


def _require_objects(columns: Columns, relations: Sequence[Relation], its_text: str | None, explicit: bool) -> None:
    """Raise PromptError for columns of something that is no object of the prompt's relations, or for missing ones."""
    objects = [name for one in relations for name in (one.subject, one.object)]
    for name in objects if its_text is None else ():
        if name not in columns:
            raise PromptError(f"columns has no entry for {name!r}; it has: {', '.join(columns)}")
    for name in columns:
        if name not in objects:
            listed = ", ".join(map(repr, dict.fromkeys(objects))) or "none"
            where = "given" if explicit else f"in the prompt {its_text!r}"
            raise PromptError(f"columns names {name!r}, but the objects of the relations {where} are: {listed}")


def _relations(
    texts: Sequence[str] | None, given: Any, prompts: int, expand: Callable[[str], str], tokens: Collection[str]
) -> list[tuple[Relation, ...]]:
    """The relations in each expanded text, or the caller's with their objects located in it."""
    if given is None:
        # An empty prompt is a usual one for the pipeline; it holds no relation.
        return [text.parse(expand(p), tokens=tokens) if p.strip() else () for p in texts or ()]
    nested = [[relation(one) for one in group] for group in nested_relations(given, prompts)]
    if texts is None:
        return [tuple(group) for group in nested]
    return [
        tuple(text.locate(expand(p), text.shift_spans(one, p, expand)) for one in group)
        for p, group in zip(texts, nested, strict=True)
    ]


def _mentions(one: Relation) -> tuple[Mention, Mention]:
    """Name and span of the subject and of the object."""
    return (one.subject, one.subject_span), (one.object, one.object_span)


def _pairs(relations: Sequence[Relation]) -> tuple[list[Mention], tuple[ObjectPair, ...]]:
    """The objects of a prompt's relations, each once, and the relations as indices of them."""
    mentions = [_mentions(one) for one in relations]
    objects = list(dict.fromkeys(mention for both in mentions for mention in both))
    pairs = (
        ObjectPair(objects.index(subject), one.predicate, objects.index(reference))
        for one, (subject, reference) in zip(relations, mentions, strict=True)
    )
    return objects, tuple(pairs)


def _object_columns(
    pipe: Any,
    family: Family,
    its_text: str | None,
    mention: Mention,
    arguments: Mapping[str, Any],
    columns: Columns,
) -> tuple[int, ...]:
    """The text columns of one object: the caller's, or those of its span. PromptError if there are none."""
    name, span = mention
    if name in columns:
        return tuple(columns[name])
    if its_text is None or span is None:
        raise PromptError(f"{name!r} has no place in the text; give its columns")
    (found,) = family.token_indices(pipe, its_text, [span], arguments)
    if not found:
        raise PromptError(f"{name!r} has no text column in {its_text!r}; use another word")
    return found


def _quoted(one: Relation) -> str:
    return repr(" ".join(one.as_list()))
