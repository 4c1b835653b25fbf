"""Distillation: near entries learn the trajectory's tokens, distant ones the teacher's distribution."""

import lazy_loader

# Names are loaded on first use, as __init__.pyi lists them.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
