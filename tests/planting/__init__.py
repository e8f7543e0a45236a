"""Secrets that are planted wherever one may come in, and looked for in everything that is written."""
