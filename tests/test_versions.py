"""Versions of installed packages."""

from importlib.metadata import version

from learn_to_steer.versions import installed_version, installed_versions


def test_versions_of_installed_packages_and_of_others():
    assert installed_versions("torch", "no-such-package") == {
        "torch": version("torch"),
        "no-such-package": "not installed",
    }
    assert installed_version("torch") == version("torch")
