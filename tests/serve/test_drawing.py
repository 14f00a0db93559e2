"""Drawing in batches: a picture does not depend on its batch, and one that fails does not harm the others."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from learn_to_steer.prompts import analyse
from learn_to_steer.serve.jobs import Failed, Job, Picture

TEXTS = (
    "a pizza above a robot",
    "a turtle to the right of a bird",
    "a very big dog is to the left of a small red cat",
    "a cat below a pizza",
)


def _job(text: str, seed: int, **more: Any) -> Job:
    return Job(text, seed, 128, 128, analyse(text).relations, threshold=0.7, **more)


@pytest.mark.slow
@pytest.mark.parametrize(("batches", "tries"), [(20, 1), (5, 2)])
def test_one_request_in_many_batches(batches: int, tries: int) -> None:
    from learn_to_steer.serve.drawing import Painter

    painter = Painter("flux:emoji-schnell", None, "cpu", 4)
    assert painter.facts().batch_invariant
    draw, asked = random.Random(0), {"tries": tries, "steps": 2}
    one = _job(TEXTS[1], 9, **asked)
    pictures, passes = set(), set()
    for _ in range(batches):
        jobs = [_job(draw.choice(TEXTS), draw.randrange(1000), **asked) for _ in range(draw.randrange(4))]
        place = draw.randint(0, len(jobs))
        answers: list[Any] = painter.draw([*jobs[:place], one, *jobs[place:]], lambda: False)
        assert isinstance(answers[place], Picture)
        pictures.add(answers[place].png)
        passes |= {answer.steering["passes"] for answer in answers}
    assert len(pictures) == 1 and len(passes) > 1


class _Pipe:
    """A pipeline that fails at some prompts."""

    steering_defaults: dict[str, Any] = {"height": 64}  # noqa: RUF012

    def __call__(self, prompt: list[str], callback_on_step_end: Any, **_: Any) -> Any:
        callback_on_step_end(self, 0, 0, {})
        if "poison" in prompt:
            raise ZeroDivisionError
        return SimpleNamespace(images=[Image.new("RGB", (8, 8)) for _ in prompt])


def test_what_the_model_cannot_draw_fails_alone(monkeypatch: Any, caplog: Any) -> None:
    from learn_to_steer.serve import drawing

    monkeypatch.setattr(drawing, "load_pipeline", lambda *_: _Pipe())
    painter = drawing.Painter("an-owner/a-model", None, "cpu", 4)
    jobs = [Job(text, 0, 64, 64, steer=False) for text in ("a dog", "poison", "a cat")]
    first, poisoned, last = painter.draw(jobs, lambda: False)
    assert isinstance(first, Picture) and isinstance(last, Picture)
    assert poisoned == Failed(500, "the picture could not be drawn; the server's log says why")
    assert "ZeroDivisionError" in caplog.text
    assert painter.draw(jobs, lambda: True) == [Failed(499, "cancelled")] * 3
