"""What families have in common whose text encoder is a language model that reads the prompt inside a template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from learn_to_steer.errors import PromptError, UnsupportedError
from learn_to_steer.families.defaults import Transformer
from learn_to_steer.prompts import token_indices

_MARK = "|prompt|"  # stands for the prompt while a template is taken apart


class ChatTransformer(Transformer):
    """The facts of pipelines that encode the prompt as a message in a conversation.

    A family derives from it in place of ``Transformer``, or beside ``Packed``:
    ``class QwenImage(RectifiedFlow, ChatTransformer, Packed)``.
    """

    def conversation(self, pipe: Any, prompt: str) -> str:
        """Return the text that is encoded for a prompt.

        Args:
            pipe: The pipeline.
            prompt: The prompt.
        """
        raise NotImplementedError

    def adds_special_tokens(self, pipe: Any, conversation: str) -> bool:
        """Return whether the tokenizer adds special tokens to a conversation, which may have its own.

        Args:
            pipe: The pipeline.
            conversation: The text that is encoded.
        """
        return True

    def dropped(self, pipe: Any) -> int:
        """Return how many tokens of its template the pipeline drops again from the beginning of a text.

        Args:
            pipe: The pipeline.
        """
        return 0

    def token_indices(
        self, pipe: Any, prompt: str, spans: Sequence[tuple[int, int]], arguments: Mapping[str, Any]
    ) -> list[tuple[int, ...]]:
        """See ``Family.token_indices``."""
        text, dropped, longest = self.conversation(pipe, prompt), self.dropped(pipe), self.longest(arguments)
        before, _, after = self.conversation(pipe, _MARK).partition(_MARK)
        if text != before + prompt + after:
            raise PromptError(
                f"the chat template of this model changes the prompt {prompt!r} before it is encoded; leave out white "
                "space at its ends, and special words such as [IMG]"
            )
        found = token_indices(
            self.tokenizer(pipe),
            prompt,
            spans,
            max_length=None if longest is None else dropped + longest,
            before=before,
            after=after,
            add_special_tokens=self.adds_special_tokens(pipe, text),
        )
        if any(column < dropped for columns in found for column in columns):
            raise UnsupportedError(
                f"the pipeline drops the first {dropped} tokens, for its template, but with this tokenizer some of the "
                "prompt's are among them; load the pipeline with the tokenizer that comes with the model"
            )
        kept = [tuple(column - dropped for column in columns) for columns in found]
        return [self.padded(pipe, prompt, columns, arguments) for columns in kept]

    def padded(self, pipe: Any, text: str, columns: Sequence[int], arguments: Mapping[str, Any]) -> tuple[int, ...]:
        """Return text columns, given some that count from the start of a conversation.

        Where a tokenizer fills short texts up on the left, they count from the end.

        Args:
            pipe: The pipeline.
            text: The prompt.
            columns: The columns.
            arguments: Other arguments of the pipeline call.

        Raises:
            PromptError: A column lies beyond the text.
        """
        tokenizer, longest = self.tokenizer(pipe), self.longest(arguments)
        if tokenizer.padding_side == "right":
            return tuple(columns)
        conversation = self.conversation(pipe, text)
        special = self.adds_special_tokens(pipe, conversation)
        ids = tokenizer(conversation, add_special_tokens=special, truncation=False, verbose=False)["input_ids"]
        read = min(len(ids) - self.dropped(pipe), longest or len(ids))
        if max(columns) >= read:
            raise PromptError(f"{text!r} has {read} text columns (0 to {read - 1}), but {max(columns)} is given")
        return tuple(column - read for column in columns)
