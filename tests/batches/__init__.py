"""Evaluations whose calls go by batches, against an endpoint that has files and batches."""
