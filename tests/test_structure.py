"""Rules for the source tree that no linter checks.

Sizes and names of modules, what is private, lazy imports, docstrings and their words, safe reading of files, and that
the library knows no plug-in package.
"""

from __future__ import annotations

import ast
import inspect
import re
import statistics
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from learn_to_steer import registry

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "learn_to_steer"
PACKAGES = (PACKAGE, ROOT / "emoji_world" / "src" / "learn_to_steer_emoji")
SOURCES = sorted(path for package in PACKAGES for path in package.rglob("*.py"))
# Everything that is not a test.
CODE = sorted(path for top in ("src", "emoji_world", "reproduce", "examples") for path in (ROOT / top).rglob("*.py"))
OWN = {"learn_to_steer", "learn_to_steer_emoji"} | {path.stem for path in CODE}  # top-level names of this repository
CEILING = 400
MEDIAN = 150
VERBS = ("generate", "fit", "collect", "train", "evaluate", "parse", "export-prompts", "list")
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


def test_no_module_has_a_name_that_says_nothing() -> None:
    assert [path for path in SOURCES if path.stem in ("utils", "util", "helpers", "misc", "common")] == []


def module_parts(path: Path) -> list[str]:
    """The names of a module and of the packages around it."""
    root = next((root.parent for root in PACKAGES if path.is_relative_to(root)), path.parent)
    parts = path.relative_to(root).with_suffix("").parts
    return [part for part in parts if part != "__init__"]


def imported_names(path: Path) -> Iterator[list[str]]:
    """The dotted names that a file imports, split at the dots."""
    package = module_parts(path) if path.name == "__init__.py" else module_parts(path)[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base = [*base, *(node.module.split(".") if node.module else [])]
            yield from ([*base, alias.name] for alias in node.names)


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def test_nothing_private_is_imported_from_outside_its_package() -> None:
    offenders = [
        f"{path.relative_to(ROOT)}: {'.'.join(name)}"
        for path in CODE
        for name in imported_names(path)
        if name[0] in OWN
        for depth, part in enumerate(name)
        if is_private(part) and module_parts(path)[:depth] != name[:depth]
    ]
    assert offenders == []


def test_nothing_private_of_an_imported_module_is_used() -> None:
    offenders = []
    for path in CODE:
        own = [".".join(name) for name in imported_names(path) if name[0].startswith("learn_to_steer")]
        modules = {name.rsplit(".", 1)[-1] for name in own}
        offenders += [
            f"{path.relative_to(ROOT)}: {ast.unparse(node)}"
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Attribute) and is_private(node.attr)
            if isinstance(node.value, ast.Name) and node.value.id in modules
        ]
    assert offenders == []


def test_no_module_has_the_name_of_what_it_holds() -> None:
    """Otherwise a package that exports the function hides the module."""
    offenders = [
        str(path.relative_to(ROOT))
        for path in CODE
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name in (path.stem, path.stem.lstrip("_"))
    ]
    assert offenders == []


def test_no_package_hides_its_modules() -> None:
    offenders = []
    for path in SOURCES:
        if path.name != "__init__.py":
            continue
        modules = {other.stem for other in path.parent.glob("*.py")} | {other.name for other in path.parent.iterdir()}
        package = import_module(".".join(module_parts(path)))
        offenders += [
            f"{package.__name__}.{name}"
            for name in getattr(package, "__all__", ())
            if name in modules and not inspect.ismodule(getattr(package, name))
        ]
    assert offenders == []


def public_modules() -> list[Path]:
    paths = PACKAGE.rglob("*.py")
    return sorted(path for path in paths if not any(is_private(part) for part in module_parts(path)))


def public_definitions() -> Iterator[tuple[str, Any, list[str]]]:
    """Name, object and docstrings of every public class, function and method of the library.

    A method may have a second docstring in a class that its own derives from, and what a plug-in offers has one in the
    protocol in ``base`` of its package. Either need not be repeated.
    """
    for path in public_modules():
        module = import_module(".".join(module_parts(path)))
        base = import_module(f"{module.__package__}.base") if (path.parent / "base.py").exists() else None
        protocols = [value for value in vars(base).values() if is_defined_in(base, value)] if base else []
        for name, value in vars(module).items():
            if name.startswith("_") or not is_defined_in(module, value):
                continue
            yield f"{module.__name__}.{name}", value, docstrings(value, *(vars(one).get(name) for one in protocols))
            for member, method in vars(value).items() if inspect.isclass(value) else ():
                is_method = inspect.isfunction(method) or isinstance(method, classmethod | staticmethod | property)
                if is_method and not member.startswith("_"):
                    others = (getattr(owner, member, None) for owner in (*value.__mro__[1:], *protocols))
                    yield f"{module.__name__}.{name}.{member}", method, docstrings(method, *others)


def is_defined_in(module: Any, value: Any) -> bool:
    return (inspect.isclass(value) or inspect.isfunction(value)) and value.__module__ == module.__name__


def docstrings(*values: Any) -> list[str]:
    return [inspect.cleandoc(value.__doc__) for value in values if getattr(value, "__doc__", None)]


def arguments(value: Any) -> list[str]:
    """The names of the arguments of a function or method without ``self`` and ``cls``."""
    if inspect.isclass(value) or isinstance(value, property):
        return []
    plain = value.__func__ if isinstance(value, classmethod | staticmethod) else value
    return [name for name in inspect.signature(plain).parameters if name not in ("self", "cls")]


def docstring_of(path: Path) -> str | None:
    return ast.get_docstring(ast.parse(path.read_text()))


def test_public_things_have_a_docstring() -> None:
    bare = [str(path.relative_to(ROOT)) for path in public_modules() if path.read_text() and not docstring_of(path)]
    assert bare + [name for name, _, texts in public_definitions() if not texts] == []


def test_docstrings_of_several_lines_explain_their_arguments() -> None:
    """A single argument may be explained by the text. Verbs of the command line explain theirs in ``--help``."""
    offenders = [
        name
        for name, value, texts in public_definitions()
        if len(arguments(value)) > 1 and not name.startswith("learn_to_steer.cli.")
        if "\n" in texts[0] and not any(re.search(r"^Args:$", text, re.MULTILINE) for text in texts)
    ]
    assert offenders == []


def test_docstrings_explain_all_arguments_or_none() -> None:
    offenders = []
    for name, value, texts in public_definitions():
        section = re.search(r"^Args:\n((?:    .*\n?|\n)+)", texts[0], re.MULTILINE)
        if section and not inspect.isclass(value) and value.__doc__:
            explained = re.findall(r"^    \*{0,2}(\w+):", section[1], re.MULTILINE)
            offenders += [name] if explained != arguments(value) else []
    assert offenders == []


# What a reader who knows the field but not this project would stumble over, and the words of a diary.
STRANGE = re.compile(
    r"official_implementation|\b(house|tower|twins?|likeness|refiners?|today|nowadays|yesterday|this time|"
    r"session|issue [A-Z]|first edition|edition 1)\b",
    re.IGNORECASE,
)


def test_docstrings_use_the_words_of_the_field() -> None:
    texts = [(str(path.relative_to(ROOT)), docstring) for path in SOURCES for docstring in all_docstrings(path)]
    assert [(name, found[0]) for name, text in texts if (found := STRANGE.search(text))] == []


def all_docstrings(path: Path) -> list[str]:
    """The docstrings of a file, private ones and those below fields too."""
    return [
        node.value.value
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    ]


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
    plugins = {path.stem for path in (PACKAGE / kind).glob("*.py") if not path.stem.startswith("_")}
    plugins -= set(registry.NOT_PLUGINS)
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


def calls(path: Path) -> set[str]:
    return {ast.unparse(node.func) for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)}


def test_image_files_are_opened_in_one_place() -> None:
    """A packaged sheet of sprites is no foreign file."""
    opening = {path.name for path in SOURCES if calls(path) & {"Image.open", "ImageOps.exif_transpose"}}
    assert opening == {"image_files.py", "sprites.py"}


def test_verbs_print_through_a_function_that_escapes() -> None:
    printing = {path.name for path in (PACKAGE / "cli").glob("*.py") if "print" in calls(path)}
    assert printing == {"__init__.py", "application.py", "console.py"}  # of these, the first prints a fixed line
