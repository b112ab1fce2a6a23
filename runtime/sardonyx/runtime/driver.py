"""The driver: has the engine take steps as long as anybody waits for what comes of them.

A thread that waits takes the steps itself, for all; others wait until it has what they wait for, or leaves
and one of them goes on. So a single thread pays for nothing that it does not use. For coroutines a worker
takes the steps: a thread that ends when no coroutine has waited for a moment, and so keeps no process alive.
When nobody waits nothing runs, and nothing piles up. It knows nothing of what is waited for.

Callbacks of the garbage collector may call `cancel` at any point, within this file too: what it touches takes
no lock that it would have to wait for.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from threading import Event, Lock, Thread, main_thread
from typing import TypeVar

from sardonyx.runtime.engine import Engine
from sardonyx.runtime.strategies import Decoding
from sardonyx.runtime.task import Task

LINGER_S = 0.05
"""How long the worker waits for coroutines to come back with what they wait for next."""

Ready = Callable[[], bool]
Result = TypeVar("Result")


@dataclass(eq=False)
class _Waiter:
    """Who waits until `ready`. To be woken once, by whoever sees that it is; with the error of a step, if a
    coroutine's worker could not take it.
    """

    ready: Ready
    wake: Callable[[BaseException | None], None]


class Driver:
    """Takes an engine's steps, for any number of threads and coroutines."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._driving = Lock()
        self._threads: dict[_Waiter, None] = {}
        self._coroutines: dict[_Waiter, None] = {}
        self._worker: Thread | None = None
        self._hiring = Lock()
        self._called = Event()

    def run(self, decoding: Decoding[Result], *, fresh: bool = False, adapter: int = 0) -> Result:
        """The result of a decoding that is run to its end, with the prefix cache or `fresh`."""
        task = self._engine.submit(decoding, fresh=fresh, adapters=[adapter])
        try:
            self.wait(lambda: task.done)
        finally:
            self._engine.cancel(task)
        if task.error is not None:
            raise task.error
        result: Result = task.result  # type: ignore[assignment]
        return result

    def wait(self, ready: Ready) -> None:
        """Return as soon as `ready` says so, which has to come of steps. What one raises is raised here."""
        try:
            while not ready():
                if self._driving.acquire(blocking=False):
                    try:
                        self._drive(ready)
                    finally:
                        self._driving.release()
                else:
                    self._wait_for_others(ready)
        finally:
            if not self._driving.locked():
                for waiter in [*self._threads][:1]:
                    waiter.wake(None)  # to go on from here

    async def wait_async(self, ready: Ready) -> None:
        """Let other coroutines run until `ready` says so. What a step raises is raised here."""
        loop = asyncio.get_running_loop()
        while not ready():
            woken: asyncio.Future[None] = loop.create_future()
            waiter = _Waiter(lambda: ready() or _is_left(loop), partial(_settle_in, loop, woken))
            self._coroutines[waiter] = None
            self._call_worker()
            try:
                await woken
            finally:
                self._coroutines.pop(waiter, None)

    def cancel(self, task: Task) -> None:
        """See `Engine.cancel`. Whoever waits for the task need not do so any longer."""
        self._engine.cancel(task)
        self.wake()

    def _drive(self, ready: Ready) -> None:
        while not ready():
            self._engine.step()
            self.wake()

    def _wait_for_others(self, ready: Ready) -> None:
        """Until a thread that drives is done, or this one has what it waits for."""
        woken = Lock()  # no Event: waking must not need a lock that the sleeper may hold
        woken.acquire()
        waiter = _Waiter(ready, partial(_release, woken))
        self._threads[waiter] = None
        try:
            if self._driving.locked():  # else it has left before it could see who waits
                woken.acquire()
        finally:
            self._threads.pop(waiter, None)

    def wake(self) -> None:
        """Wake those who have what they wait for."""
        for waiters in (self._threads, self._coroutines):
            for waiter in [*waiters]:
                if waiter.ready():
                    waiters.pop(waiter, None)
                    waiter.wake(None)

    def _call_worker(self) -> None:
        with self._hiring:
            if self._worker is None:
                self._worker = Thread(target=self._work, name="sardonyx")
                self._worker.start()
        self._called.set()

    def _work(self) -> None:
        while True:
            try:
                self.wait(lambda: not self._coroutines)
            except BaseException as error:
                for waiter in [*self._coroutines]:
                    self._coroutines.pop(waiter, None)
                    waiter.wake(error)
            if not self._called.wait(LINGER_S):
                with self._hiring:
                    if not self._coroutines:
                        self._worker = None
                        return
            self._called.clear()


def _is_left(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether nobody will come back to a loop: it has been closed, or stands still while the process ends."""
    return loop.is_closed() or not (loop.is_running() or main_thread().is_alive())


def _release(lock: Lock, error: BaseException | None) -> None:
    with suppress(RuntimeError):  # another has been quicker
        lock.release()


def _settle_in(
    loop: asyncio.AbstractEventLoop, woken: "asyncio.Future[None]", error: BaseException | None
) -> None:
    with suppress(RuntimeError):  # the loop has been closed, and nobody waits there any more
        loop.call_soon_threadsafe(_settle, woken, error)


def _settle(woken: "asyncio.Future[None]", error: BaseException | None) -> None:
    if woken.done():  # the coroutine has been cancelled meanwhile
        return
    if error is None:
        woken.set_result(None)
    else:
        woken.set_exception(error)
