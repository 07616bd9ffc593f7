"""Installed versions of packages; missing ones are reported and never raise."""

from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version

NOT_INSTALLED = "not installed"


def installed_version(package: str) -> str:
    """Returns the version of an installed distribution, or ``"not installed"``.

    A checkout that is run without being installed, as by ``ray job submit --working-dir .``, has
    no version of its own.

    >>> installed_version("no-such-package")
    'not installed'
    """
    try:
        # Incomplete metadata has no version: None up to Python 3.11, a KeyError after it.
        return version(package) or NOT_INSTALLED
    except (PackageNotFoundError, KeyError):
        return NOT_INSTALLED


def installed_versions(packages: Iterable[str]) -> dict[str, str]:
    """Returns the version of each package, in the given order."""
    return {package: installed_version(package) for package in packages}
