"""Settings for the tests of the network."""

import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """The networks are so small that several threads spend more time waiting than computing."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
