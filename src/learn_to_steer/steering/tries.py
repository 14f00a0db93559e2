"""Several tries for an image: one that a verifier finds wrong is drawn again from other noise, and the best is kept.

The first try has the noise of a call without tries. The noise of a later one depends on the seed, the prompt, the
number of the image and the number of the try alone. Images that are wrong are drawn again in one call, in their order.

Without a verifier the classifier's last look judges: its probability at the last steered denoising step. It is read off
attention maps, early, and cannot tell whether an object is missing or doubled.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor

from learn_to_steer.benchmarks import BenchmarkPrompt
from learn_to_steer.errors import UnsupportedError
from learn_to_steer.losses.base import NEVER
from learn_to_steer.prompts import Relation
from learn_to_steer.sampling import loaded_variant
from learn_to_steer.steering.arguments import whole_number
from learn_to_steer.steering.config import SteeringConfig
from learn_to_steer.steering.report import CLASSIFIER, ImageReport, SteeringReport
from learn_to_steer.steering.verifiers import Verdict, Verifier, default_verifier, load_verifier

# Arguments of pipelines that have one row for each prompt. Strings belong to all prompts.
PER_PROMPT = (
    *("prompt", "relations", "columns", "prompt_2", "prompt_3"),
    *("negative_prompt", "negative_prompt_2", "negative_prompt_3"),
    *("prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds"),
)
SHARED = ("generator", "sigmas", "timesteps")


_NOT_STEERED = SteeringConfig(max_iterations=0, threshold=NEVER, check_while_sampling=False)


@dataclass(frozen=True)
class UnsteeredPipeline:
    """A pipeline that is called like a steered one, with relations for each prompt, and is not steered.

    Attributes:
        pipe: The diffusers pipeline.
        config: Settings that steer nothing.
    """

    pipe: Any
    config: SteeringConfig = _NOT_STEERED

    def __call__(self, prompt: Sequence[str], relations: Sequence[Sequence[Relation]], **arguments: Any) -> Any:
        """Run the pipeline.

        Args:
            prompt: The prompts, one for each image.
            relations: The relations of each, for the verifier.
            **arguments: Further arguments of the pipeline.

        Returns:
            The pipeline's output, with a ``SteeringReport`` of images that were not steered as ``.steering``.
        """
        output = self.pipe(prompt=list(prompt), **arguments)
        images = [ImageReport(one, list(its)) for one, its in zip(prompt, relations, strict=True)]
        output.steering = SteeringReport(images, self.config)
        return output


def draw_best(steered: Any, arguments: Mapping[str, Any], tries: int, verifier: str | Verifier | None = None) -> Any:
    """Run a pipeline until its images are satisfactory, at most ``tries`` times, and return the best images.

    Args:
        steered: A ``SteeredPipeline`` or an ``UnsteeredPipeline``.
        arguments: The arguments of its call.
        tries: How often an image is drawn at most.
        verifier: What judges finished images: a detector by its name, or "name:SOURCE" for other weights of it, or any
            ``Verifier``; "classifier" for the classifier's last look. None: the default of the model, else the
            classifier. The classifier also judges where the verifier cannot.

    Returns:
        The output of the first call, in which images that were drawn better in a later one are replaced. In its report,
        too, the entry of an image is that of the kept try, with what all tries cost.

    Raises:
        PromptError: ``tries`` is no whole number from 1.
        UnsupportedError: Nothing can judge the images, or the arguments do not allow to draw some of them again.
        SteerError: As the call, and as ``load_verifier``.
    """
    tries = whole_number("tries", tries)
    looks = _find_verifier(steered.pipe, verifier)
    if looks is None:
        require_judge(steered)
    if looks is not None and arguments.get("output_type") not in (None, "pil"):
        raise UnsupportedError(
            f"{looks.name} looks at PIL images, not at the output type {arguments['output_type']!r}; leave output_type "
            "out, or use verifier='classifier'"
        )
    if tries > 1:
        _require_rows(arguments)
    later_noise = _LaterNoise(arguments.get("generator"))
    interrupts = _Interrupts(steered.pipe)
    arguments = interrupts.watched(arguments)
    output = steered(**arguments)
    report = _report(output)
    best = _look(output, looks, steered.config)
    for attempt in range(1, tries):
        wrong = [i for i, verdict in enumerate(best) if verdict is not None and not verdict.satisfied]
        if not wrong or interrupts.seen():
            break
        every = later_noise.generators([image.prompt for image in report.images], attempt)
        generators = [every[i] for i in wrong]
        again = steered(**_rows(arguments, wrong, len(best)) | {"generator": generators})
        report.seconds += _report(again).seconds
        for row, (i, verdict) in enumerate(zip(wrong, _look(again, looks, steered.config), strict=True)):
            best[i] = _keep_better(output, i, best[i], again, row, verdict, attempt)
    for image, verdict in zip(report.images, best, strict=True):
        if verdict is None:
            image.satisfied = None
        else:
            image.satisfied, image.reason = bool(verdict.satisfied), verdict.reason
    return output


def require_judge(steered: Any) -> None:
    """Check that the classifier's last look can judge images.

    Args:
        steered: As for ``draw_best``.

    Raises:
        UnsupportedError: The stop rule has no threshold that is ever reached.
    """
    if steered.config.threshold > 1:
        raise UnsupportedError(
            "nothing judges the images: they are not steered, or no probability reaches the threshold; name a detector "
            "as verifier (--verifier, see: list detectors), or leave out tries (--tries)"
        )


def _find_verifier(pipe: Any, given: str | Verifier | None) -> Verifier | None:
    """The verifier; None for the classifier's last look."""
    if given is None:
        given = default_verifier(loaded_variant(pipe))
    if given == CLASSIFIER:
        return None
    if isinstance(given, str):
        # An offloaded pipeline's own device is not where it computes.
        return load_verifier(given, str(getattr(pipe, "_execution_device", "cpu")))
    if not hasattr(given, "look"):
        raise UnsupportedError(
            f"{given!r} is no verifier; give the name of a detector (see: list detectors), or an object with the "
            "method look"
        )
    return given


def _look(output: Any, verifier: Verifier | None, config: SteeringConfig) -> list[Verdict | None]:
    """The verdict on each image; None where there is no relation, or nothing can judge it."""
    reports = _report(output).images
    verdicts = [_last_look(report, config) for report in reports]
    seen = [i for i, report in enumerate(reports) if report.relations]
    if verifier is not None and seen:
        images: list[Image] = [_fields(output)[0][i] for i in seen]
        prompts = [BenchmarkPrompt(0, reports[i].prompt, tuple(reports[i].relations), {}) for i in seen]
        for i, verdict in zip(seen, verifier.look(images, prompts), strict=True):
            if verdict is not None:
                verdicts[i], reports[i].verified_by = verdict, verifier.name
    return verdicts


def _last_look(report: ImageReport, config: SteeringConfig) -> Verdict | None:
    """The classifier's verdict, by the stop rule; None if the image was not steered, or never satisfies it."""
    if not report.steps or config.threshold > 1:
        return None
    return Verdict(report.converged, math.prod(report.probability))


def _keep_better(
    output: Any, i: int, best: Verdict | None, again: Any, row: int, verdict: Verdict | None, attempt: int
) -> Verdict | None:
    """Replace image ``i`` by another try of it if that is better; returns the verdict on the one that is kept."""
    reports = _report(output).images
    kept, other = reports[i], _report(again).images[row]
    if verdict is not None and (best is None or (verdict.satisfied, verdict.score) > (best.satisfied, best.score)):
        for field, others in zip(_fields(output), _fields(again), strict=True):
            if isinstance(field, list | np.ndarray | Tensor) and len(field) == len(reports):
                field[i] = others[row]
        kept, other, best = other, kept, verdict
        kept.kept_try = attempt
    kept.discarded += [*other.discarded, *other.steps]
    kept.tries = attempt + 1
    reports[i] = kept
    return best


def _report(output: Any) -> SteeringReport:
    report: SteeringReport = output[-1] if isinstance(output, tuple) else output.steering
    return report


def _fields(output: Any) -> list[Any]:
    """What a pipeline returns, images first."""
    if isinstance(output, tuple):
        return list(output)
    return list(output.values()) if isinstance(output, Mapping) else [output.images]


def _prompts(arguments: Mapping[str, Any]) -> int:
    """The number of prompts of a call."""
    prompt = arguments.get("prompt")
    if prompt is None:
        embeds = arguments.get("prompt_embeds")
        return 1 if embeds is None else len(embeds)
    return 1 if isinstance(prompt, str) else len(prompt)


def _require_rows(arguments: Mapping[str, Any]) -> None:
    """Raise UnsupportedError unless some of the images of a call can be drawn again, from other noise."""
    if arguments.get("latents") is not None:
        raise UnsupportedError(
            "a try begins with noise of its own, and latents are given; leave them out and give a generator"
        )
    for name, value in arguments.items():
        if name in (*PER_PROMPT, *SHARED) or not isinstance(value, list | tuple | np.ndarray | Tensor):
            continue
        numbers = isinstance(value, list | tuple) and all(isinstance(one, str | Real) for one in value)
        if _prompts(arguments) > 1 and not numbers:
            raise UnsupportedError(
                f"with several tries and prompts, it is not known which rows of {name} belong to which prompt; call "
                "it once for each prompt, or leave out tries"
            )


def _rows(arguments: Mapping[str, Any], images: Sequence[int], count: int) -> dict[str, Any]:
    """The arguments of a call that draws some of the ``count`` images of another one."""
    prompts = _prompts(arguments)
    if prompts == 1:
        one_of_one = len(images) == 1 and "num_images_per_prompt" not in arguments
        return {**arguments, **({} if one_of_one else {"num_images_per_prompt": len(images)})}
    rows = [image // (count // prompts) for image in images]
    chosen: dict[str, Any] = {}
    for name in PER_PROMPT:
        value = arguments.get(name)
        if isinstance(value, Tensor):
            chosen[name] = value[rows]
        elif isinstance(value, list | tuple) and len(value) == prompts:
            chosen[name] = [value[row] for row in rows]
    copies = {"num_images_per_prompt": 1} if "num_images_per_prompt" in arguments else {}
    return {**arguments, **chosen, **copies}


class _Interrupts:
    """Tells whether a call was interrupted, on the user's pipeline or on the one that a callback is given."""

    def __init__(self, pipe: Any) -> None:
        self._pipe, self._in_callback = pipe, False

    def seen(self) -> bool:
        """Whether it was; then no image is drawn again."""
        return self._in_callback or bool(getattr(self._pipe, "_interrupt", False))

    def watched(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments of a call with the user's callback watched."""
        callback = arguments.get("callback_on_step_end")
        if callback is None or hasattr(callback, "tensor_inputs"):  # diffusers' own callbacks interrupt nothing
            return dict(arguments)

        def watch(pipe: Any, *rest: Any) -> Any:
            result = callback(pipe, *rest)
            self._in_callback |= bool(getattr(pipe, "_interrupt", False))
            return result

        return {**arguments, "callback_on_step_end": watch}


class _LaterNoise:
    """Makes the generators of later tries.

    Args:
        given: The generators of the first try: one for each image, one for all, or none. They are left as they are.
    """

    def __init__(self, given: torch.Generator | Sequence[torch.Generator] | None) -> None:
        self._of_images = [*given] if isinstance(given, Sequence) else None
        each = [*given] if isinstance(given, Sequence) else [given]
        self._seeds = [_next_number(one) for one in each if one is not None]

    def generators(self, prompts: Sequence[str], attempt: int) -> list[torch.Generator]:
        """The generator of each image in a try, on the CPU, so that the noise is the same on every device.

        Args:
            prompts: The prompt of each image.
            attempt: The number of the try, from 1.
        """
        if not self._seeds:  # drawn after the first try, whose noise it would change
            self._seeds = [int(torch.randint(2**63 - 1, ()))]
        if self._of_images is None:
            return [_generator(attempt, self._seeds[0], n, prompt) for n, prompt in _numbered(prompts)]
        # A generator that is given for several images makes other noise for each.
        uses = [n for n, _ in _numbered([id(one) for one in self._of_images])]
        return [_generator(attempt, seed, *([n] if n else [])) for seed, n in zip(self._seeds, uses, strict=True)]


def _numbered(values: Sequence[Any]) -> list[tuple[int, Any]]:
    """Each value, with how many before it are the same."""
    return [(values[:place].count(value), value) for place, value in enumerate(values)]


def _generator(attempt: int, *key: Any) -> torch.Generator:
    digest = hashlib.sha256("\n".join(map(str, ["try", attempt, *key])).encode()).digest()
    return torch.Generator("cpu").manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def _next_number(generator: torch.Generator) -> int:
    """The number that a generator would draw next. It is not changed."""
    copied = torch.Generator(generator.device)
    copied.set_state(generator.get_state())
    return int(torch.randint(2**63 - 1, (), generator=copied, device=generator.device))
