"""The settings of `tad doctor`."""

from dataclasses import dataclass

from tad_ext.jobs import JobSettings
from tad_ext.settings import setting


@dataclass(frozen=True)
class DoctorConfig(JobSettings):
    """Shows the versions of everything tad_ext stands on, which kernels are compiled (and why others are not), the
    CPU's instruction set and threads, the GPUs, what protects this machine from programs that models write, and what is
    missing for which command. Start here when something is slow or fails. Exit code 1 if tad_ext cannot work at all.
    """

    summary = "show what is installed, compiled and usable on this machine"
    example = "tad doctor"

    json: bool = setting(False, help="print one JSON object instead of tables, for bug reports")
