"""A command `tad job` that a test makes of a function."""

from dataclasses import dataclass
from types import SimpleNamespace

from tad_ext import cli
from tad_ext.jobs import JobSettings, jobs
from tad_ext.settings import setting


@dataclass(frozen=True)
class FakeSettings(JobSettings):
    """Does it."""

    summary = "a job"
    example = "tad job"

    model: str = setting(help="a model")
    steps: int = setting(10, help="how many")


def add_job(monkeypatch, run, settings=FakeSettings):
    """From now on `tad job` calls run(settings)."""
    job = SimpleNamespace(name="job", settings=settings, description="Does it.", run=run)
    monkeypatch.setattr(cli, "jobs", lambda: jobs() | {"job": job})


def replace_run(monkeypatch, name, run):
    """From now on the command of this name calls run(settings)."""
    real = jobs()[name]
    job = SimpleNamespace(name=name, settings=real.settings, description=real.description, run=run)
    monkeypatch.setattr(cli, "jobs", lambda: jobs() | {name: job})
