"""Where a response states its answer, and when two answers are the same."""
