"""One command for a machine with an H200."""
