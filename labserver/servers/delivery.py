"""Takes messages into the store, as many as are waiting with one commit."""

from __future__ import annotations

import asyncio

from labserver.store import Delivery, Store, StoreError

_TURNS = 4
"""Turns of the loop that a delivery waits for others: microseconds when nothing else happens."""


class DeliveryQueue:
    """What all SMTP listeners of a lab hand their messages to.

    A commit waits for the disk, whatever is in it; so all deliveries that are ready in the same
    few turns of the loop share one.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: list[tuple[Delivery, asyncio.Future[int | StoreError]]] = []

    async def deliver(self, delivery: Delivery) -> int:
        """Store a message; it is on disk when this returns. Raises `StoreError`."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[int | StoreError] = loop.create_future()
        if not self._waiting:
            loop.call_soon(self._commit_in, _TURNS)
        self._waiting.append((delivery, future))
        result = await future
        if isinstance(result, StoreError):
            raise result
        return result

    def _commit_in(self, turns: int) -> None:
        if turns > 1:
            asyncio.get_running_loop().call_soon(self._commit_in, turns - 1)
        else:
            self._commit()

    def _commit(self) -> None:
        waiting, self._waiting = self._waiting, []
        try:
            results = self._store.deliver_group([delivery for delivery, _ in waiting])
        except Exception as error:
            # A mistake in the store: each client is still owed an answer.
            for _, future in waiting:
                if not future.done():
                    future.set_exception(error)
            return
        for (_, future), result in zip(waiting, results, strict=True):
            # A client that went away meanwhile isn't waiting; its message is stored all the same.
            if not future.done():
                future.set_result(result)
