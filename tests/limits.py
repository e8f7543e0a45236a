"""How long a test waits."""

PATIENCE = 600.0
"""For whatever has to come, in seconds: so long that only a fault lasts longer, however busy the machine is."""
SOON = 60.0
"""For what must not wait for something that never comes: far more than it takes on any machine, and not for ever."""
