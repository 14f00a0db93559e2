"""The inputs of a steered call: the relations of each prompt, and the text columns of the objects they name."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from learn_to_steer import prompts as text
from learn_to_steer.errors import PromptError
from learn_to_steer.families import Family
from learn_to_steer.losses.base import Loss, ObjectPair
from learn_to_steer.prompts import Relation

RelationLike = Relation | str | Sequence[str]
ObjectText = str | Mapping[str, Sequence[int]]  # the text that names the objects, or their columns by name


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
    """

    prompt: str
    relations: tuple[Relation, ...]
    object_pairs: tuple[ObjectPair, ...]
    columns: tuple[tuple[int, ...], ...]
    words: tuple[int, ...] = ()


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
    relations: Sequence[RelationLike] | Sequence[Sequence[RelationLike]] | None,
    columns: Sequence[Mapping[str, Sequence[int]]] | None,
    kwargs: Mapping[str, Any],
) -> list[Target]:
    """Return the target of each prompt, or of each row of ``prompt_embeds``.

    Args:
        pipe: The diffusers pipeline.
        family: Its family.
        loss: The loss, which supports some predicates.
        prompt: One prompt, several, or None with ``prompt_embeds``.
        relations: Used instead of the relations in the prompts.
        columns: Per row of ``prompt_embeds``, the text columns of each object.
        kwargs: Further arguments of the pipeline call.

    Raises:
        PromptError: A prompt or relation cannot be understood, or not be steered.
    """
    object_texts: list[ObjectText]
    if prompt is None:
        per_prompt, object_texts = _of_embeddings(relations, columns, kwargs)
        prompts = [""] * len(per_prompt)
    else:
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        texts = family.text(prompts, kwargs)
        if len(texts) != len(prompts):
            raise PromptError(f"{len(prompts)} prompts but {len(texts)} second prompts; give one for each")
        # Textual inversion replaces one word by several tokens; columns count in the text that is encoded.
        tokenizer = family.tokenizer(pipe)
        convert = getattr(pipe, "maybe_convert_prompt", None)

        def expand(prompt: str) -> str:
            return convert(prompt, tokenizer) if convert else prompt

        per_prompt = _of_texts(texts, relations, expand, text.added_tokens(tokenizer))
        object_texts = [expand(p) for p in texts]
    targets = []
    for given_prompt, its_relations, object_text in zip(prompts, per_prompt, object_texts, strict=True):
        object_pairs, its_columns = _pairs_and_columns(pipe, family, loss, its_relations, object_text, kwargs)
        words: tuple[int, ...] = ()
        if its_relations and isinstance(object_text, str) and loss.spec.columns == "every":
            (words,) = family.token_indices(pipe, object_text, [(0, len(object_text))], kwargs)
        targets.append(Target(given_prompt, its_relations, object_pairs, tuple(its_columns), words))
    return targets


def word_columns(targets: Sequence[Target], tokens: int) -> Bool[Tensor, "targets tokens"]:
    """Return which text columns hold words; where ``Target.words`` is empty, all but the first and the last.

    Args:
        targets: The targets.
        tokens: Number of text columns.
    """
    mask = torch.zeros(len(targets), tokens, dtype=torch.bool)
    for row, target in zip(mask, targets, strict=True):
        if target.words:
            row[list(target.words)] = True
        else:
            row[1:-1] = True
    return mask


def check_predicates(loss: Loss, relations: Iterable[Relation]) -> None:
    """Raise PromptError for a relation whose predicate ``loss`` does not support."""
    known = loss.predicates()
    for relation in relations:
        if relation.predicate not in known:
            raise PromptError(f"{relation.predicate!r} cannot be steered with this loss; it can: {', '.join(known)}")


def nested_relations(relations: Any, prompts: int) -> list[list[RelationLike]]:
    """Return relations per prompt.

    Args:
        relations: A flat list (for one prompt), or a list for each prompt.
        prompts: Number of prompts.

    Raises:
        PromptError: The numbers do not agree.
    """
    flat = all(map(_is_one, relations))
    nested = [list(relations)] if flat and prompts == 1 else [list(group) for group in relations]
    if (flat and prompts != 1) or len(nested) != prompts:
        raise PromptError(f"{prompts} prompts need {prompts} lists of relations, got {len(relations)} entries")
    return nested


def _of_embeddings(
    relations: Any, columns: Sequence[Mapping[str, Sequence[int]]] | None, kwargs: Mapping[str, Any]
) -> tuple[list[tuple[Relation, ...]], list[ObjectText]]:
    """Relations and columns of each row of ``prompt_embeds``; the caller has to give both."""
    embeds = kwargs.get("prompt_embeds")
    if embeds is None:
        raise PromptError("give a prompt, or prompt_embeds with relations and columns")
    if relations is None or columns is None:
        raise PromptError(
            "prompt_embeds carry no text to find objects in: give relations, and columns with the text columns "
            'of each object, e.g. columns=[{"dog": [5], "teddy bear": [9, 10]}]'
        )
    if len(columns) != len(embeds):
        raise PromptError(f"prompt_embeds have {len(embeds)} rows but columns {len(columns)} entries; give one a row")
    return [tuple(map(_relation, group)) for group in nested_relations(relations, len(columns))], list(columns)


def _of_texts(
    texts: Sequence[str], relations: Any, expand: Callable[[str], str], tokens: Collection[str]
) -> list[tuple[Relation, ...]]:
    """The relations in each expanded text, or the caller's with their objects located in it."""
    if relations is None:
        return [text.parse(expand(p), tokens=tokens) for p in texts]
    nested = nested_relations(relations, len(texts))
    return [
        tuple(text.locate(expand(p), text.shift_spans(_relation(r), p, expand)) for r in group)
        for p, group in zip(texts, nested, strict=True)
    ]


def _pairs_and_columns(
    pipe: Any,
    family: Family,
    loss: Loss,
    relations: Sequence[Relation],
    object_text: ObjectText,
    arguments: Mapping[str, Any],
) -> tuple[tuple[ObjectPair, ...], list[tuple[int, ...]]]:
    """A prompt's relations as indices of objects, and the text columns of every object."""
    check_predicates(loss, relations)
    mentions: list[tuple[str, tuple[int, int] | None]] = []
    for relation in relations:
        mentions += [(relation.subject, relation.subject_span), (relation.object, relation.object_span)]
    objects = list(dict.fromkeys(mentions))
    object_pairs = tuple(
        ObjectPair(objects.index(mentions[2 * n]), relation.predicate, objects.index(mentions[2 * n + 1]))
        for n, relation in enumerate(relations)
    )
    if isinstance(object_text, str):
        spans = [span for _, span in objects if span is not None]
        return object_pairs, family.token_indices(pipe, object_text, spans, arguments)
    for name, _ in objects:
        if name not in object_text:
            raise PromptError(f"columns has no entry for {name!r}; it has: {', '.join(object_text)}")
    return object_pairs, [tuple(object_text[name]) for name, _ in objects]


def _relation(given: RelationLike) -> Relation:
    if isinstance(given, Relation):
        return given
    return Relation.from_text(given if isinstance(given, str) else " | ".join(given))


def _is_one(given: Any) -> bool:
    """Whether this is one relation: a Relation, "dog | left of | cat", or three names."""
    if isinstance(given, (Relation, str)):
        return True
    return len(given) == 3 and all(isinstance(word, str) and "|" not in word for word in given)
