"""The rules that no linter keeps: sizes, lazy imports, docstrings, safe files, no plug-in known to the library."""

from __future__ import annotations

import ast
import re
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

from learn_to_steer import registry

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "learn_to_steer"
PACKAGES = (PACKAGE, ROOT / "emoji_world" / "src" / "learn_to_steer_emoji")
SOURCES = sorted(path for package in PACKAGES for path in package.rglob("*.py"))
CEILING = 400
MEDIAN = 150
VERBS = ("generate", "collect", "train", "evaluate", "parse", "export-prompts", "list")
HEAVY = ("torch", "diffusers", "transformers")
LIGHT_MODULES = (
    "errors",
    "geometry",
    "vocabulary",
    "storage",
    "prompts",
    "registry",
    "statistics",
    "benchmarks",
    "configs",
)
PLUGIN_FOLDERS = [kind for kind in registry.KINDS if (PACKAGE / kind).is_dir()]
UNSAFE_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
TEXT_SUFFIXES = {"", ".py", ".md", ".toml", ".txt", ".cff", ".yaml", ".yml", ".json", ".jsonl", ".html"}
MACHINE_PATH = re.compile(r"(?<![\w.~}/-])/(root|work|home)/\w")


def line_counts() -> dict[str, int]:
    return {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in SOURCES}


def run_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def repository_texts() -> list[Path]:
    """Text files of the repository; build outputs and downloads lie in folders that are not listed here."""
    folders = ("src", "emoji_world", "tests", "reproduce", "docs", "examples", ".ci")
    inside = (path for folder in folders for path in (ROOT / folder).rglob("*"))
    files = [path for path in (*ROOT.glob("*"), *inside) if path.is_file() and path.suffix in TEXT_SUFFIXES]
    # A worktree's .git is a file that names a folder of this machine.
    return sorted(path for path in files if "__pycache__" not in path.parts and path.name != ".git")


def test_no_file_is_above_the_ceiling() -> None:
    assert {name: lines for name, lines in line_counts().items() if lines > CEILING} == {}


def test_median_file_is_short() -> None:
    assert statistics.median(lines for lines in line_counts().values() if lines) <= MEDIAN


def test_every_file_has_an_idea_for_a_name() -> None:
    assert [path for path in SOURCES if path.stem in ("utils", "util", "helpers", "misc", "common")] == []


def test_public_modules_say_what_they_are() -> None:
    public = [path for path in SOURCES if not path.stem.startswith("_") or path.stem == "__init__"]
    trees = {path: ast.parse(path.read_text()) for path in public}
    assert [str(path) for path, tree in trees.items() if tree.body and not ast.get_docstring(tree)] == []


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(path.parents[1])))
def test_files_are_never_unpickled(path: Path) -> None:
    """A weights file from a stranger must not be able to run code."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            assert not {alias.name.split(".")[0] for alias in node.names} & UNSAFE_MODULES
        elif isinstance(node, ast.ImportFrom):
            assert (node.module or "").split(".")[0] not in UNSAFE_MODULES
        elif isinstance(node, ast.Call):
            arguments = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            assert arguments.get("allow_pickle", "False") == "False"
            if ast.unparse(node.func) == "torch.load":
                assert arguments.get("weights_only") == "True", f"line {node.lineno}"


def test_nothing_names_a_path_of_one_machine() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}"
        for path in repository_texts()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if MACHINE_PATH.search(line)
    ]
    assert found == []


@pytest.mark.parametrize("module", ["", *LIGHT_MODULES])
def test_light_modules_do_not_import_torch(module: str) -> None:
    name = ".".join(["learn_to_steer", module]).rstrip(".")
    code = f"import sys, {name}; print([m for m in {HEAVY!r} if m in sys.modules])"
    assert run_python(code).strip() == "[]"


@pytest.mark.parametrize("verb", ["", *VERBS])
def test_help_is_quick_because_it_does_not_import_torch(verb: str) -> None:
    arguments = ["learn-to-steer", *verb.split(), "--help"]
    output = run_python(
        f"""
import sys
from learn_to_steer.cli import main
sys.argv = {arguments!r}
try:
    code = main()
except SystemExit as stop:
    code = stop.code
print("exit", code or 0, [m for m in {HEAVY!r} if m in sys.modules])
"""
    )
    assert output.rstrip().endswith("exit 0 []")
    assert verb or all(name in output for name in VERBS)


@pytest.mark.parametrize("kind", PLUGIN_FOLDERS)
def test_every_file_of_a_plugin_folder_is_in_the_registry(kind: str) -> None:
    plugins = {path.stem for path in (PACKAGE / kind).glob("*.py") if not path.stem.startswith("_")} - {"base"}
    assert plugins
    assert plugins <= {name.replace("-", "_") for name in registry.names(kind)}
    for name in plugins:
        assert registry.load(kind, name).__name__ == f"learn_to_steer.{kind}.{name}"


def test_listing_plugins_does_not_import_torch() -> None:
    lists = ("objectives", "benchmarks", "detectors", "sources", "inversions", "embedders")
    output = run_python(
        f"""
import sys
from learn_to_steer.cli import main
codes = [main(["list", kind]) for kind in {lists!r}]
print("codes", codes, [m for m in {HEAVY!r} if m in sys.modules])
"""
    )
    assert output.rstrip().endswith(f"codes {[0] * len(lists)} []")
    assert "multi-relation-unseen-3-2" in output and "emoji-templates" in output


def test_the_library_knows_its_default_model_alone_of_the_models_that_other_packages_bring() -> None:
    """Texts that explain things may name an example; code may not."""
    found = []
    for path in PACKAGE.rglob("*.py"):
        tree = ast.parse(path.read_text())
        explained = {
            id(node.value)
            for node in ast.walk(tree)
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        }
        found += [
            (path.name, node.value)
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
            if "emoji" in node.value and id(node) not in explained
        ]
    constants = (registry.DEFAULT_MODEL, registry.DEFAULT_MODEL_PACKAGE, registry.DEFAULT_MODEL_FOLDER)
    assert found == [("registry.py", text) for text in constants]
