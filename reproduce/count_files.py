"""How many files a newcomer has to open: those that a steered call runs, and those that contain the method.

    python reproduce/count_files.py     # a minute

Prints the files of the package in which one steered call of ``sd:emoji`` runs a function, and the files to read in
order to know the method, with their numbers of lines.
"""

from __future__ import annotations

import argparse
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
MOST_FILES = 17
MOST_STORY_FILES = 4
MOST_STORY_LINES = 900


def files_run_by(call: Callable[[], Any]) -> list[str]:
    """Return the files of the package in which ``call`` runs a function, relative to the package, sorted."""
    files: set[str] = set()

    def record(frame: FrameType, event: str, _: Any) -> None:
        if event == "call":
            files.add(frame.f_code.co_filename)

    before = sys.getprofile()
    sys.setprofile(record)
    try:
        call()
    finally:
        sys.setprofile(before)
    ours = (Path(name) for name in files if name.startswith(str(PACKAGE)))
    return sorted(str(path.relative_to(PACKAGE)) for path in ours)


def files_of_a_steered_call() -> list[str]:
    """Return the files that one steered call of the emoji model runs."""
    model = open_model(ModelConfig(model="sd:emoji", device="cpu", steps=2))
    steered = model.steered
    assert steered is not None
    return files_run_by(lambda: steered(PROMPT, **model.sampling))


def story_lines() -> dict[str, int]:
    """Return the number of lines of each file that contains the method."""
    return {name: len((PACKAGE / name).read_text(encoding="utf-8").splitlines()) for name in STORY}


def main() -> None:
    """Print both lists."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    files = files_of_a_steered_call()
    print(f"one steered call runs {len(files)} files (at most {MOST_FILES}):")
    print(*(f"  {name}" for name in files), sep="\n")
    lines = story_lines()
    print(f"the method: {len(lines)} files, {sum(lines.values())} lines (at most {MOST_STORY_LINES}):")
    print(*(f"  {name}: {count}" for name, count in lines.items()), sep="\n")


if __name__ == "__main__":
    main()
