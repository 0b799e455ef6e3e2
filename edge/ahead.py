"""Reading while the network runs: a thread that stays a bounded number of items ahead."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

Item = TypeVar("Item")

AHEAD = 2
"""One item in the making while one waits; of large frames more would only fill the memory."""


def read_ahead(
    items: Iterable[Item], ahead: int = AHEAD, leave: Callable[[], None] = lambda: None
) -> Iterator[Item]:
    """The same items in the same order; at most `ahead` of them are made before they are asked for.

    An error comes where its item would have come. Closing the iterator ends the thread after the
    item it is at; `leave` is called then, for items that may never come.
    """
    source, end = iter(items), object()
    reader = ThreadPoolExecutor(1, thread_name_prefix="read_ahead")
    try:
        waiting: deque[Any] = deque(reader.submit(next, source, end) for _ in range(ahead))
        while (item := waiting.popleft().result()) is not end:
            waiting.append(reader.submit(next, source, end))
            yield item
    finally:
        leave()
        reader.shutdown(cancel_futures=True)
