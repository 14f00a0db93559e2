"""Imports code from a clone with some of its values replaced in memory; used by authors_code.py.

A patch names file, function and value. Every line that was patched is listed. The clone itself is only read.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from importlib.util import find_spec
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from learn_to_steer.errors import DataError

COMMIT = "a2ae427"  # of the clone that this was written for
MODULES = ("run", "utils", "prompt_parsing_utils", "pipelines", "train_relation_classifier")
UNUSED = ("lightning", "cv2")  # packages that they import, but that drawing an image never uses


@dataclass(frozen=True)
class Patch:
    """A value in the authors' code that is replaced.

    Attributes:
        file: The file.
        scope: The function, "Class.method" for a method.
        old: The expression that is replaced, everywhere in the function.
        new: The expression that takes its place.
        why: What it is.
        key: Only where it is the value of this key in a dictionary; None: wherever it is.
    """

    file: str
    scope: str
    old: str
    new: str
    why: str
    key: str | None = None


@dataclass(frozen=True)
class PatchedLine:
    """A line of the authors' code as it ran: what was replaced there, by what, and why."""

    file: str
    line: int
    old: str
    new: str
    why: str


@dataclass
class _Replacer(ast.NodeTransformer):
    """Applies patches to the syntax tree of one file."""

    file: str
    patches: Sequence[Patch]
    absent: Sequence[str]
    done: list[PatchedLine]
    scope: list[str] = field(default_factory=list)

    def visit(self, node: ast.AST) -> Any:
        named = isinstance(node, ast.FunctionDef | ast.ClassDef)
        if named:
            self.scope.append(node.name)  # type: ignore[attr-defined]
        result = self._replace(node)
        if named:
            self.scope.pop()
        return result

    def _replace(self, node: ast.AST) -> ast.AST:
        if isinstance(node, ast.Import | ast.ImportFrom):
            return self._without_absent(node)
        if isinstance(node, ast.Dict):
            for position, (key, value) in enumerate(zip(node.keys, node.values, strict=True)):
                if isinstance(key, ast.Constant):
                    node.values[position] = self._replaced(value, key.value)
        elif isinstance(node, ast.expr) and (new := self._replaced(node, None)) is not node:
            return new
        return self.generic_visit(node)

    def _replaced(self, node: ast.expr, key: Any) -> ast.expr:
        here = [patch for patch in self.patches if patch.scope == ".".join(self.scope) and patch.key == key]
        patch = next((one for one in here if one.old == ast.unparse(node)), None)
        if patch is None:
            return node
        self.done.append(PatchedLine(self.file, node.lineno, patch.old, patch.new, patch.why))
        return ast.copy_location(ast.parse(patch.new, mode="eval").body, node)

    def _without_absent(self, node: ast.Import | ast.ImportFrom) -> ast.stmt:
        """None in the place of what is imported from a package that is not installed."""
        module = node.module if isinstance(node, ast.ImportFrom) else node.names[0].name
        if module not in self.absent:
            return node
        names = [alias.asname or alias.name for alias in node.names]
        why = "not installed, and not used here"
        self.done.append(PatchedLine(self.file, node.lineno, f"import of {module}", "None", why))
        targets: list[ast.expr] = [ast.Name(name, ast.Store()) for name in names]
        return ast.fix_missing_locations(ast.copy_location(ast.Assign(targets, ast.Constant(None)), node))


class _Loader(SourceFileLoader):
    """Compiles one file of the clone with its patches. Neither reads nor writes bytecode in the clone."""

    def __init__(self, spec: ModuleSpec, finder: _Finder) -> None:
        super().__init__(spec.name, str(spec.origin))
        self.finder = finder

    def get_code(self, fullname: str) -> CodeType:
        file = Path(self.path).relative_to(self.finder.clone).as_posix()
        patches = [patch for patch in self.finder.patches if patch.file == file]
        tree = ast.parse(self.get_data(self.path), self.path)
        tree = ast.fix_missing_locations(_Replacer(file, patches, self.finder.absent, self.finder.done).visit(tree))
        return compile(tree, self.path, "exec", dont_inherit=True)


@dataclass
class _Finder:
    """Finds the authors' modules in the clone."""

    clone: Path
    patches: Sequence[Patch]
    absent: Sequence[str]
    done: list[PatchedLine] = field(default_factory=list)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname.partition(".")[0] not in MODULES:
            return None
        spec = PathFinder.find_spec(fullname, [str(self.clone)] if path is None else path)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _Loader(spec, self)
        return spec


@contextmanager
def patched_modules(clone: Path, patches: Sequence[Patch]) -> Iterator[list[PatchedLine]]:
    """Make the authors' modules importable inside the context, with patches.

    Args:
        clone: The folder of their repository.
        patches: What is replaced.

    Yields:
        The lines that were patched so far; grows with every import.
    """
    finder = _Finder(clone.resolve(), patches, [name for name in UNUSED if find_spec(name) is None])
    sys.meta_path.insert(0, finder)
    try:
        yield finder.done
    finally:
        sys.meta_path.remove(finder)
        for name in [name for name in sys.modules if name.partition(".")[0] in MODULES]:
            del sys.modules[name]


def require_applied(clone: Path, patches: Sequence[Patch], patched: Sequence[PatchedLine]) -> None:
    """Require that every patch found what it replaces.

    Raises:
        DataError: One did not: the clone has another version of the code.
    """
    done = {(line.file, line.old, line.new, line.why) for line in patched}
    for one in patches:
        if (one.file, one.old, one.new, one.why) not in done:
            raise DataError(f"{one.file} of {clone} has no {one.old} in {one.scope}; {version_note(clone)}")


def version_note(clone: Path) -> str:
    """Return what to do if a clone does not fit: which commit the patches are for, and at which it is."""
    return (
        f"check out commit {COMMIT} of sapir1779/learn-to-steer, for which the patches are made; the clone is at "
        f"{commit_of(clone)}"
    )


def commit_of(clone: Path) -> str:
    """Return the commit of a clone, shortened; "unknown" if it is no git repository."""
    command = ["git", "--git-dir", str(clone / ".git"), "rev-parse", "--short=7", "HEAD"]
    try:
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:  # git is not installed
        return "unknown"
    return ended.stdout.strip() if ended.returncode == 0 else "unknown"
