"""The comparisons of the TAD paper (arXiv 2605.09536) in miniature: see `__main__`."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # as the demo: waiting threads sleep
