"""The settings of `tad policies`."""

from dataclasses import dataclass

from tad_ext.jobs import JobSettings
from tad_ext.settings import setting


@dataclass(frozen=True)
class PoliciesConfig(JobSettings):
    """Lists every unmasking policy, with the text that --policy takes, and the published settings that have a name."""

    summary = "list the unmasking policies and the published settings"
    example = "tad policies"

    json: bool = setting(False, help="print one JSON object instead of tables")
