"""TAD's ablations (arXiv 2605.09536): one kind of learning, at all entries or at the near ones alone.

Each is TAD with some of its numbers fixed, which its settings say.
"""

from typing import ClassVar

from tad_ext.distillation.settings import CEAllSettings, CENearSettings, KLAllSettings
from tad_ext.distillation.tad import TADObjective


class CEAllObjective(TADObjective):
    """Cross-entropy of the trajectory's token at every entry."""

    Settings = CEAllSettings
    parts: ClassVar[dict[str, str]] = {"ce": "CE of all entries, nats"}


class KLAllObjective(TADObjective):
    """KL divergence from the teacher at every entry."""

    Settings = KLAllSettings
    parts: ClassVar[dict[str, str]] = {"kl": "KL of all entries, nats x temperature^2"}


class CENearObjective(TADObjective):
    """Cross-entropy at near entries; nothing is learnt at distant ones."""

    Settings = CENearSettings
    parts: ClassVar[dict[str, str]] = {"ce": TADObjective.parts["ce"]}
