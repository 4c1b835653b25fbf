"""Tests that run programs in the sandbox need a system on which every protection holds."""

import pytest

from tad_ext.data.sandbox.run import protections

_missing = [wall.name for wall in protections() if wall.missing]
needs_every_wall = pytest.mark.skipif(bool(_missing), reason=f"not all protections hold here: no {', '.join(_missing)}")
