"""Settings for the tests of the network."""

import pytest


@pytest.fixture(scope="session", autouse=True)
def _one_thread(one_thread):
    """For all tests here."""
