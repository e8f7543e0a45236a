"""Tools of agents under the phase."""
