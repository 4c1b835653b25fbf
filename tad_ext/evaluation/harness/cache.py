"""The harness's response cache, which is a file of pickles, as a file of JSON: reading one runs nothing."""

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import sqlitedict


class _JsonDict(sqlitedict.SqliteDict):
    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options, encode=json.dumps, decode=json.loads)


@contextlib.contextmanager
def cache_in_json() -> Iterator[None]:
    """Within the block the response caches that the harness opens (`use_cache`) hold JSON."""
    original = sqlitedict.SqliteDict
    sqlitedict.SqliteDict = _JsonDict
    try:
        yield
    finally:
        sqlitedict.SqliteDict = original
