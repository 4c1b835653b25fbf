"""Trajectory files: written, read, checked, chosen from, and turned into training states."""
