"""Lets tests run from the repository's folder after a plain `pip install .`.

`python -m` and `python -c` put this folder first on the import path, where the source tree, without a compiled module
unless it was installed with `pip install -e .`, would hide the installed package.
"""

import os

import bench  # takes the folder off the import path, while it can be found there itself

if not bench.TREE_IS_COMPILED:
    os.environ["PYTHONSAFEPATH"] = "1"  # the same for Python processes that tests start
