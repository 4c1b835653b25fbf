"""`tad lm-eval`."""
