"""Packages of strangers that bring plug-ins: built and installed without a network, then used from the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

LOSS = '''
"""InfSplign from half as far."""

from learn_to_steer.losses.infsplign import InfSplign


class Halved(InfSplign):
    schedule = InfSplign.schedule | {"step_size": 500.0}


def build(layout):
    return Halved()
'''
BENCHMARK = '''
"""Two prompts about pets."""

from learn_to_steer.benchmarks import compose, runnable

NAMES = ("pets",)


def prompts(name, vocabulary=None):
    return runnable([compose(0, ["dog", "cat"], ["above"]), compose(1, ["cat", "dog"], ["left of"])], vocabulary)
'''
GOOD = {"losses": {"halved": LOSS}, "benchmarks": {"pets": BENCHMARK}}
BROKEN = {
    "losses": {"torn": "import a_library_that_is_not_there"},
    "benchmarks": {"empty": '"""Nothing in it."""', "torn": "raise RuntimeError('written for another version')"},
}
CLASHING = {
    "losses": {"for-spatial": LOSS},
    "benchmarks": {"mine": BENCHMARK.replace('("pets",)', '("ood", "rabbits")')},
}


@pytest.fixture
def install(tmp_path: Path) -> object:
    """``install(name, plugins)``: build the distribution and install it into a folder, which comes back."""

    def installed(name: str, plugins: Mapping[str, Mapping[str, str]]) -> Path:
        project, package = tmp_path / name, name.replace("-", "_")
        lines = [
            '[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"',
            f'[project]\nname = "{name}"\nversion = "2.1"',
        ]
        (project / package).mkdir(parents=True)
        (project / package / "__init__.py").touch()
        for group, files in plugins.items():
            lines.append(f'[project.entry-points."learn_to_steer.{group}"]')
            for plugin, code in files.items():
                module = f"{group}_{plugin.replace('-', '_')}"
                (project / package / f"{module}.py").write_text(code)
                lines.append(f'{plugin} = "{package}.{module}"')
        (project / "pyproject.toml").write_text("\n".join(lines))
        offline = ["--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check", "--quiet"]
        command = [sys.executable, "-m", "pip", "install", *offline, "--target", str(tmp_path / "site"), str(project)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return tmp_path / "site"

    return installed


def run(site: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    return python(site, "import sys; from learn_to_steer.cli import main; sys.exit(main(sys.argv[1:]))", *argv)


def python(site: Path, code: str, *argv: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *argv]
    environment = os.environ | {"PYTHONPATH": str(site)}
    return subprocess.run(command, cwd=site.parent, env=environment, capture_output=True, text=True, check=False)


def refused(done: subprocess.CompletedProcess[str], *words: str) -> bool:
    """Whether it ended with one line of error that holds ``words``."""
    (error,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    return done.returncode == 2 and all(word in error for word in words) and "Traceback" not in done.stderr


def test_a_loss_and_a_benchmark_of_another_package_are_used(install, tmp_path):
    site = install("pets-and-halves", GOOD)
    assert "halved" in run(site, "list", "losses").stdout.splitlines()
    assert "pets" in run(site, "list", "benchmarks").stdout.splitlines()
    options = ["--model", "sd:emoji", "--steps", "2", "--images", "1", "--out", "out"]
    done = run(site, "evaluate", "--benchmark", "pets", "--loss", "halved", *options)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (tmp_path / "out" / "results.jsonl").read_text().splitlines()]
    assert [row["prompt"] for row in rows] == [
        "a photo of a dog above a cat",
        "a photo of a cat to the left of a dog",
    ]
    assert all(row["passes"] for row in rows)


def test_a_broken_plug_in_is_named_and_the_others_work(install):
    site = install("left-behind", BROKEN)
    listed = run(site, "list", "benchmarks")
    assert listed.returncode == 0 and "geneval-position" in listed.stdout.splitlines()
    empty, torn = listed.stderr.splitlines()
    assert empty.startswith("warning: ") and "left-behind 2.1 lacks NAMES, prompts" in empty
    told = ("'torn'", "left-behind 2.1", "RuntimeError: written for another version", "update that package")
    assert torn.startswith("warning: ") and all(word in torn for word in told)
    assert run(site, "export-prompts", "--benchmark", "ood", "--out", "prompts").returncode == 0
    options = ["--benchmark", "ood", "--model", "sd:emoji", "--limit", "1", "--out", "out"]
    loss = run(site, "evaluate", "--objective", "torn", *options)
    assert refused(loss, "loss 'torn'", "left-behind 2.1", "a_library_that_is_not_there")


def test_a_name_that_two_packages_have_is_refused_and_the_others_work(install):
    install("second", {"benchmarks": {"second": BENCHMARK.replace('"pets"', '"rabbits"')}})
    site = install("first", CLASHING)
    export = ("export-prompts", "--out", "prompts", "--benchmark")
    assert refused(run(site, *export, "ood"), "benchmark is called 'ood'", "'mine' of first 2.1", "of learn-to-steer")
    assert refused(run(site, *export, "rabbits"), "'mine' of first 2.1", "'second' of second 2.1")
    assert run(site, *export, "geneval-position").returncode == 0
    clash = python(site, "from learn_to_steer import registry; registry.load('losses', 'for-spatial')")
    assert "PluginError: more than one loss is called 'for-spatial' (learn-to-steer and first 2.1)" in clash.stderr
