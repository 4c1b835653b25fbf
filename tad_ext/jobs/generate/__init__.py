"""`tad generate`."""
