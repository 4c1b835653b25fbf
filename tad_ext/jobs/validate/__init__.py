"""`tad validate`."""
