"""The parts of a store in Redis, each by itself."""
