"""Evaluations in parts: shards, pools of workers, other engines."""
