"""Predictions in an object store: a real S3 endpoint over HTTP, and a proxy that cuts its replies."""
