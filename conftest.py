"""Lets tests run from the repository's folder after a plain `pip install .`.

`python -m` and `python -c` put this folder first on the import path, where the source tree, without a compiled module
unless it was installed with `pip install -e .`, would hide the installed package.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

_ROOT = Path(__file__).parent
if not list((_ROOT / "tad_ext").glob("_C*.so")):
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != _ROOT]
    os.environ["PYTHONSAFEPATH"] = "1"  # the same for Python processes that tests start
