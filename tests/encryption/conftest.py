"""The server that the tests of shared stores use."""

from tests.stores.conftest import shared_servers

__all__ = ["shared_servers"]
