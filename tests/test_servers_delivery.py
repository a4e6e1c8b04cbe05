"""Group commit: deliveries waiting in the same turn of the loop share one commit."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from labserver.message import Envelope
from labserver.servers.delivery import DeliveryQueue
from labserver.store import Delivery, Store, StoreError


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(tmp_path / "mail.sqlite")
    yield made
    made.close()


def delivery(recipient: str) -> Delivery:
    envelope = Envelope("ana@lab.example", (recipient,))
    return Delivery(envelope, b"Subject: Hello\r\n\r\nHi\r\n", datetime.now(UTC))


def commits(store: Store) -> list[str]:
    """Notes from now on each commit that SQLite makes."""
    noted: list[str] = []

    def note(statement: str) -> None:
        if statement == "COMMIT":
            noted.append(statement)

    store._db.set_trace_callback(note)
    return noted


def count(store: Store, account: str) -> int:
    return len(store.messages(store.ensure_mailbox(account, "INBOX").id))


def refuse(store: Store, account: str) -> None:
    """Have SQLite itself refuse whatever concerns that account."""
    store._db.execute(
        "CREATE TRIGGER refuse BEFORE INSERT ON mailbox"
        f" WHEN NEW.account = '{account}' BEGIN SELECT RAISE(ABORT, 'this one is full'); END"
    )


def test_deliveries_of_the_same_turn_share_one_commit(store: Store) -> None:
    async def deliver() -> list[int]:
        queue = DeliveryQueue(store)
        return await asyncio.gather(
            *(queue.deliver(delivery(f"user{n}@lab.example")) for n in range(20))
        )

    noted = commits(store)
    numbers = asyncio.run(deliver())
    assert len(noted) == 1
    assert numbers == list(range(1, 21))
    assert all(count(store, f"user{n}@lab.example") == 1 for n in range(20))


def test_deliveries_of_different_turns_are_committed_apart(store: Store) -> None:
    async def deliver() -> None:
        queue = DeliveryQueue(store)
        await queue.deliver(delivery("ana@lab.example"))
        await queue.deliver(delivery("ben@lab.example"))

    noted = commits(store)
    asyncio.run(deliver())
    assert len(noted) == 2


def test_one_failing_member_fails_alone(store: Store) -> None:
    refuse(store, "full@lab.example")

    async def deliver() -> list[int | BaseException]:
        queue = DeliveryQueue(store)
        return await asyncio.gather(
            *(queue.deliver(delivery(f"{name}@lab.example")) for name in ("ana", "full", "ben")),
            return_exceptions=True,
        )

    first, failed, last = asyncio.run(deliver())
    assert isinstance(first, int)
    assert isinstance(failed, StoreError)
    assert "this one is full" in str(failed)
    assert isinstance(last, int)
    assert [count(store, f"{name}@lab.example") for name in ("ana", "ben")] == [1, 1]


def test_it_is_on_disk_before_deliver_returns(store: Store, tmp_path: Path) -> None:
    async def deliver() -> bytes:
        await DeliveryQueue(store).deliver(delivery("ana@lab.example"))
        return b"".join(path.read_bytes() for path in tmp_path.iterdir())

    assert b"Subject: Hello\r\n" in asyncio.run(deliver())


def test_a_client_that_went_away_costs_nobody_anything(store: Store) -> None:
    async def deliver() -> int:
        queue = DeliveryQueue(store)
        gone = asyncio.create_task(queue.deliver(delivery("ana@lab.example")))
        here = asyncio.create_task(queue.deliver(delivery("ben@lab.example")))
        await asyncio.sleep(0)
        gone.cancel()
        return await here

    assert asyncio.run(deliver()) == 2
    assert count(store, "ana@lab.example") == 1


def test_nobody_waits_for_ever_when_the_store_makes_a_mistake(store: Store) -> None:
    def mistaken(mailbox: int) -> None:
        raise LookupError(mailbox)

    store.watch(mistaken)

    async def deliver() -> list[int | BaseException]:
        queue = DeliveryQueue(store)
        return await asyncio.gather(
            *(queue.deliver(delivery(f"{name}@lab.example")) for name in ("ana", "ben")),
            return_exceptions=True,
        )

    assert [type(result) for result in asyncio.run(deliver())] == [LookupError, LookupError]
