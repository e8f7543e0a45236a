"""Folders in which other people keep files, too, of whatever kind and name: all of theirs outlives all that we do."""
