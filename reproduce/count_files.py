"""How many files a newcomer has to open: those that a steered call runs through, and those that tell the story.

    python reproduce/count_files.py

prints the files of this package in which one steered call of ``sd:emoji`` runs a function, and the files to read in
order to know the method, with their lines.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import learn_to_steer
from learn_to_steer.evaluation import ModelConfig, open_model

PACKAGE = Path(learn_to_steer.__file__).parent
PROMPT = "a dog to the left of a cat"
STORY = ("steering/steerer.py", "steering/pipeline.py", "steering/loop.py", "losses/learned.py")  # in this order
MOST_FILES = 14
MOST_STORY_FILES = 4
MOST_STORY_LINES = 900


def files_run_by(call: Callable[[], Any]) -> list[str]:
    """The files of the package in which ``call`` runs a function, relative to the package, sorted."""
    seen: set[str] = set()

    def note(frame: FrameType, event: str, _: Any) -> None:
        if event == "call":
            seen.add(frame.f_code.co_filename)

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        call()
    finally:
        sys.setprofile(before)
    ours = (Path(name) for name in seen if name.startswith(str(PACKAGE)))
    return sorted(str(path.relative_to(PACKAGE)) for path in ours)


def files_of_a_steered_call() -> list[str]:
    """The files that one call of the steered emoji model runs through."""
    model = open_model(ModelConfig(model="sd:emoji", device="cpu", steps=2))
    steered = model.steered
    assert steered is not None
    return files_run_by(lambda: steered(PROMPT, **model.sampling))


def story_lines() -> dict[str, int]:
    """The lines of each file of the story."""
    return {name: len((PACKAGE / name).read_text(encoding="utf-8").splitlines()) for name in STORY}


def main() -> None:
    """Print both."""
    files = files_of_a_steered_call()
    print(f"one steered call runs through {len(files)} files (at most {MOST_FILES}):")
    print(*(f"  {name}" for name in files), sep="\n")
    lines = story_lines()
    print(f"the story: {len(lines)} files, {sum(lines.values())} lines (at most {MOST_STORY_LINES}):")
    print(*(f"  {name}: {count}" for name, count in lines.items()), sep="\n")


if __name__ == "__main__":
    main()
