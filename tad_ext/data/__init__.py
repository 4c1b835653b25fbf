"""Tasks, answer checking and trajectory files."""
