"""What a trajectory file says about itself: how the records of its folder were made, and which problems it covers.

Kept as JSON in the Parquet file's metadata, under one key, together with the version of the schema.
"""

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any, TypeVar

from tad_ext.settings import Settings

MAX_PART_RECORDS = 256
SCHEMA_VERSION = 1
T = TypeVar("T")
METADATA_KEY = b"tad_ext.trajectories"


@dataclass(frozen=True)
class TrajectoryMetadata(Settings):
    """What all parts of a folder have in common. Two runs may share it only if all of this but ``model`` agrees."""

    named_by_class = True

    model: str = field(compare=False)  #: name or path of the model, to read; ``model_revision`` is what identifies it
    model_revision: str  #: its identity as `tad_ext.models.identity` writes it on a line (earlier: a fingerprint)
    tokenizer_hash: str
    task: str
    split: str
    mask_token_id: int
    gen_length: int
    block_length: int
    policy: str  #: as understood by ``tad_ext.decoding.parse_policy``
    temperature: float
    seed: int
    stop_at_eos: bool
    dtype: str  #: of the model's weights while decoding

    def differences(self, other: "TrajectoryMetadata") -> list[tuple[str, Any, Any]]:
        """(field, own value, the other's) of all that must agree and do not; of the model, its settings and files."""
        found: list[tuple[str, Any, Any]] = []
        for name in (item.name for item in dataclasses.fields(self) if item.compare):
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine == theirs:
                continue
            parts: list[tuple[str, Any, Any]] = []
            if name == "model_revision" and mine[:1] == theirs[:1] == "{":  # earlier versions wrote a fingerprint
                # Here, because the models' libraries take seconds to import.
                from tad_ext.models.identity import identity_differences

                parts = [(f"model's {key}", now, noted) for key, noted, now in identity_differences(theirs, mine)]
            found += parts or [(name, mine, theirs)]
        return found


@dataclass(frozen=True)
class ProblemRange(Settings):
    """Which problems a part accounts for, also those that gave no record because the answer was wrong."""

    start: int  #: index of the first problem in the task's list
    stop: int  #: index after the last
    right: int
    wrong: int
    digest: str  #: of the problems' ids and prompts: shows whether the task still gives the same ones

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.start, self.count - 1, self.right, self.wrong) < 0 or self.right + self.wrong != self.count:
            raise ValueError(f"expected 0 <= start < stop and right + wrong == stop - start, got {self}")

    @property
    def count(self) -> int:
        """Problems covered."""
        return self.stop - self.start


def to_header(metadata: TrajectoryMetadata, problems: ProblemRange | None) -> dict[bytes, bytes]:
    """The Parquet metadata of a part."""
    header = {
        "schema_version": SCHEMA_VERSION,
        "run": dataclasses.asdict(metadata),
        "problems": None if problems is None else dataclasses.asdict(problems),
    }
    return {METADATA_KEY: json.dumps(header, allow_nan=False).encode()}


def from_header(header: dict[bytes, bytes] | None) -> tuple[TrajectoryMetadata, ProblemRange | None]:
    """The inverse of `to_header`. ValueError, TypeError: of a foreign file, of another version or form."""
    text = (header or {}).get(METADATA_KEY)
    if text is None:
        raise ValueError(f"expected a trajectory file, but its metadata have no {METADATA_KEY.decode()!r}")
    values = json.loads(text)
    version = values.get("schema_version") if isinstance(values, dict) else None
    if version != SCHEMA_VERSION:
        raise ValueError(f"expected schema version {SCHEMA_VERSION}, got {version!r}")
    metadata, problems = _from_json(TrajectoryMetadata, values.get("run")), values.get("problems")
    return metadata, None if problems is None else _from_json(ProblemRange, problems)


def _from_json(kind: type[T], values: Any) -> T:
    """A dataclass from parsed JSON, refusing missing, unknown and mistyped fields by name."""
    names = [item.name for item in dataclasses.fields(kind)]  # type: ignore[arg-type]
    if not isinstance(values, dict) or set(values) != set(names):
        raise ValueError(f"expected the metadata fields {sorted(names)}, got {values!r}")
    return kind(**values)
