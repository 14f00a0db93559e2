"""Disturb the verbs on a Ray cluster of three nodes; what they leave must equal an undisturbed run in one process.

::

    python tests/chaos/ray_campaign.py --faults 50 --seed 0 --out out/chaos-ray

Every case runs one verb on the small emoji model in a new folder and meets one to three faults: a worker killed
(SIGKILL) while it starts or works, a node removed (another one joins later), the driver killed and started again, a
full disk in the workers (by the hook in ``ray_hooks``), an image that cannot be read. A full disk and a broken image
must end the command with exit code 2 and one line that names what failed and says how to go on; when the cause is
mended, the same command must succeed. The files must equal those of one process, byte by byte but for times, with
nothing left over, and no shard may have been done twice, unless the driver was killed before it knew.

Prints a line a case and a table, writes ``chaos.json`` and ends with exit code 1 if anything is wrong or fewer faults
than asked for were met.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from campaign import content, differences

HERE = Path(__file__).resolve().parent
PATIENCE = 300.0  # seconds for one run
RECORD = "workers.jsonl"
# By verb: its arguments; "IMAGES" stands for a folder of images that is the case's own.
VERBS: dict[str, list[str]] = {
    "evaluate": [
        *("evaluate", "--model", "sd:emoji", "--benchmark", "unseen", "--limit", "4", "--images", "4"),
        *("--batch", "2", "--steps", "2", "--device", "cpu"),
    ],
    "collect": [
        *("collect", "--model", "sd:emoji", "--limit", "128", "--batch", "8", "--levels", "0.9,0.7"),
        *("--reduce", "layer-mean", "--quality", "100", "--device", "cpu"),
    ],
    "score": ["score", "IMAGES", "--detector", "emoji", "--benchmark", "unseen", "--limit", "16"],
}
FAULTS = {
    "evaluate": ("worker", "worker", "node", "driver", "full"),
    "collect": ("worker", "worker", "node", "driver", "full"),
    "score": ("worker", "node", "driver", "poison", "poison"),
}
LETS_GO_ON = ("worker", "node")  # faults after which the command goes on to its end
ENDED = r"^error: .*shards? failed.*run the same command again"


@dataclass
class Case:
    """A verb, the faults that it is to meet, those that it met, and what is wrong."""

    number: int
    verb: str
    faults: list[str]
    met: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    seconds: float = 0.0


class ThreeNodes:
    """The cluster: a head and two nodes, each with room for one worker."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        options = {"num_cpus": 1, "object_store_memory": 100 << 20}
        self._cluster = Cluster(initialize_head=True, head_node_args={**options, "include_dashboard": False})
        self._options = options
        self.nodes = [self._cluster.add_node(**options) for _ in range(2)]
        self.address: str = self._cluster.address

    def remove_node(self) -> None:
        """Kill all processes of one node that is not the head."""
        self._cluster.remove_node(self.nodes.pop(0), allow_graceful=False)

    def mend(self) -> None:
        """Let nodes join until there are three."""
        while len(self.nodes) < 2:
            self.nodes.append(self._cluster.add_node(**self._options))

    def shut_down(self) -> None:
        self._cluster.shutdown()


def workers() -> list[int]:
    """The processes of the workers, whatever they do."""
    found = []
    for folder in Path("/proc").iterdir():
        with suppress(OSError):
            if folder.name.isdigit() and (folder / "cmdline").read_bytes().startswith(b"ray::WorkerProcess"):
                found.append(int(folder.name))
    return found


def done(out: Path) -> int:
    """The number of shards that ended."""
    with suppress(OSError):
        return len((out / RECORD).read_bytes().splitlines())
    return 0


def start(words: Sequence[str], folder: Path) -> subprocess.Popen[bytes]:
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "CHAOS_FULL")}
    script = Path(sys.executable).with_name("learn-to-steer")
    with (folder / "err").open("wb") as err:
        return subprocess.Popen([str(script), *words], cwd=folder, env=environment, stdout=err, stderr=err)


def disturb(fault: str, cluster: ThreeNodes, driver: subprocess.Popen[bytes], out: Path, rng: random.Random) -> bool:
    """Make a fault at a random moment; whether the run met it before its end."""
    after = rng.choice((0, 0, 1, 2))  # shards that are done before
    until = time.monotonic() + PATIENCE
    while driver.poll() is None and time.monotonic() < until:
        alive = workers()
        if (alive or fault in ("driver", "node")) and done(out) >= after:
            break
        time.sleep(0.02)
    time.sleep(rng.uniform(0.0, 1.0 if after else 4.0))
    if driver.poll() is not None:
        return False
    if fault == "driver":
        driver.kill()
    elif fault == "node":
        cluster.remove_node()
    else:
        alive = workers()
        if not alive:
            return False
        with suppress(ProcessLookupError):
            os.kill(rng.choice(alive), signal.SIGKILL)
    return True


def ended(driver: subprocess.Popen[bytes], folder: Path) -> tuple[int, str]:
    """The exit code of a command and the last line that it wrote."""
    try:
        code = driver.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        driver.kill()
        driver.wait()
        return -1000, f"no end after {PATIENCE} s"
    text = (folder / "err").read_text(errors="replace").strip()
    return code, f"traceback: {text[-400:]}" if "Traceback" in text else (text.splitlines() or [""])[-1]


def run_case(case: Case, cluster: ThreeNodes, folder: Path, images: Path, rng: random.Random) -> None:
    """Run a verb with its faults, then without one until it succeeds, and note what is wrong."""
    folder.mkdir(parents=True)
    out, full = folder / "out", Path(os.environ["CHAOS_FULL"] + ".full")
    own_images = folder / "images"
    if case.verb == "score":
        shutil.copytree(images, own_images)
    words = [str(own_images) if word == "IMAGES" else word for word in VERBS[case.verb]]
    words += ["--ray", cluster.address, "--out", str(out)]
    for fault in case.faults:
        if fault in LETS_GO_ON:
            continue
        broken, kept = rng.choice(sorted(own_images.rglob("*.png")) or [out]), b""
        if fault == "full":
            full.touch()
        elif fault == "poison":
            kept = broken.read_bytes()
            broken.write_bytes(kept[: len(kept) // 2])
        driver = start(words, folder)
        met = fault != "driver" or disturb(fault, cluster, driver, out, rng)
        code, last = ended(driver, folder)
        full.unlink(missing_ok=True)
        if kept:
            broken.write_bytes(kept)
        if fault == "driver":
            right = code == (-signal.SIGKILL if met else 0)
        else:
            told = re.search(ENDED, last) is not None and (broken.name if kept else "No space left") in last
            right = told and code == 2
        if not right:
            case.problems.append(f"{fault}: exit code {code}, {last[-400:]}")
        if met:
            case.met.append(fault)
    # The last run goes on to its end, whatever happens to workers and nodes.
    driver = start(words, folder)
    for fault in case.faults:
        if fault in LETS_GO_ON and disturb(fault, cluster, driver, out, rng):
            case.met.append(fault)
            cluster.mend()
    code, last = ended(driver, folder)
    if code != 0:
        case.problems.append(f"the run that goes on: exit code {code}, {last[-400:]}")


def check(case: Case, folder: Path, expected: dict[str, bytes]) -> None:
    """Compare the files of a case with those of one process."""
    found = content(folder / "out")
    lines = [json.loads(line) for line in found.pop(RECORD, b"").splitlines()]
    case.problems += differences(plain(found, folder), expected)
    again = [
        name for name, count in Counter(line["name"] for line in lines if "error" not in line).items() if count > 1
    ]
    if again and "driver" not in case.met:
        case.problems.append(f"done more than once: {', '.join(again)}")


def plain(files: dict[str, bytes], folder: Path) -> dict[str, bytes]:
    """The files without the name of the folder."""
    return {name: data.replace(str(folder).encode(), b"FOLDER") for name, data in files.items()}


def straight(verb: str, folder: Path, images: Path) -> dict[str, bytes]:
    """The files of a run in one process."""
    folder.mkdir(parents=True)
    if verb == "score":
        shutil.copytree(images, folder / "images")
    words = [str(folder / "images") if word == "IMAGES" else word for word in VERBS[verb]]
    code, last = ended(start([*words, "--out", str(folder / "out")], folder), folder)
    if code != 0:
        raise SystemExit(f"{verb} failed in one process: {last}")
    return plain(content(folder / "out"), folder)


def make_images(folder: Path) -> None:
    """Images that are scored: rendered scenes under the numbers of the benchmark's prompts."""
    from PIL import Image

    from learn_to_steer import registry
    from learn_to_steer.evaluation.prompt_selection import PromptSelection
    from learn_to_steer.evaluation.scoring import load_scorer
    from learn_to_steer.sources import SourceRequest

    prompts = PromptSelection("unseen", None, None, 16, 0).select(load_scorer("emoji"))
    scenes = iter(registry.load("sources", "emoji").images(SourceRequest(64, 0, 128)))
    for prompt in prompts:
        for sample in range(4):
            path = folder / f"{prompt.index:05d}" / "samples" / f"{sample:04d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = (next(scenes).pixels().clamp(0, 1) * 255).byte().permute(1, 2, 0)
            Image.fromarray(pixels.numpy()).save(path)


def plans(faults: int, rng: random.Random, first: int) -> Iterator[Case]:
    """Cases with so many faults in all; every kind of fault of every verb comes up."""
    wanted = [(verb, fault) for verb, kinds in FAULTS.items() for fault in kinds]
    rng.shuffle(wanted)
    chosen = [wanted[number % len(wanted)] for number in range(faults)]
    number = first
    while chosen:
        verb = chosen[0][0]
        mine = [one for one in chosen if one[0] == verb][: rng.choice((1, 2, 3))]
        for one in mine:
            chosen.remove(one)
        yield Case(number, verb, [fault for _, fault in mine])
        number += 1


def table(cases: Sequence[Case]) -> str:
    kinds = ("worker", "node", "driver", "full", "poison")
    lines = [f"{'verb':10}{'runs':>6}{'faults':>8}" + "".join(f"{kind:>8}" for kind in kinds) + f"{'wrong':>7}"]
    for verb in dict.fromkeys(case.verb for case in cases):
        mine = [case for case in cases if case.verb == verb]
        met = Counter(fault for case in mine for fault in case.met)
        line = f"{verb:10}{len(mine):6}{sum(met.values()):8}" + "".join(f"{met[kind]:8}" for kind in kinds)
        lines.append(f"{line}{sum(bool(case.problems) for case in mine):7}")
    return "\n".join(lines)


def campaign(options: argparse.Namespace) -> int:
    out = Path(options.out).absolute()
    runs = out / "runs"
    shutil.rmtree(runs, ignore_errors=True)
    runs.mkdir(parents=True)
    began = time.monotonic()
    until = began + 60 * options.minutes
    os.environ |= {"OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0", "HF_HUB_OFFLINE": "1"}
    os.environ |= {"CHAOS_FULL": str(runs / "case"), "PYTHONPATH": str(HERE / "ray_hooks")}
    images = runs / "images"
    make_images(images)
    expected = {verb: straight(verb, runs / f"straight-{verb}", images) for verb in options.verbs}
    print(f"one process: {(time.monotonic() - began) / 60:.1f} min", flush=True)
    cluster, rng, cases, met = ThreeNodes(), random.Random(options.seed), list[Case](), 0
    try:
        while met < options.faults and time.monotonic() < until:
            for case in plans(options.faults - met, rng, len(cases)):
                if case.verb not in options.verbs:
                    continue
                if time.monotonic() > until:
                    break
                folder, started = runs / f"case-{case.number:03d}", time.monotonic()
                run_case(case, cluster, folder, images, rng)
                check(case, folder, expected[case.verb])
                case.seconds = time.monotonic() - started
                cases.append(case)
                met += len(case.met)
                if not case.problems:
                    shutil.rmtree(folder)
                told = ", ".join(case.met) or "no fault before its end"
                verdict = "; ".join(case.problems) or "equal"
                print(f"[{met} faults, {case.seconds:.0f} s] {case.verb}: {told}: {verdict}", flush=True)
    finally:
        cluster.shut_down()
    wrong = sum(bool(case.problems) for case in cases)
    print(table(cases))
    print(f"{met} faults in {len(cases)} runs, {wrong} wrong; {(time.monotonic() - began) / 60:.1f} min")
    facts: dict[str, Any] = {"seed": options.seed, "faults": met, "runs": len(cases), "wrong": wrong}
    (out / "chaos.json").write_text(json.dumps(facts | {"cases": [asdict(case) for case in cases]}, indent=1) + "\n")
    if met < options.faults:
        print(f"fewer than the {options.faults} faults asked for; give it more --minutes", file=sys.stderr)
    return 1 if wrong or met < options.faults else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=42.0, help="no run is begun after so many minutes")
    parser.add_argument("--verbs", nargs="+", choices=VERBS, default=list(VERBS))
    parser.add_argument("--out", default="out/chaos-ray")
    return campaign(parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())
