"""Reads attention maps and latents off the forwards that a pipeline makes while it draws; none is made twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from learn_to_steer.attention import AttentionCapture
from learn_to_steer.collection.noise_levels import SamplingPath
from learn_to_steer.errors import UnsupportedError
from learn_to_steer.families import Family
from learn_to_steer.maps import AttentionMaps, Layout, MapSpec, TextSpan, columns_to_weights

Columns = Sequence[Sequence[Sequence[int]]]  # of each prompt and object, the positions of its tokens
# The reading under way in this context; other calls of the same denoiser, from other threads, are not read.
_READING: ContextVar[object | None] = ContextVar("learn_to_steer_path", default=None)


@dataclass
class KeptPath:
    """What is kept of one pipeline call, by the index of the noise level.

    Attributes:
        maps: Of the objects of all pictures, in fp16, on the CPU.
        latents: Of all pictures, as the denoiser was fed them, on the CPU.
        times: As the denoiser was fed them.
    """

    maps: dict[int, Float[Tensor, "pictures objects channels side side"]] = field(default_factory=dict)
    latents: dict[int, Float[Tensor, "pictures *latents"]] = field(default_factory=dict)
    times: dict[int, Tensor] = field(default_factory=dict)

    def all_maps(self) -> Float[Tensor, "pictures levels objects channels side side"]:
        """Return the maps of all levels."""
        return torch.stack([self.maps[level] for level in sorted(self.maps)], dim=1)

    def all_latents(self) -> Float[Tensor, "pictures levels *latents"]:
        """Return the latents of all levels."""
        return torch.stack([self.latents[level] for level in sorted(self.latents)], dim=1)


class PathReader:
    """Reads the conditional rows of a pipeline's calls of its denoiser.

    Args:
        family: The family of the pipeline.
        denoiser: Its denoiser.
        layout: The layout of the maps.
        path: The denoising steps to read.
    """

    def __init__(self, family: Family, denoiser: nn.Module, layout: Layout, path: SamplingPath) -> None:
        self._family, self._denoiser, self._layout, self._path = family, denoiser, layout, path
        self._capture = AttentionCapture(family.attention_layers(denoiser), spec=MapSpec(layout.softmax))

    @contextmanager
    def capturing(
        self,
        weights: Float[Tensor, "prompts objects tokens"],
        size: tuple[int, int],
        rows: Tensor | None = None,
        spans: Sequence[TextSpan] | None = None,
    ) -> Iterator[Callable[[], Float[Tensor, "prompts objects channels side side"]]]:
        """Capture the maps of one forward.

        Args:
            weights: The weights that average the text columns of each object.
            size: Height and width of the latents.
            rows: The rows of the forward that are read; None: all.
            spans: Where the text and the image of each of these rows stand in the sequence (``Family.spans``).

        Yields:
            A function that returns the maps after the forward, stacked, in fp16, on the CPU.
        """
        with self._capture.capture(weights, *size, rows, spans) as maps:
            yield lambda: self._stacked(maps())

    @contextmanager
    def reading(self, columns: Columns) -> Iterator[KeptPath]:
        """Read the pipeline call that is made inside the context.

        Args:
            columns: The text columns of the objects of each prompt.

        Yields:
            What is kept, which is complete after the call.

        Raises:
            UnsupportedError: The denoiser is called with other rows than one or two for each prompt, or was not called
                at all steps to be read.
        """
        kept, around = KeptPath(), ExitStack()
        under_way: list[tuple[int, Callable[[], Tensor]]] = []

        def enter(_: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
            if _READING.get() is not kept:
                return
            call = self._family.read(self._denoiser, args, kwargs)
            level = self._path.level_at(call.time)
            if level is None or level in kept.maps:
                return
            batch, prompts = call.latents.shape[0], len(columns)
            if batch not in (prompts, 2 * prompts):
                raise UnsupportedError(
                    f"the pipeline calls its denoiser with {batch} rows for {prompts} prompts; maps are read off the "
                    "conditional rows (turn off perturbed-attention guidance)"
                )
            first = self._family.first_conditional_row(batch, prompts)
            kept.latents[level] = call.latents[first : first + prompts].cpu()
            kept.times[level] = call.time.flatten()[-1].cpu()
            rows = None if batch == prompts else torch.arange(first, first + prompts)
            spans = self._family.spans(self._denoiser, call)
            spans = spans and spans[first : first + prompts]
            weights = columns_to_weights(columns, self._family.text_length(call), spans)
            size = self._family.latent_size(self._denoiser, call)
            maps = around.enter_context(self.capturing(weights, size, rows, spans))
            under_way.append((level, maps))

        def leave(_module: nn.Module, _arguments: Any, output: Any) -> None:
            if _READING.get() is kept and under_way:
                level, maps = under_way.pop()
                if output is not None:  # after an error, which is not to be replaced
                    kept.maps[level] = maps()
                around.close()

        outer = _READING.get()
        _READING.set(kept)
        handles = [
            self._denoiser.register_forward_pre_hook(enter, with_kwargs=True),
            self._denoiser.register_forward_hook(leave, always_call=True),
        ]
        try:
            yield kept
        finally:
            _READING.set(outer)
            for handle in handles:
                handle.remove()
            around.close()
        wanted = len(self._path.levels)
        if len(kept.maps) < wanted:
            raise UnsupportedError(
                f"the pipeline called its denoiser at {len(kept.maps)} of the {wanted} steps to be read; use a "
                f"text-to-image pipeline with one of the schedulers {', '.join(self._family.schedulers)}"
            )

    def _stacked(self, maps: AttentionMaps) -> Tensor:
        return maps.stack(self._layout.side, self._layout.renormalise, self._layout.reduce).half().cpu()
