"""Tests of stored answers that are streamed."""
