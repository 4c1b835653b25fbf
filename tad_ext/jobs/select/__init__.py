"""`tad select`."""
