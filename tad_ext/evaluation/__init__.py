"""How well and how fast a model answers: accuracy, tokens per forward and AUP over a sweep, and the curves of both."""

import lazy_loader

# Names are loaded on first use, as __init__.pyi lists them.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
