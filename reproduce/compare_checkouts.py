"""Whether two checkouts draw the same images and write the same reports, compared to the bit on the command line.

    python reproduce/compare_checkouts.py --old ../old --new . --out out/compare
    python reproduce/compare_checkouts.py --old ../old --new . --out out/compare --model sd:emoji --profiles

The first line takes about ten minutes on two cores, the second half an hour. A case is one command, run in each
checkout by a process of its own, with the checkout's sources on its path. Images must be equal in every pixel. JSON
files must be equal apart from seconds; ``config.json`` may have gained the key ``steering``. ``--count`` images of a
model are spread over five kinds of case: objects that the classifier was trained on, other objects, several relations,
no relation, and one batch of prompts with one, two and three relations. ``--profiles`` adds cases with other profiles,
losses, schedulers, sizes and precisions.

Results stay in ``--out``. A result is reused as long as the checkout's files, the interpreter and the command are the
same: a run that was stopped goes on, and after a change of NEW only its results are made again. NEW finds
its plug-ins through the metadata of installed packages: run this with an interpreter in whose environment NEW is
installed, or name one with ``--python-new``. The exit code is 1 if anything differs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

MODELS = ("sd:emoji", "flux:emoji", "flux:emoji-schnell")
SOURCES = ("src", "emoji_world/src")
# Also checks that this checkout runs, not an installed one.
START = """
import sys
from pathlib import Path
import learn_to_steer
checkout = Path(sys.argv.pop(1))
if not Path(learn_to_steer.__file__).resolve().is_relative_to(checkout):
    sys.exit(f"learn_to_steer comes from {learn_to_steer.__file__}, not from {checkout}")
from learn_to_steer.cli import main
sys.exit(main())
"""

SEEN = (
    "a dog to the left of a cat",
    "a horse below an elephant",
    "a photo of a pizza above a bear",
    "a cup right of a teddy bear",
    "a bus to the right of a bird",
    "a clock on top of a suitcase",
    "A banana under a laptop.",
    "a cow left of a boat",
)
UNSEEN = (
    "a turtle to the left of a robot",
    "a photo of a pig above a key",
    "a tiger below a teapot",
    "a butterfly right of a hammer",
    "a bee above a monkey",
    "a snake to the right of a rabbit",
    "a robot under a bee",
    "a key left of a tiger",
)
SEVERAL = (
    "a cat left of a dog and a horse above a truck",
    "a bear above a cup and below a kite",
    "a tie to the right of a vase, and a clock left of a bowl",
    "a dog left of a bus, the bus above a pizza",
    "a sheep below a train and a bird above a couch",
    "a rabbit above a turtle and a robot to the left of a key",
)
MIXED = (
    SEEN[2],
    SEVERAL[0],
    UNSEEN[4],
    SEVERAL[1],
    SEEN[5],
    "a cat above a dog, the dog left of a cup and a bus below a kite",
)
PLAIN = ("a dog", "a photo of two cats", "a pizza and a red suitcase", "three birds on a plain background", "a robot")

# Of each model: name of the case -> options of ``generate``.
LOSSES = ("for-spatial", "initno", "infsplign", "storm-ot", "attend-and-excite")
EVERYWHERE = {
    "official": ["--profile", "official", "--steps", "8"],
    "equal": ["--profile", "equal"],
    **{name: ["--objective", name] for name in LOSSES},
    "equal-conform": ["--objective", "conform", "--profile", "equal"],
    "bfloat16": ["--dtype", "bfloat16"],
    "checkpointing": ["--checkpointing", "on"],
    "settings": ["--set", "threshold=0.9", "--set", "stop=worst", "--set", "total_passes=4"],
    "oblong": ["--height", "96", "--width", "160", "--steps", "10"],
    "relation": ["--relation", "cat | above | dog"],
}
SCHEDULERS = (
    "DDPMScheduler",
    "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",
    "DPMSolverMultistepScheduler",
    "DEISMultistepScheduler",
    "LCMScheduler",
)
OF_SD = {name: ["--scheduler", name, "--steps", "12"] for name in SCHEDULERS}


@dataclass(frozen=True)
class Case:
    """One command: its name, its arguments without ``--out``, and the number of its images."""

    name: str
    arguments: list[str]
    images: int
    prompts: tuple[str, ...] = ()  # of the file prompts.jsonl


@dataclass(frozen=True)
class Checkout:
    """One side of the comparison: the folder of a repository and the interpreter that runs it."""

    side: str
    folder: Path
    python: str
    threads: int

    @cached_property
    def environment(self) -> dict[str, str]:
        paths = [str(self.folder / name) for name in SOURCES if (self.folder / name).is_dir()]
        return os.environ | {
            "PYTHONPATH": os.pathsep.join(paths),
            "PYTHONDONTWRITEBYTECODE": "1",
            "OMP_NUM_THREADS": str(self.threads),
            "MKL_NUM_THREADS": str(self.threads),
        }

    def identity(self, case: Case) -> str:
        """A hash of all that a result depends on."""
        digest = hashlib.sha256(
            json.dumps([case.arguments, case.prompts, self.python, self.threads, platform.node()]).encode()
        )
        files = [path for name in SOURCES for path in (self.folder / name).rglob("*") if path.is_file()]
        for path in sorted(files):
            if "__pycache__" not in path.parts and not path.name.endswith(".pyc"):
                digest.update(str(path.relative_to(self.folder)).encode() + path.read_bytes())
        return digest.hexdigest()

    def run(self, case: Case, out: Path) -> str:
        """Leave the results of ``case`` in ``out``; a message if the command fails."""
        done = out / "done"
        identity = self.identity(case)
        if done.is_file() and done.read_text() == identity:
            return ""
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
        (out / "prompts.jsonl").write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in case.prompts))
        command = [self.python, "-P", "-c", START, str(self.folder), *case.arguments, "--out", "result"]
        ended = subprocess.run(command, cwd=out, env=self.environment, capture_output=True, text=True)
        (out / "stdout").write_text(ended.stdout)
        (out / "stderr").write_text(ended.stderr)
        if ended.returncode:
            lines = ended.stderr.strip().splitlines() or ["no message"]
            return f"{self.side.upper()} ended with code {ended.returncode}: {lines[-1]}"
        done.write_text(identity)
        return ""


def cases(model: str, count: int, profiles: bool) -> list[Case]:
    """Return the cases of ``model``: five kinds that share ``count`` images, and those that ``profiles`` adds."""
    shares = [count // 5 + (kind < count % 5) for kind in range(5)]
    kinds = {"seen": SEEN, "unseen": UNSEEN, "several": SEVERAL, "plain": PLAIN}
    listed = []
    for (name, prompts), share in zip(kinds.items(), shares, strict=False):
        # If there are more images than prompts, each prompt gets several.
        images = -(-share // len(prompts))
        subset = prompts[: -(-share // images)] if images else ()
        if subset:
            listed.append(Case(name, ["generate", *subset, "--images", str(images)], images * len(subset)))
    if shares[4]:
        mixed = tuple(MIXED[index % len(MIXED)] for index in range(shares[4]))
        batch = ["--images", "1", "--batch", str(shares[4])]
        listed.append(Case("mixed", ["evaluate", "--prompts", "prompts.jsonl", *batch], shares[4], mixed))
    if profiles:
        family, _, kind = model.partition(":")
        extra = EVERYWHERE | (OF_SD if family == "sd" else {})
        if "schnell" in kind:
            extra = {name: options for name, options in extra.items() if "--steps" not in options}
        pair = ["generate", "a dog to the left of a cat"]
        listed += [Case(f"profiles-{name}", [*pair, *options], 1) for name, options in extra.items()]
        verified = ["--objective", "for-unified", "--verifier", "emoji-templates", "--images", "1", "--limit", "3"]
        listed.append(Case("profiles-verifier", ["evaluate", "--benchmark", "unseen", *verified], 3))
    return [replace(case, arguments=[*case.arguments, "--model", model, "--seed", "3"]) for case in listed]


def differences(old: Path, new: Path) -> Iterator[str]:
    """Describe the differences between two folders of results, one line each."""
    names = [{str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} for folder in (old, new)]
    for name in sorted(names[0] ^ names[1]):
        yield f"{name} is only in {'OLD' if name in names[0] else 'NEW'}"
    for name in sorted(names[0] & names[1]):
        a, b = old / name, new / name
        if name.endswith(".png"):
            yield from (f"{name}: {line}" for line in pixels(a, b))
        elif name.endswith((".json", ".jsonl")):
            before, after = ([json.loads(line) for line in documents(path)] for path in (a, b))
            if a.name == "config.json" and "steering" not in before[0]:
                after[0].pop("steering", None)
            yield from (f"{name}{line}" for line in unequal(before, after))
        elif a.read_bytes() != b.read_bytes():
            yield f"{name}: other bytes"


def documents(path: Path) -> list[str]:
    """Read the JSON documents of a file: one, or one per line."""
    text = path.read_text(encoding="utf-8")
    return [text] if path.suffix == ".json" else text.splitlines()


def pixels(old: Path, new: Path) -> Iterator[str]:
    """Describe how two images differ: in size, mode, or pixels."""
    with Image.open(old) as a, Image.open(new) as b:
        if (a.size, a.mode) != (b.size, b.mode):
            yield f"{a.size} {a.mode} became {b.size} {b.mode}"
            return
        difference = np.abs(np.asarray(a).astype(int) - np.asarray(b).astype(int))
        if difference.any():
            yield f"{np.count_nonzero(difference)} of {difference.size} values differ, by up to {difference.max()}"


def unequal(old: Any, new: Any, place: str = "") -> Iterator[str]:
    """Describe where two JSON values differ, seconds left out; the order of keys does not count."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            if key.startswith("seconds"):
                continue
            if key not in old or key not in new:
                yield f"{place}.{key} is only in {'OLD' if key in old else 'NEW'}"
            else:
                yield from unequal(old[key], new[key], f"{place}.{key}")
    elif isinstance(old, list) and isinstance(new, list):
        if len(old) != len(new):
            yield f"{place}: {len(old)} entries became {len(new)}"
        for index, (a, b) in enumerate(zip(old, new, strict=False)):
            yield from unequal(a, b, f"{place}[{index}]")
    elif type(old) is not type(new) or old != new:
        yield f"{place}: {old!r} became {new!r}"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--old", type=Path, required=True, help="the checkout to compare with")
    parser.add_argument("--new", type=Path, help="the checkout to check; without it only the results of OLD are made")
    parser.add_argument("--model", action="append", help=f"may be repeated (default: {', '.join(MODELS)})")
    parser.add_argument("--count", type=int, default=24, help="images of each model (default: 24)")
    parser.add_argument("--profiles", action="store_true", help="also other profiles, losses, schedulers, precisions")
    parser.add_argument("--case", action="append", help="only cases whose name starts with this; may be repeated")
    parser.add_argument("--out", type=Path, default=Path("out/compare"), help="where results are kept")
    parser.add_argument("--python-old", default=sys.executable)
    parser.add_argument("--python-new", default=sys.executable)
    parser.add_argument("--threads", type=int, default=1, help="threads of each process (default: 1)")
    return parser.parse_args()


def main() -> int:
    options = arguments()
    sides = [("old", options.old, options.python_old)]
    if options.new:
        sides.append(("new", options.new, options.python_new))
    checkouts = [Checkout(side, folder.resolve(), python, options.threads) for side, folder, python in sides]
    for checkout in checkouts:
        if not (checkout.folder / "src" / "learn_to_steer").is_dir():
            sys.exit(f"{checkout.folder} is not a checkout of Learn-to-Steer: it has no src/learn_to_steer")
    wanted = tuple(options.case or ("",))
    todo = [
        (model, case)
        for model in options.model or MODELS
        for case in cases(model, options.count, options.profiles)
        if case.name.startswith(wanted)
    ]
    failed = 0
    images = 0
    for model, case in todo:
        folders = [options.out.resolve() / model.replace(":", "-") / case.name / one.side for one in checkouts]
        messages = [checkout.run(case, out) for checkout, out in zip(checkouts, folders, strict=True)]
        problems = [message for message in messages if message]
        if not problems and len(folders) == 2:
            problems = list(differences(folders[0] / "result", folders[1] / "result"))
        failed += bool(problems)
        images += case.images
        outcome = "DIFFERS" if problems else "equal  " if options.new else "made   "
        print(f"{outcome}  {model:18}  {case.name} ({case.images})", flush=True)
        for line in problems[:8]:
            print(f"         {line}", flush=True)
        if len(problems) > 8:
            print(f"         and {len(problems) - 8} more", flush=True)
    result = f"{failed} cases differ" if failed else "all equal" if options.new else "made"
    print(f"{len(todo)} cases, {images} images: {result}", flush=True)
    return 1 if failed or not todo else 0


if __name__ == "__main__":
    sys.exit(main())
