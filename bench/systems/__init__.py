"""All presets, and DMax's and d-OPSD's training, on the embedded task."""
