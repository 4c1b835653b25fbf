"""`tad collect`."""
