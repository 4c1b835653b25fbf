"""`tad serve`."""
