"""`tad demo`."""
