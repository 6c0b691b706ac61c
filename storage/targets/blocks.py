"""Many blocks, some at a time: the loop that all exports share."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextvars import copy_context
from itertools import islice

Tell = Callable[[str, int, int], None]
"""Called with the step, and how many of its parts are done, and in total."""


def each[T](
    work: Callable[[T], None],
    items: Iterable[T],
    *,
    total: int,
    step: str,
    workers: int,
    tell: Tell | None,
) -> None:
    """Do `work` for every item on some threads; stop at the first error, and raise it.

    No more than two items a thread are waiting, so that stopping is quick.
    """
    todo = iter(items)
    done = 0
    with ThreadPoolExecutor(workers) as pool:
        running: set[Future[None]] = set()

        def submit(n: int) -> None:
            for item in islice(todo, n):
                running.add(pool.submit(copy_context().run, work, item))

        try:
            submit(2 * workers)
            while running:
                finished, _ = wait(running, return_when=FIRST_COMPLETED)
                running -= finished
                for future in finished:
                    future.result()
                    done += 1
                    if tell:
                        tell(step, done, total)
                submit(len(finished))
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
