"""`tad window`."""
