from __future__ import annotations

from pathlib import Path

import pytest

from tad_ext.data.jsonl import read_jsonl


def test_rows_come_with_their_places(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": "one\u2028line"}\r\n\n{"a": 2}', encoding="utf-8")
    assert read_jsonl(path, argument="data") == [
        (f"{path}, line 1", {"a": "one\u2028line"}),
        (f"{path}, line 3", {"a": 2}),
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"data is '.*rows.jsonl', which is empty"),
        (b"\n \n", "which is empty"),
        (b'{"a": 1}\n{"a": \n', r"rows.jsonl, line 2: not JSON \("),
        (b'{"a": 1}\n\n[1]\n', r"rows.jsonl, line 3: expected a JSON object, got \[1\]"),
        (b'{"a": "\xff"}', "which is not UTF-8 text"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "rows.jsonl").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_jsonl(tmp_path / "rows.jsonl", argument="data")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"data is '.*nowhere.jsonl', which is not a file"):
        read_jsonl(tmp_path / "nowhere.jsonl", argument="data")
    with pytest.raises(FileNotFoundError, match="which is not a file"):
        read_jsonl(tmp_path, argument="data")
