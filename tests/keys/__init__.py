"""Which calls share a key: what the provider receives decides, and nothing else."""
