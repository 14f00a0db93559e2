"""Which versions of which packages are in use, for records beside results."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def installed_version(package: str) -> str:
    """Return the version of an installed distribution, or "not installed"."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def installed_versions(*packages: str) -> dict[str, str]:
    """Return the versions of several distributions by name; see ``installed_version``."""
    return {package: installed_version(package) for package in packages}
