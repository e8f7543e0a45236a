"""Budgets: what is not bought, as the provider saw it."""
