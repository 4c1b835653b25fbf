"""What a trajectory file says about itself: how its records were made, and what else was decoded beside them.

Kept as JSON in the Parquet file's metadata, under one key, together with the version of the schema.
"""

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any

from tad_ext.settings import Settings

MAX_PART_RECORDS = 256
SCHEMA_VERSION = 2
METADATA_KEY = b"tad_ext.trajectories"


@dataclass(frozen=True)
class TrajectoryMetadata(Settings):
    """How a run decodes and what it keeps. Two of them are the same run if all of this but ``model`` agrees."""

    named_by_class = True

    model: str = field(compare=False)  #: name or path of the model, to read; ``model_revision`` is what identifies it
    model_revision: str  #: its identity as `tad_ext.models.identity` writes it on a line (earlier: a fingerprint)
    tokenizer_hash: str
    task: str
    split: str
    teacher_prompt: (
        str  #: its form, one of ``tad_ext.data.tasks.prompts.TEACHER_PROMPTS``; "own": the task has one of its own
    )
    mask_token_id: int
    gen_length: int
    block_length: int
    policy: str  #: as understood by ``tad_ext.decoding.parse_policy``
    block_add_threshold: float
    decoded_token_threshold: float
    forced_progress: str
    hide_future_blocks: bool
    temperature: float
    top_k: int | None
    top_p: float
    cache: str  #: as understood by ``tad_ext.decoding.caches.parse_cache``
    seed: int
    stop_at_eos: bool
    dtype: str  #: of the model's weights while decoding
    keep: str  #: "correct": trajectories with right answers; "all": of wrong ones, too
    # Files of earlier versions do not name these.
    block_causal: bool = False
    stop_when: str = "revealed"
    policy_fingerprint: str | None = None  #: of a file that the policy has read

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


Key = tuple[str, int]
"""What tells a run's trajectories apart: the problem's id, and which sample of its answers."""


@dataclass(frozen=True)
class Coverage:
    """What a part accounts for beside its records, so that a run that goes on decodes nothing twice."""

    wrong: tuple[Key, ...]  #: decoded, with a wrong answer, and not kept
    digest: str  #: of everything the part was decoded from: shows whether the task still gives the same

    @classmethod
    def from_json(cls, values: Any) -> "Coverage":
        """From parsed JSON; ValueError if it is something else."""
        match values:
            case {"wrong": list(wrong), "digest": str(digest), **more} if not more and all(map(_is_key, wrong)):
                return cls(tuple((id, sample) for id, sample in wrong), digest)
        raise ValueError(f"expected coverage with 'wrong', pairs of id and sample, and 'digest', got {values!r}")


def to_header(metadata: TrajectoryMetadata, coverage: Coverage | None) -> dict[bytes, bytes]:
    """The Parquet metadata of a part."""
    header = {
        "schema_version": SCHEMA_VERSION,
        "run": dataclasses.asdict(metadata),
        "coverage": None if coverage is None else dataclasses.asdict(coverage),
    }
    return {METADATA_KEY: json.dumps(header, allow_nan=False).encode()}


def from_header(header: dict[bytes, bytes] | None) -> tuple[TrajectoryMetadata, Coverage | None]:
    """The inverse of `to_header`. ValueError, TypeError: of a foreign file, of another version or form."""
    text = (header or {}).get(METADATA_KEY)
    if text is None:
        raise ValueError(f"expected a trajectory file, but its metadata have no {METADATA_KEY.decode()!r}")
    values = json.loads(text)
    version = values.get("schema_version") if isinstance(values, dict) else None
    if version != SCHEMA_VERSION:
        raise ValueError(f"expected schema version {SCHEMA_VERSION}, got {version!r}")
    metadata, coverage = metadata_from_json(values.get("run")), values.get("coverage")
    return metadata, None if coverage is None else Coverage.from_json(coverage)


def _is_key(value: Any) -> bool:
    return isinstance(value, list) and [type(part) for part in value] == [str, int]


def metadata_from_json(values: Any) -> TrajectoryMetadata:
    """From parsed JSON, refusing missing, unknown and mistyped fields by name."""
    fields = dataclasses.fields(TrajectoryMetadata)
    names = {item.name for item in fields}
    needed = {item.name for item in fields if item.default is dataclasses.MISSING}
    if not isinstance(values, dict) or not needed <= set(values) <= names:
        raise ValueError(f"expected the metadata fields {sorted(names)}, got {values!r}")
    return TrajectoryMetadata(**values)
