"""Rate limits, measured by what arrives at the provider and when."""
