"""How long a test waits."""

PATIENCE = 600.0
"""For whatever has to come, in seconds: so long that only a fault lasts longer, however busy the machine is."""
