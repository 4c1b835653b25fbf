"""Tasks, answer checking, trajectory files, and their states as ragged batches."""
