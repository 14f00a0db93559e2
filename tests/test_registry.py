"""Names of plug-ins, and what is said about a name that is none."""

from __future__ import annotations

import pytest

from learn_to_steer import registry
from learn_to_steer.errors import UnknownNameError


def test_files_are_plug_ins_unless_they_start_with_an_underscore() -> None:
    names = registry.names("benchmarks")
    assert {"geneval", "multi-relation", "unseen"} <= set(names)
    assert names == sorted(names)
    assert not any(name.startswith(("_", "-")) for name in names)


@pytest.mark.parametrize("name", ["multi-relation", "multi_relation", "Multi-Relation"])
def test_hyphen_and_underscore_load_the_same_module(name: str) -> None:
    assert registry.load("benchmarks", name).__name__ == "learn_to_steer.benchmarks.multi_relation"


def test_an_unknown_name_lists_the_choices_and_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown benchmark 'genevall'; did you mean 'geneval'\?.*unseen"):
        registry.load("benchmarks", "genevall")
    with pytest.raises(UnknownNameError) as caught:
        registry.load("benchmarks", "zzz")
    assert "did you mean" not in str(caught.value)
    for trick in ("_protocol", "base", "", ".geneval"):
        with pytest.raises(UnknownNameError):
            registry.load("benchmarks", trick)


@pytest.mark.parametrize("kind", registry.KINDS)
def test_every_plug_in_of_every_kind_can_be_imported(kind: str) -> None:
    assert list(registry.load_all(kind)) == registry.names(kind) != []


def test_an_unknown_kind_is_a_bug_of_the_caller() -> None:
    with pytest.raises(ValueError, match="no kind of plug-in"):
        registry.names("benchmark")


def test_nearest() -> None:
    assert registry.nearest("fixed_pont", ["noise", "fixed-point", "rf"]) == "fixed-point"
    assert registry.nearest("elephant", ["noise", "rf"]) is None
