"""Steering inside diffusers' modular pipelines, as a block that takes the place of the denoising loop.

::

    pipe = ModularPipeline.from_pretrained("black-forest-labs/FLUX.1-schnell")
    pipe.load_components(torch_dtype=torch.bfloat16)
    steered = SteerStep.into(pipe, Steerer.from_pretrained("path/to/classifier"))
    out = steered(prompt="a dog to the right of a teddy bear", output=["images", "steering"])

``RelationsStep`` comes first and reads the relations of the prompts, before they are encoded. ``SteerStep`` runs the
loop of the model's own blocks, whatever is in it, on a view of the components whose denoiser and scheduler are those of
the call. Without relations the loop runs on the components themselves.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from diffusers import ModularPipeline
from diffusers.guiders.guider_utils import BaseGuidance
from diffusers.modular_pipelines.modular_pipeline import (
    MODULAR_PIPELINE_MAPPING,
    LoopSequentialPipelineBlocks,
    ModularPipelineBlocks,
)
from diffusers.modular_pipelines.modular_pipeline_utils import InputParam, OutputParam
from torch import nn

from learn_to_steer import registry
from learn_to_steer.errors import UnsupportedError
from learn_to_steer.families import DENOISERS, Family
from learn_to_steer.losses.base import Loss
from learn_to_steer.steering import Steerer, SteeringConfig, SteeringReport
from learn_to_steer.steering.compatibility import TIMEOUT, pipeline_view, uncompiled
from learn_to_steer.steering.inputs import Target, read_targets
from learn_to_steer.steering.loop import SteeringLoop
from learn_to_steer.steering.pipeline import CallHooks, SteeredPipeline, require_relations
from learn_to_steer.steering.state import CallState

__all__ = ["RelationsStep", "SteerStep"]

RELATIONS = "relations"  # the name of the first block
Blocks = TypeVar("Blocks")

# Inputs of a pipeline that say how its prompts are read.
_READ = ("prompt", "prompt_2", "prompt_3", "max_sequence_length", "num_images_per_prompt", "image")
# What families read off a pipeline and modular pipelines keep in a block: the name there -> the name in a pipeline.
_KEPT_IN_BLOCKS = {
    "prompt_template_encode": "prompt_template_encode",
    "prompt_template_encode_start_idx": "prompt_template_encode_start_idx",
    "DEFAULT_SYSTEM_MESSAGE": "system_message",
}


@dataclass(eq=False)
class _Steering:
    """What the blocks of one pipeline share, also when diffusers copies them.

    Attributes:
        steerer: The user's.
        facts: Attributes that a pipeline of the family has and a modular one has not.
        attached: Per denoiser, what was found out when it was first steered.
    """

    steerer: Steerer
    facts: Mapping[str, Any]
    attached: WeakKeyDictionary[nn.Module, tuple[Family, Loss, SteeringConfig]] = field(
        default_factory=WeakKeyDictionary
    )

    def __deepcopy__(self, memo: dict[int, Any]) -> _Steering:
        return self

    def on(self, components: Any) -> SteeredPipeline:
        """What steers calls of a modular pipeline, which is given to its blocks as ``components``."""
        view = pipeline_view(components, self.facts)
        found = [part for name in DENOISERS if (part := getattr(components, name, None)) is not None]
        if not found:
            raise UnsupportedError("the denoiser is not loaded; call the pipeline's load_components()")
        denoiser = uncompiled(found[0])
        if denoiser not in self.attached:
            first = self.steerer.attach(view)
            self.attached[denoiser] = first.family, first.loss, first.config
        return SteeredPipeline(view, *self.attached[denoiser])


class RelationsStep(ModularPipelineBlocks):  # type: ignore[misc]
    """Reads the relations of the prompts and where their objects stand in the text, before anything is encoded."""

    def __init__(self, steering: _Steering, read: list[InputParam]) -> None:
        """Made by ``SteerStep.into``.

        Args:
            steering: What it shares with the denoising step.
            read: The inputs of the pipeline that say how its prompts are read.
        """
        super().__init__()
        self._steering, self._read = steering, read

    @property
    def description(self) -> str:
        """See diffusers."""
        return "Reads the relations in the prompts, towards which `SteerStep` steers the images."

    @property
    def inputs(self) -> list[InputParam]:
        """See diffusers."""
        relations = "Used instead of the relations in the prompts: `dog | left of | cat`, a triple, or a list of them."
        columns = "Per prompt, the text columns (token positions) of objects by name, used instead of those found."
        strict = "Whether a prompt without a relation that can be steered is an error."
        return [
            *copy.deepcopy(self._read),
            InputParam("relations", description=relations),
            InputParam("columns", description=columns),
            InputParam("strict", type_hint=bool, default=False, description=strict),
        ]

    @property
    def intermediate_outputs(self) -> list[OutputParam]:
        """See diffusers."""
        what = "Per prompt, its relations and the text columns of their objects."
        return [OutputParam("steering_targets", type_hint=list[Target], description=what)]

    def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
        """Read the prompts.

        Args:
            components: The modular pipeline.
            state: Its state.

        Returns:
            Both; ``steering_targets`` is in the state.
        """
        block_state = self.get_block_state(state)
        steered = self._steering.on(components)
        given = {name: value for name in _READ if (value := getattr(block_state, name, None)) is not None}
        prompt = given.pop("prompt", "")
        targets = read_targets(
            steered.pipe,
            steered.family,
            steered.loss,
            prompt,
            block_state.relations,
            block_state.columns,
            given,
            block_state.strict,
        )
        require_relations(targets, block_state.strict)
        block_state.steering_targets = targets
        self.set_block_state(state, block_state)
        return components, state


class SteerStep(LoopSequentialPipelineBlocks):  # type: ignore[misc]
    """A model's own denoising loop, steered towards the relations that ``RelationsStep`` has read.

    ``into`` puts both into a pipeline. ``sub_blocks`` are those of the loop, in which further ones may be inserted.

    Attributes:
        loop: The loop's own block.
    """

    def __init__(self, loop: LoopSequentialPipelineBlocks, steering: _Steering) -> None:
        """Made by ``SteerStep.into``.

        Args:
            loop: The model's denoising loop.
            steering: What it shares with the block that reads the relations.
        """
        self.loop, self._steering = loop, steering
        self.sub_blocks = loop.sub_blocks

    @classmethod
    def into(cls, blocks: Blocks, steerer: Steerer) -> Blocks:
        """Return steered blocks, or a steered pipeline with the same components. What is given stays as it is.

        Args:
            blocks: Blocks of a modular pipeline, from the text encoder to the denoising loop at least, or a modular
                pipeline.
            steerer: What steers.

        Raises:
            UnsupportedError: Modular pipelines of this kind cannot be steered, or were not tried.
        """
        if isinstance(blocks, ModularPipeline):
            pipe: Any = copy.copy(blocks)
            pipe._blocks = cls.into(pipe.blocks, steerer)
            return pipe  # type: ignore[no-any-return]
        if not isinstance(blocks, ModularPipelineBlocks):
            raise UnsupportedError(
                f"a {type(blocks).__name__} is neither a ModularPipeline nor its blocks; other pipelines are steered "
                "by steerer.on(pipe)"
            )
        # Blocks may be shared by all pipelines of a class, so only a copy can be changed.
        steered: Any = copy.deepcopy(blocks)
        _check_blocks(steered)
        facts = {
            name: getattr(block, kept)
            for _, _, block in _walk(steered)
            for kept, name in _KEPT_IN_BLOCKS.items()
            if hasattr(block, kept)
        }
        steering = _Steering(steerer, facts)
        for parent, name, block in list(_walk(steered)):
            if isinstance(block, LoopSequentialPipelineBlocks):
                parent.sub_blocks[name] = cls(block, steering)
        read = [one for one in steered.inputs if one.name in _READ]
        steered.sub_blocks.insert(RELATIONS, RelationsStep(steering, read), 0)
        return steered  # type: ignore[no-any-return]

    @property
    def model_name(self) -> str | None:
        """See diffusers."""
        name: str | None = self.loop.model_name
        return name

    @property
    def description(self) -> str:
        """See diffusers."""
        return f"{self.loop.description}\nIt is steered towards the relations in the prompts."

    @property
    def expected_components(self) -> list[Any]:
        """See diffusers."""
        return list(self.loop.expected_components)

    @property
    def expected_configs(self) -> list[Any]:
        """See diffusers."""
        return list(self.loop.expected_configs)

    @property
    def inputs(self) -> list[InputParam]:
        """See diffusers."""
        what = "What the images are steered towards. Can be generated in the relations step."
        return [*self.loop.inputs, InputParam("steering_targets", required=True, description=what)]

    @property
    def required_inputs(self) -> list[str]:
        """See diffusers."""
        return [*self.loop.required_inputs, "steering_targets"]

    @property
    def intermediate_outputs(self) -> list[OutputParam]:
        """See diffusers."""
        what = "What was done to each image, and how sure the loss is of the result."
        report = OutputParam("steering", type_hint=SteeringReport, description=what)
        return [*self.loop.intermediate_outputs, report]

    @property
    def outputs(self) -> list[OutputParam]:
        """See diffusers."""
        return self.intermediate_outputs

    def set_progress_bar_config(self, **kwargs: Any) -> None:
        """See diffusers."""
        self.loop.set_progress_bar_config(**kwargs)

    def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
        """Run the loop, steered.

        Args:
            components: The modular pipeline.
            state: Its state.

        Returns:
            Both; ``steering`` is in the state, a ``SteeringReport``.

        Raises:
            UnsupportedError: Steering does not work with the scheduler, the guider or another setting.
            CaptureError: A layer's attention could not be read.
        """
        targets = state.get("steering_targets")
        if targets is None:
            raise UnsupportedError(
                "no block has read the relations before the denoising loop; make the pipeline of all blocks that "
                "SteerStep.into returned"
            )
        steered = self._steering.on(components)

        def run(loop: SteeringLoop | None, call_state: CallState) -> None:
            if loop is None:
                self.loop(components, state)
                return
            _check_guider(getattr(components, "guider", None))
            hooks = CallHooks(components, loop, call_state, num_timesteps=len(state.get("timesteps")))
            try:
                self.loop(hooks.view, state)
            finally:
                hooks.end()

        images = {"num_images_per_prompt": state.get("num_images_per_prompt") or 1}
        _, report = steered.run(run, targets, images, TIMEOUT)
        state.set("steering", report)
        return components, state


def _walk(block: Any) -> Iterator[tuple[Any, str, Any]]:
    """Parent, name and block of everything inside a block, except for the steps of loops."""
    for name, inner in block.sub_blocks.items():
        yield block, name, inner
        if not isinstance(inner, LoopSequentialPipelineBlocks):
            yield from _walk(inner)


def _check_blocks(blocks: Any) -> None:
    """Refuse blocks that cannot be steered, or were not tried."""
    loops = [block for _, _, block in _walk(blocks) if isinstance(block, LoopSequentialPipelineBlocks)]
    if any(isinstance(block, SteerStep) for block in loops):
        raise UnsupportedError("these blocks are steered already; take those of the model: type(blocks)()")
    whole = bool(loops) and any(one.name == "prompt" for one in blocks.inputs)
    if not whole:
        raise UnsupportedError(
            f"{type(blocks).__name__} has no text encoder or no denoising loop; steer all blocks of the pipeline"
        )
    tried = {name for plugin in registry.load_all("families").values() for name in plugin.FAMILY.modular_pipelines}
    for name in dict.fromkeys((blocks.model_name, *(loop.model_name for loop in loops))):
        if name is not None and _pipeline_class(name) not in tried:
            import diffusers

            others = ", ".join(sorted(getattr(diffusers, one).default_blocks_name for one in tried))
            raise UnsupportedError(
                f"modular pipelines of {name!r} have not been tried with steering, or are fed other images; use one of "
                f"the blocks {others}"
            )


def _pipeline_class(model_name: str) -> str:
    """Class name of the modular pipeline of blocks with a ``model_name``; empty for other blocks."""
    find = MODULAR_PIPELINE_MAPPING.get(model_name)
    return str(find()) if find else ""


def _check_guider(guider: Any) -> None:
    """Refuse a guider that changes the denoiser for some of its calls: the maps would be those of another model."""
    if guider is None or not isinstance(guider, BaseGuidance):
        return
    if type(guider).prepare_models is not BaseGuidance.prepare_models:
        raise UnsupportedError(
            f"{type(guider).__name__} changes the denoiser while it runs, which has not been tried with steering; use "
            "update_components(guider=ClassifierFreeGuidance()), or another guider that only combines predictions"
        )
