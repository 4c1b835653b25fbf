from pathlib import Path

import pytest

from tad_ext.data.jsonl import read_jsonl, read_lines


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
        (b'{"a": 1}\n{"a": "x\\uD83D"}', r"rows.jsonl, line 2: \\ud83d is half of a surrogate pair"),
        (b'{"a": 1, "b": {"\\udc00": 1}}', r"rows.jsonl, line 1: \\udc00 is half of a surrogate pair"),
        (b'{"a": ' + b"9" * 5000 + b"}", r"rows.jsonl, line 1: Exceeds the limit \(4300 digits\)"),
        (b'{"a": ' + b"[" * 100_000, r"rows.jsonl, line 1: nested too deeply"),
        (b'{"a": 1}\n{"a": 1, "b": 2, "a": 3}', r"rows.jsonl, line 2: key 'a' is written twice"),
        (b'{"a": 1}\r{"a": 2}', r"rows.jsonl, line 1: not JSON"),  # \r alone ends no line
        (b"\xef\xbb\xbf\n", "which is empty"),
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


def test_a_byte_order_mark_is_skipped(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes('\ufeff{"a": "\\ud83d\\ude00 \ufeff"}\r\n'.encode())
    assert read_jsonl(path, argument="data") == [(f"{path}, line 1", {"a": "\U0001f600 \ufeff"})]


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\r", "\x1c", "\x1d", "\x1e"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_lines_end_at_newlines_only(tmp_path: Path, mark: str, end: str) -> None:
    path = tmp_path / "lines.txt"
    path.write_bytes(f"\ufeffone{mark}two {end}{end} \t{end}\ufeffthree".encode())
    assert read_lines(path, argument="prompts") == [(1, f"one{mark}two "), (4, "\ufeffthree")]
