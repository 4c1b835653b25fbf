"""bench.systems: its tables are what the results say, and DMax's ratio is of what is accurate enough."""

from pathlib import Path
from typing import Any

import pytest

from bench.systems.tables import BEGIN, END, PUBLISHED_THRESHOLD, dmax_ratio, write_tables


def row(policy: str, accuracy: float, speed: float) -> dict[str, Any]:
    return {
        "policy": policy, "accuracy": accuracy, "standard_error": 1.0, "tokens_per_forward": speed, "forwards": 10,
        "tokens_per_second": 100.0, "problems": 50, "aup": None if policy == "topk:1" else 5 * speed,
    }  # fmt: skip


BASE = [row(PUBLISHED_THRESHOLD, 90, 0.9), row("block-steps:dynamic", 89.5, 2), row("block-steps:static", 80, 4)]
TRAINED = [row("topk:1", 70, 0.9), row("dmax:0.5", 89, 3), row("dmax:0.0", 88.9, 5), row("block-steps:dynamic", 95, 9)]


def test_what_is_compared_is_as_accurate_as_the_base_but_for_a_standard_error() -> None:
    assert dmax_ratio(BASE, TRAINED) == (89, 2, 9, 3)


def test_every_table_stands_between_its_marks(tmp_path: Path) -> None:
    kinds = ("suite-full", "suite-full-tad", "suite-blocks", "suite-blocks-oput")
    suites = {name: [row("topk:1", 90, 0.9), row("preset:tad", 91.26, 2.345)] for name in kinds}
    suites["suite-full-tad"].append(row("preset:saber", 92, 1.5))
    paired = {
        "seed": 0, "policy": "topk:2", "start": 50.0, "student": 51.5, "only_first": 5, "only_second": 8,
        "p_value": 0.58,
    }  # fmt: skip
    results = {"evaluations": {**suites, "sweep-blocks": BASE, "sweep-blocks-oput": TRAINED}, "opsd": [paired]}

    def marks(*names: str) -> str:
        return "\n".join(f"before\n{BEGIN.format(name=one)}\nstale\n{END.format(name=one)}\nbehind" for one in names)

    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text(marks("presets"))
    (tmp_path / "docs/decoding.md").write_text(marks("full", "blocks", "dmax"))
    (tmp_path / "docs/distillation.md").write_text(marks("opsd"))
    write_tables(results, tmp_path)
    once = (tmp_path / "docs/decoding.md").read_text()
    assert "| `tad` | 91.3 | 2.35 | 12 | 100 | 91.3 | 2.35 | 12 | 100 |" in once
    assert "| `tad` | 91.3 at 2.35 | 91.3 at 2.35 |" in (tmp_path / "README.md").read_text()
    assert "| `sdar` |  |  |  |  |" in (tmp_path / "README.md").read_text()
    assert "| `saber` |  |  |  |  | 92.0 | 1.50 | 8 | 100 |" in once
    assert "89.0 % or more" in once
    assert "the base by a threshold 2.00; after DMax's training by a threshold 9.00, by DMax's rule 3.00." in once
    assert "| 0 | `topk:2` | 50.0 | 51.5 | 5 | 8 | 0.58 |" in (tmp_path / "docs/distillation.md").read_text()
    assert (once.count("before"), once.count("behind"), once.count("stale")) == (3, 3, 0)
    write_tables(results, tmp_path)
    assert (tmp_path / "docs/decoding.md").read_text() == once
    (tmp_path / "docs/distillation.md").write_text("")
    with pytest.raises(ValueError, match=r"distillation.md has no marks <!-- opsd: written"):
        write_tables(results, tmp_path)
