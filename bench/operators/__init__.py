"""Every operator beside those who do the same work: PyTorch as one would write it, compiled, and other projects."""
