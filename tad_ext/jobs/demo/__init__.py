"""`tad demo`."""

import os

# Read when torch starts its threads. Those that spin while they wait for each other take a tiny model's steps from
# 0.14 s to 0.63 s where something else runs on the same two cores; those that sleep to 0.28 s, and alone are as fast.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
