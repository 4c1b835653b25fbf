"""Responses judged while others are decoded, which keeps the device busy where a judgement takes time."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Response = TypeVar("Response")
Judged = TypeVar("Judged")

JUDGES = 4  # responses that are judged at a time


def judged(
    responses: Iterable[Response], judge: Callable[[Response], Judged], *, threads: int = JUDGES
) -> Iterator[Judged]:
    """What `judge`, called in other threads, says of each response, in their order and as soon as it is known.

    `responses` is asked for the next one meanwhile. What `judge` raises is raised here; what has begun then ends.
    """
    waiting: deque[Future[Judged]] = deque()
    pool = ThreadPoolExecutor(threads)
    try:
        for response in responses:
            waiting.append(pool.submit(judge, response))
            while waiting and waiting[0].done():
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
