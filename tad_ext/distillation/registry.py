"""The objectives that `tad distill` can train by."""

from __future__ import annotations

import pkgutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tad_ext.distillation.objective import Objective

# Where the class of each objective is; it is imported when it is asked for.
OBJECTIVES = {
    "tad": "tad_ext.distillation.tad:TADObjective",
}


def objective_class(name: str) -> type[Objective]:
    """The class of an objective; ValueError for an unknown name."""
    if name not in OBJECTIVES:
        raise ValueError(f"objective must be one of {', '.join(OBJECTIVES)}, got {name!r}")
    found: type[Objective] = pkgutil.resolve_name(OBJECTIVES[name])
    return found
