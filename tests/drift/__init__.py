"""A provider that changes behind an unchanged name."""
