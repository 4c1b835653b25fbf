"""The jobs of the `tad` command, a folder each, all with the same floor plan.

config.py   its settings, without torch: a dataclass whose docstring is what --help says of the command
run.py      the job: a function with the folder's name that takes these settings

A folder that holds both is a command; nothing else has to know of it. What several share stands in common.py.
"""

import functools
import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from inspect import cleandoc  # the name `inspect` is a command's, once that is imported
from typing import Any

from tad_ext.settings import Settings

_GROUPS = ("plot",)  # whose commands are two words: `tad plot trace`


class JobSettings(Settings):
    """Base of a command's settings, which say in class attributes what the overview and --help show."""

    summary: str  # one line
    example: str  # a command that could be run
    shared = False  # several processes may run it together (torchrun): they share the work


@dataclass(frozen=True)
class Job:
    """A command, by its folder."""

    folder: str

    @property
    def name(self) -> str:
        """As it is typed behind `tad`."""
        first, _, rest = self.folder.partition("_")
        return f"{first} {rest}" if first in _GROUPS else self.folder.replace("_", "-")

    @functools.cached_property
    def settings(self) -> type[JobSettings]:
        """The dataclass of its settings."""
        module = importlib.import_module(f"{__name__}.{self.folder}.config")
        return next(
            value
            for value in vars(module).values()
            if isinstance(value, type) and issubclass(value, JobSettings) and value.__module__ == module.__name__
        )

    @property
    def description(self) -> str:
        """What --help says first."""
        return " ".join(cleandoc(str(self.settings.__doc__)).split())

    @property
    def run(self) -> Callable[[Any], Any]:
        """The job itself; imports what it needs."""
        return getattr(importlib.import_module(f"{__name__}.{self.folder}.run"), self.folder)


def jobs() -> dict[str, Job]:
    """All commands, by name."""
    folders = [Job(module.name) for module in pkgutil.iter_modules(__path__) if module.ispkg]
    return {job.name: job for job in folders}
