"""`tad inspect`."""
