"""Tasks, answer checking, a sandbox for programs, trajectory files, and their states as ragged batches."""
