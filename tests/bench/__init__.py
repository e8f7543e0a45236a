"""The benchmarks count right, and tell what got worse; what they measure is no test."""
