"""`tad distill`."""
