"""Messages over pipes: eight bytes of length, then so many bytes of JSON, or of anything."""

import json
from os import read, write
from typing import Any

_HEADER = 8


def framed(payload: bytes) -> bytes:
    """A payload as it is sent."""
    return len(payload).to_bytes(_HEADER, "big") + payload


def packed(value: Any) -> bytes:
    """A value as JSON, as it is sent. ASCII: a text may hold half of a surrogate pair."""
    return framed(json.dumps(value).encode("ascii"))


def send(end: int, message: bytes) -> None:
    """Writes a whole message. OSError if nobody reads any more."""
    rest = memoryview(message)
    while rest:
        rest = rest[write(end, rest) :]


def receive(end: int) -> Any:
    """The value of the next message. EOFError if there is none."""
    return json.loads(exactly(end, int.from_bytes(exactly(end, _HEADER), "big")))


def exactly(end: int, count: int) -> bytes:
    """The next so many bytes. EOFError if there are fewer."""
    parts = []
    while count:
        parts.append(read(end, min(count, 1 << 20)))
        if not parts[-1]:
            raise EOFError("the other side has closed its end")
        count -= len(parts[-1])
    return b"".join(parts)


def complete(buffer: bytearray, most: int) -> list[bytes]:
    """The payloads of all messages that are complete in the buffer, which keeps the rest. ValueError if one is longer
    than `most`.
    """
    payloads = []
    while len(buffer) >= _HEADER:
        length = int.from_bytes(buffer[:_HEADER], "big")
        if length > most:
            raise ValueError(f"a message of {length} bytes (expected at most {most})")
        if len(buffer) < _HEADER + length:
            break
        payloads.append(bytes(buffer[_HEADER : _HEADER + length]))
        del buffer[: _HEADER + length]
    return payloads
