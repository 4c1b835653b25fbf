"""`tad plot trace`."""
