"""The tasks, a file each, and what they are made of."""
