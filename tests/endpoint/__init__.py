"""An OpenAI-compatible endpoint that counts what it is asked and answers from a seeded distribution."""

from __future__ import annotations

from .client import Endpoint, EndpointError

__all__ = ["Endpoint", "EndpointError"]
