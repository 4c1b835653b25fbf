"""The settings of `tad compare`."""

from dataclasses import dataclass
from typing import Annotated, Literal

from tad_ext.decoding.config import Text
from tad_ext.evaluation.settings import BOOTSTRAP_SAMPLES, BootstrapSamples
from tad_ext.jobs import JobSettings
from tad_ext.settings import Between, PathText, Positive, Seed, setting


@dataclass(frozen=True, kw_only=True)
class CompareConfig(JobSettings):
    """Sets evaluations of the same problems beside each other, and published curves beside them: AUP of all under one
    y_max and best accuracies at some speeds, with intervals; differences to the first evaluation, paired over problems;
    McNemar's exact test of each decoding run that two evaluations share. Writes comparison.json, comparison.md,
    comparison.png and curves.yaml, all curves in the form of the AUP leaderboard.
    """

    summary = "compare evaluations, and published numbers, with significance"
    example = "tad compare --evaluations runs/base-evaluation runs/evaluation --output runs/comparison"

    evaluations: tuple[PathText, ...] = setting(
        help="folders of tad evaluate; the others are compared with the first curve of the first one"
    )
    output: PathText = setting(help="folder for comparison.json, comparison.md, comparison.png and curves.yaml")
    names: tuple[Text, ...] | None = setting(
        None,
        help="what the evaluations are called; none: by their models, or by their folders where two are of one name",
    )
    published: tuple[PathText, ...] = setting(
        (), help="YAML files of published curves, task -> method -> [[tokens per forward, accuracy in percent]]"
    )
    published_task: Text | None = setting(
        None, help="name of the task in these files; none: the evaluations', or the only one that there is"
    )
    count: Literal["own", "published"] | None = setting(
        None, help="tokens per forward, own or published (text tokens / all forwards); none: as they were evaluated"
    )
    best_accuracy: Annotated[float, Between(above=0, at_most=100)] | None = setting(
        None, help="y_max of AUP, in percent; none: the best of all points that are compared"
    )
    speeds: tuple[Positive, ...] = setting(
        (2.0, 3.0, 4.0), help="tokens per forward at which, or above, best accuracies are compared"
    )
    bootstrap_samples: BootstrapSamples = setting(
        BOOTSTRAP_SAMPLES, help="resamples of the problems that the 95 % intervals are made of"
    )
    seed: Seed = setting(0, help="of the resamples")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.evaluations:
            raise ValueError("evaluations must name at least one folder, got an empty list")
        if self.names is not None and len(self.names) != len(self.evaluations):
            raise ValueError(
                f"names has {len(self.names)} names for {len(self.evaluations)} evaluations; expected as many"
            )
        for name in ("names", "speeds"):
            values = getattr(self, name) or ()
            if len(set(values)) < len(values):
                raise ValueError(f"{name} is {list(values)}; expected different ones")
