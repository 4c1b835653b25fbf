"""`tad doctor`."""
