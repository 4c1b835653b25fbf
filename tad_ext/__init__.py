"""tad_ext: masked diffusion language models that decode several tokens per forward.

Temporal-Aware Trajectory Self-Distillation (TAD, arXiv 2605.09536) on compiled kernels. Operators, models, decoding and
metrics are importable from here; the jobs (collect, distill, evaluate, ...) are commands of `tad`, in `tad_ext.jobs`.

`__init__.pyi` lists the names, which are loaded on first use: `tad --help` waits neither for torch nor transformers.
"""

# Nothing is imported here: until `tad` runs its first line, Ctrl-C gives a traceback.
__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    import lazy_loader

    globals()["__getattr__"], _, _ = lazy_loader.attach_stub(__name__, __file__)
    return globals()["__getattr__"](name)


def __dir__() -> list[str]:
    import lazy_loader

    return [*lazy_loader.attach_stub(__name__, __file__)[2], "__version__"]
