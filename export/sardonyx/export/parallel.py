"""Several threads of numpy at work, with results that do not depend on how many they are.

BLAS splits a product by the number of its threads and rounds accordingly, so each of our threads has a BLAS
of one thread, and what is a piece of work never depends on the machine.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import TypeVar

from threadpoolctl import threadpool_limits

from sardonyx.runtime.threads import usable_cores

Item = TypeVar("Item")
Result = TypeVar("Result")


def single_threaded_blas() -> AbstractContextManager[object]:
    """Within, products are computed by the thread that asks for them alone."""
    limits: AbstractContextManager[object] = threadpool_limits(1, user_api="blas")
    return limits


def in_parallel(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """`map` in as many threads as there are cores: results in order, items read no sooner than needed."""
    threads = usable_cores()
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[Future[Result]] = deque()
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
