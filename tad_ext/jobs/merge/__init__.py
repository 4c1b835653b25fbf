"""`tad merge`."""
