"""Whole decodes of models with random weights, and forwards of one."""
