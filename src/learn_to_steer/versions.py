"""The versions of installed packages, to be recorded with results."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def installed_version(package: str) -> str:
    """Return the version of a package, or "not installed".

    Args:
        package: Its name on PyPI.
    """
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def installed_versions(*packages: str) -> dict[str, str]:
    """Return the versions of several packages by name, as ``installed_version`` does."""
    return {package: installed_version(package) for package in packages}
