"""`tad compare`."""
