"""`tad evaluate`."""
