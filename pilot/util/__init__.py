"""Leaves: they import nothing of ours but pilot.common and each other."""
