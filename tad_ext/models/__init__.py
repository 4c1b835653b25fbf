"""Masked diffusion language models."""
