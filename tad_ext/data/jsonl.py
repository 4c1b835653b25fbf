"""Reading text files, above all those of one JSON object a line, with errors that say where."""

import gzip
import json
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any


def read_jsonl(path: str | Path, *, argument: str) -> list[tuple[str, dict[str, Any]]]:
    """Every record of a file of one JSON object a line, with its place ("problems.jsonl, line 3") for messages.

    Reads and raises as `read_lines`; ValueError also for no record at all and, with its place, for a line that is no
    JSON object, names a key twice, holds what cannot be text (half of a surrogate pair) or is too large to be read.
    """
    lines = [(f"{path}, line {number}", line) for number, line in read_lines(path, argument=argument)]
    if not lines:
        raise ValueError(f"{argument} is '{path}', which is empty; expected one JSON object a line")
    return [(place, _object(place, line)) for place, line in lines]


def read_lines(path: str | Path, *, argument: str) -> list[tuple[int, str]]:
    r"""The lines of a UTF-8 text file that are not blank, with their numbers from 1.

    A line ends at \n or \r\n only: what else `str.splitlines` cuts at, such as U+2028 or \r alone, may stand in a text.
    A byte order mark is skipped, and a file whose name ends in .gz is unpacked. `argument` is the setting that named
    the file, for messages.

    Raises FileNotFoundError for no such file, ValueError for one that is not UTF-8, or no whole gzip file.
    """
    _check_file(path, argument)
    content = Path(path).read_bytes()
    try:
        if Path(path).suffix == ".gz":
            content = gzip.decompress(content)
        text = content.decode("utf-8-sig")  # read_text would make every \r a line's end
    except UnicodeDecodeError as error:
        raise ValueError(f"{argument} is '{path}', which is not UTF-8 text: {error}") from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{argument} is '{path}', which cannot be unpacked: {error}") from error
    lines = enumerate(text.split("\n"), 1)
    return [(number, line.removesuffix("\r")) for number, line in lines if line.strip()]


def stream_jsonl(
    path: str | Path, *, argument: str, progress: Callable[[int], object] = lambda size: None
) -> Iterator[tuple[str, dict[str, Any]]]:
    """As `read_jsonl`, for files larger than memory: a line at a time, each reported to `progress` with its bytes.

    A file without records gives none.
    """
    _check_file(path, argument)
    with Path(path).open("rb") as file:
        for number, line in enumerate(file, 1):
            place = f"{path}, line {number}"
            progress(len(line))
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise ValueError(f"{place}: not UTF-8 text ({error})") from error
            if text.strip():
                yield place, _object(place, text)


def _check_file(path: str | Path, argument: str) -> None:
    if not Path(path).is_file():
        raise FileNotFoundError(f"{argument} is '{path}', which is not a file")


def _object(place: str, line: str) -> dict[str, Any]:
    try:
        record = json.loads(line, object_pairs_hook=_without_repeats)
        if "\\ud" in line.lower():  # how JSON writes half of a pair
            json.dumps(record, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{place}: \\u{ord(error.object[error.start]):04x} is half of a surrogate pair") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"{place}: not JSON ({error})") from error
    except RecursionError:
        raise ValueError(f"{place}: nested too deeply") from None
    except ValueError as error:  # a key written twice, an integer of thousands of digits
        raise ValueError(f"{place}: {error}") from error
    if not isinstance(record, dict):
        raise ValueError(f"{place}: expected a JSON object, got {line.strip()[:80]}")
    return record


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"key {next(key for key in keys if keys.count(key) > 1)!r} is written twice")
    return record
