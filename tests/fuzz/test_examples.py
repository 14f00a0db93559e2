"""The fuzz tests run as many examples as CONTRIBUTING.md says."""

from __future__ import annotations

import pytest
from hypothesis import is_hypothesis_test, settings

LEAST = {"quick": 1_000, "thorough": 10_000}


def test_the_number_of_examples(request: pytest.FixtureRequest) -> None:
    """What a test claims is what it runs, as ``conftest.py`` checks."""
    tests = [item for item in request.session.items if is_hypothesis_test(getattr(item, "obj", None))]
    if len({item.path for item in tests}) < 4:
        pytest.skip("only a part of the fuzz tests was collected")
    total = sum(item.obj._hypothesis_internal_use_settings.max_examples for item in tests)
    assert total >= LEAST["thorough" if settings().max_examples > 100 else "quick"], total
