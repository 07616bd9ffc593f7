"""Installed versions of packages; a package that is not installed is reported, never an error."""

from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version

NOT_INSTALLED = "not installed"


def installed_version(package: str) -> str:
    """A distribution's version, or ``"not installed"``.

    >>> installed_version("no-such-package")
    'not installed'
    """
    try:
        return version(package)
    except PackageNotFoundError:  # a checkout whose dependencies are installed, but which is not
        return NOT_INSTALLED


def installed_versions(packages: Iterable[str]) -> dict[str, str]:
    """The version of each package, in the given order."""
    return {package: installed_version(package) for package in packages}
