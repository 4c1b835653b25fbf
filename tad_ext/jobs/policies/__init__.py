"""`tad policies`."""
