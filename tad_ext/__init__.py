"""tad_ext: masked diffusion language models that decode several tokens per forward.

Temporal-Aware Trajectory Self-Distillation (TAD, arXiv 2605.09536) on compiled kernels. Operators, models, decoding and
metrics are importable from here; the jobs (collect, distill, evaluate, ...) are commands of `tad`, in `tad_ext.jobs`.

Names are loaded on first use, so that `tad --help` waits neither for torch nor for transformers; `__init__.pyi`
lists them.
"""

import lazy_loader

__version__ = "0.1.0"
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
