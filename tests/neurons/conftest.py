"""What the tests of neurons share: the backend that a test runs on."""

from collections.abc import Iterator

import pytest

from rmploss.ops import use_backend


@pytest.fixture
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    """The backend that a test runs on: one that is named runs, or raises."""
    with use_backend(request.param):
        yield request.param
