"""`tad train-filter`."""
