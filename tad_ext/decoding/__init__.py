"""Decoding: prompts and a masked diffusion model in, responses and the forward that revealed each token out."""

import lazy_loader

# Names are loaded on first use, as __init__.pyi lists them: settings are read without torch.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
