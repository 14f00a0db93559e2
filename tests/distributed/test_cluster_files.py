"""The files in examples/cluster: their syntax, and that the command line understands what they run."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from learn_to_steer.cli import main
from learn_to_steer.fitting import fit_model

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "cluster"


def commands() -> dict[str, list[str]]:
    """The command that each file runs."""
    script = (FOLDER / "slurm.sh").read_text().replace("\\\n", " ").replace('"$address"', "10.0.0.1:6379")
    found = re.search(r"-- +(learn-to-steer .*)", script)
    job = yaml.safe_load((FOLDER / "rayjob.yaml").read_text())
    return {"slurm": shlex.split(found[1] if found else ""), "rayjob": shlex.split(job["spec"]["entrypoint"])}


@pytest.mark.parametrize("name", ["slurm", "rayjob"])
def test_commands_are_understood(name: str, monkeypatch: pytest.MonkeyPatch, stand_in: Any) -> None:
    configs = []
    monkeypatch.setattr("learn_to_steer.cli.fitting.check_options", lambda *options: True)
    monkeypatch.setattr(fit_model, "fit", configs.append)
    with pytest.raises(TypeError):  # nothing to report
        main(commands()[name][1:])
    assert configs[0].limit == 24_000 and configs[0].ray in ("auto", "10.0.0.1:6379")


def test_slurm_script_is_bash() -> None:
    subprocess.run(["bash", "-n", str(FOLDER / "slurm.sh")], check=True)


def test_every_container_of_the_job_sees_the_shared_folder() -> None:
    cluster = yaml.safe_load((FOLDER / "rayjob.yaml").read_text())["spec"]["rayClusterSpec"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        spec = group["template"]["spec"]
        mounted = {mount["name"] for container in spec["containers"] for mount in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in spec["volumes"]} == {"shared"}
