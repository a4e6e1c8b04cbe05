"""What all tests share: a lab on each of the two networks."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from labserver import Lab
from labserver.network import Network
from labserver.network.inline import InlineNetwork
from labserver.network.loopback import LoopbackNetwork


@pytest.fixture(params=["loopback", "inline"])
def network(request: pytest.FixtureRequest) -> Iterator[Network]:
    """Each of the two networks in turn."""
    made = LoopbackNetwork() if request.param == "loopback" else InlineNetwork()
    yield made
    made.close()


@pytest.fixture
def lab(network: Network) -> Iterator[Lab]:
    """A lab with its default accounts, on each of the two networks in turn."""
    with Lab(network=network) as made:
        yield made
