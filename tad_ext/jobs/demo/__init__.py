"""`tad demo`."""

import os

# torch reads it when it starts its threads. Beside other work on the same two cores, a tiny model's step takes 0.63 s
# instead of 0.14 s if waiting threads spin, and 0.28 s if they sleep; alone, both are as fast.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
