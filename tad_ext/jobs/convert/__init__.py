"""`tad convert`."""
