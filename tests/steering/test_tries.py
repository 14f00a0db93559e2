"""Several tries: what a verifier finds wrong is drawn again from the next noise, and the best is kept."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from learn_to_steer.benchmarks import BenchmarkPrompt
from learn_to_steer.errors import PromptError, UnsupportedError
from learn_to_steer.families import resolve
from learn_to_steer.geometry import Detection
from learn_to_steer.model_names import find_variant
from learn_to_steer.prompts import parse
from learn_to_steer.steering import DetectorVerifier, Verdict
from learn_to_steer.steering import tries as steering_tries
from learn_to_steer.steering.tries import UnsteeredPipeline, draw_best
from learn_to_steer.steering.verifiers import default_verifier

DOG, PIZZA, PLAIN = "a dog to the left of a cat", "a pizza above a horse", "a dog and a cat"
FAST: dict[str, Any] = {"height": 64, "width": 64, "num_inference_steps": 2}


class ColourPipeline:
    """Draws grey images whose value is the first number of the image's generator; remembers its calls."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.drawn: list[list[int]] = []

    def __call__(self, prompt: list[str], generator: Any = None, **arguments: Any) -> Any:
        self.calls.append(prompt)
        each = generator if isinstance(generator, list) else [generator] * len(prompt)
        values = [int(torch.randint(256, (), generator=one)) for one in each]
        self.drawn.append(values)
        return SimpleNamespace(images=[Image.new("L", (4, 4), value) for value in values])


class Brightness:
    """Satisfied with images that are bright enough; the score grows with brightness. Does not judge a horse."""

    def __init__(self, enough: int) -> None:
        self.name, self.identity, self.enough = "brightness", {}, enough

    def look(self, images: Any, prompts: Any) -> list[Verdict | None]:
        values = [np.asarray(image).mean() for image in images]
        return [
            None if "horse" in prompt.objects else Verdict(value >= self.enough, value / 255, "too dark")
            for value, prompt in zip(values, prompts, strict=True)
        ]


def brightness(image: Any) -> int:
    return int(np.asarray(image)[0, 0])


def noise(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draw(prompts: list[str], generator: Any, tries: int, enough: int = 256) -> tuple[ColourPipeline, Any]:
    pipe = ColourPipeline()
    arguments = {"prompt": prompts, "relations": [list(parse(one)) for one in prompts], "generator": generator}
    return pipe, draw_best(UnsteeredPipeline(pipe), arguments, tries, Brightness(enough))


def test_the_best_try_is_kept_and_the_first_that_satisfies_is_the_last() -> None:
    one = [brightness(draw([DOG], [noise(7)], tries)[1].images[0]) for tries in range(1, 9)]
    assert one == sorted(one) and len(set(one)) > 2  # the best so far
    assert one[0] == int(torch.randint(256, (), generator=noise(7)))  # the first try has the noise of a plain call
    best = max(one)
    pipe, output = draw([DOG], [noise(7)], 8, best)
    (report,) = output.steering.images
    assert brightness(output.images[0]) == best
    assert report.satisfied is True and report.tries == len(pipe.calls) == one.index(best) + 1 == report.kept_try + 1
    report = draw([DOG], [noise(7)], 8)[1].steering.images[0]
    assert (report.satisfied, report.tries, report.kept_try) == (False, 8, one.index(best))
    assert report.why == "brightness: too dark"


def test_noise_depends_on_the_image_and_the_try_alone() -> None:
    """Neither on the other images of the call, nor on which of them were satisfactory."""
    seeds = range(12)
    together = draw([DOG] * 12, [noise(seed) for seed in seeds], 4, 150)[1]
    for seed in seeds:
        alone = draw([DOG], [noise(seed)], 4, 150)[1]
        assert brightness(alone.images[0]) == brightness(together.images[seed])
        assert alone.steering.images[0] == together.steering.images[seed]
    assert {report.tries for report in together.steering.images} == {1, 2, 3, 4}


def test_only_what_is_wrong_is_drawn_again_in_one_call_and_in_order() -> None:
    prompts = [PLAIN, DOG, PIZZA, f"{DOG}, photo"]
    pipe, output = draw(prompts, [noise(seed) for seed in range(4)], 3)
    assert pipe.calls == [prompts, [DOG, f"{DOG}, photo"], [DOG, f"{DOG}, photo"]]
    reports = output.steering.images
    assert [report.satisfied for report in reports] == [None, False, None, False]
    assert [report.tries for report in reports] == [1, 3, 1, 3]
    assert [report.why for report in (reports[0], reports[2])] == ["no relation", "not judged"]


def test_one_generator_for_all_images_and_none() -> None:
    shared = noise(3)
    values = [brightness(image) for image in draw([DOG] * 3, shared, 4)[1].images]
    assert values == [brightness(image) for image in draw([DOG] * 3, noise(3), 4)[1].images]
    assert len(set(values)) == 3
    plain = noise(3)
    for _ in range(3):
        torch.randint(256, (), generator=plain)
    assert torch.equal(shared.get_state(), plain.get_state())  # later tries do not use it up
    assert values != [brightness(image) for image in draw([DOG] * 3, shared, 4)[1].images]
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        drawn.append([brightness(image) for image in draw([DOG], None, 4)[1].images])
    assert drawn[0] == drawn[1] != drawn[2]


def test_without_a_generator_the_first_try_is_that_of_a_plain_call() -> None:
    torch.manual_seed(0)
    plain = brightness(draw([DOG], None, 1)[1].images[0])
    torch.manual_seed(0)
    assert brightness(draw([DOG], None, 4, plain)[1].images[0]) == plain
    torch.manual_seed(0)
    first, second = (draw([DOG], None, 2)[0] for _ in range(2))
    assert first.drawn[0] == [plain] and first.drawn[1] != second.drawn[1]  # later calls have other noise


def test_with_one_generator_the_other_prompts_of_a_call_do_not_matter() -> None:
    alone = draw([DOG], noise(3), 4)[0].drawn
    among = draw([PIZZA, PLAIN, DOG, DOG], noise(3), 4)[0].drawn
    assert [values[0] for values in among[1:]] == [values[0] for values in alone[1:]]
    assert all(one != other for one, other in among[1:])  # the second image of that prompt


def test_a_generator_that_is_given_twice_makes_different_noise() -> None:
    again = draw([DOG, DOG], [noise(3)] * 2, 2)[0].drawn[1]
    assert again[0] != again[1] and again[0] == draw([DOG], [noise(3)], 2)[0].drawn[1][0]


def test_the_verifier_is_where_the_pipeline_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    """That of an offloaded pipeline is not the device of its weights."""
    devices = []

    def load(name: str, device: str) -> Brightness:
        devices.append(device)
        return Brightness(0)

    monkeypatch.setattr(steering_tries, "load_verifier", load)
    pipe: Any = ColourPipeline()
    pipe.device, pipe._execution_device = torch.device("meta"), torch.device("cpu")
    relations = [list(parse(DOG))]
    draw_best(UnsteeredPipeline(pipe), {"prompt": [DOG], "relations": relations}, 2, "some-detector")
    assert devices == ["cpu"]


LEFT, RIGHT = Detection("dog", 0.9, (0, 20, 20, 40)), Detection("cat", 0.8, (40, 20, 60, 40))
SECOND = Detection("dog", 0.4, (0, 60, 20, 80))
WORDS = {"dog": "dog", "puppy": "dog", "cat": "cat"}


@pytest.mark.parametrize(
    ("prompt", "seen", "verdict"),
    [
        (DOG, [LEFT, RIGHT], Verdict(True, 1.0)),
        (DOG, [LEFT], Verdict(False, 1 / 3, "missing: cat")),
        (DOG, [LEFT, RIGHT, SECOND], Verdict(False, 2 / 3, "too many: 2 dog, not 1")),
        ("a cat left of a dog", [LEFT, RIGHT], Verdict(False, 2 / 3, "wrong side: cat left of dog (is right of)")),
        ("a dog above another dog", [LEFT, SECOND], Verdict(True, 1.0)),
        (DOG, [], Verdict(False, 0.0, "missing: dog, cat")),
        ("a dog left of a unicorn", [LEFT, RIGHT], None),
    ],
)
def test_the_verdict_of_a_detector(prompt: str, seen: list[Detection], verdict: Verdict | None) -> None:
    detector = SimpleNamespace(name="stub", identity={}, detect=lambda images, queries: [seen for _ in images])
    expected = BenchmarkPrompt(0, prompt, tuple(parse(prompt)), {})
    assert DetectorVerifier(detector, WORDS).look([Image.new("RGB", (80, 80))], [expected]) == [verdict]


def test_default_verifiers() -> None:
    emoji = resolve("sd:emoji")
    assert default_verifier(emoji) == default_verifier(emoji, "emoji") == "emoji-templates"
    assert default_verifier(emoji, "emoji-templates") == "emoji"
    assert default_verifier(resolve("sd:1.4"), "owlv2") == default_verifier(None) == "classifier"
    assert default_verifier(find_variant("sd:emoji=owner/other-weights")) == "classifier"


def test_a_single_try_is_a_call_without_tries(tiny_steerer: Any) -> None:
    steered = tiny_steerer(threshold=0.9)
    plain = steered(DOG, generator=noise(5), **FAST)
    judged = steered(DOG, generator=noise(5), tries=1, verifier="classifier", **FAST)
    assert np.array_equal(plain.images[0], judged.images[0])
    (report,) = plain.steering.images
    assert report == judged.steering.images[0] and report.satisfied is report.converged is False
    assert report.why.startswith("classifier: its last estimate is 0.") and "doubled" in report.why
    assert tiny_steerer(threshold=0.0)(DOG, **FAST).steering.images[0].satisfied is True
    assert tiny_steerer(threshold=2.0)(DOG, **FAST).steering.images[0].satisfied is None
    assert steered([PLAIN, DOG], **FAST).steering.images[0].satisfied is None


def test_the_classifiers_last_look_judges_and_all_tries_are_counted(tiny_steerer: Any) -> None:
    once = tiny_steerer(threshold=0.99)(DOG, generator=noise(5), **FAST)
    steered = tiny_steerer(threshold=0.99)
    output = steered(DOG, generator=noise(5), tries=3, **FAST)
    report, single = output.steering.images[0], once.steering.images[0]
    assert (report.satisfied, report.tries, report.passes) == (False, 3, 3 * single.passes)
    assert np.prod(report.probability) >= np.prod(single.probability)
    assert output.steering.seconds > 0 and len(report.steps) == len(single.steps)
    assert tiny_steerer(threshold=0.0)(DOG, tries=3, **FAST).steering.images[0].tries == 1
    with pytest.raises(PromptError, match="tries"):
        steered(DOG, tries=0, **FAST)
    with pytest.raises(UnsupportedError, match="nothing judges"):
        tiny_steerer(threshold=2.0)(DOG, tries=2, **FAST)


class Never(Brightness):
    """Never satisfied, and likes every image more than the ones before it."""

    def __init__(self) -> None:
        super().__init__(256)
        self.seen = 0

    def look(self, images: Any, prompts: Any) -> list[Verdict | None]:
        self.seen += 1
        return [Verdict(False, self.seen / 100) for _ in images]


@pytest.mark.parametrize("as_dict", [True, False])
def test_images_of_several_prompts_are_replaced_where_they_belong(
    tiny_sd: Any, tiny_steerer: Any, as_dict: bool
) -> None:
    """The last try of an image is what one of its own draws, whatever else is in the call."""
    steered = tiny_steerer()
    more: dict[str, Any] = {"num_images_per_prompt": 2, "return_dict": as_dict, "negative_prompt": ["red", "blue", ""]}
    noises = [noise(seed) for seed in range(6)]
    whole = steered([PLAIN, DOG, PIZZA], generator=noises, tries=2, verifier=Never(), **more, **FAST)
    images, report = (whole.images, whole.steering) if as_dict else (whole[0], whole[-1])
    assert [one.tries for one in report.images] == [1, 1, 2, 2, 2, 2]
    assert [one.kept_try for one in report.images] == [0, 0, 1, 1, 1, 1]
    assert [one.prompt for one in report.images] == [PLAIN, PLAIN, DOG, DOG, PIZZA, PIZZA]
    for prompt, negative, index in ((DOG, "blue", 3), (PIZZA, "", 4)):
        alone = steered(
            prompt, generator=[noise(index)], tries=2, verifier=Never(), negative_prompt=negative, **FAST
        ).images[0]
        assert np.abs(np.asarray(alone, dtype=float) - np.asarray(images[index])).max() <= 2
    once = steered([PLAIN, DOG, PIZZA], generator=[noise(seed) for seed in range(6)], **more, **FAST)
    first = once.images if as_dict else once[0]
    changed = [not np.array_equal(one, other) for one, other in zip(images, first, strict=True)]
    assert changed == [False, False, True, True, True, True]


def test_an_interrupt_ends_the_tries(tiny_sd: Any, tiny_steerer: Any) -> None:
    def stop(pipe: Any, step: int, time: Any, values: Any) -> Any:
        pipe._interrupt = True
        return values

    report = tiny_steerer()(DOG, tries=4, verifier=Never(), callback_on_step_end=stop, **FAST).steering.images[0]
    assert report.tries == 1
