"""tad_ext."""
