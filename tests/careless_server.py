"""The command line's server, made careless on purpose, so that tests can show that they notice.

python tests/careless_server.py no-sync serve …    commits without waiting for the disk
python tests/careless_server.py early serve …      says 250 a moment before it commits
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import labserver.lab
import labserver.servers.setup
from labserver.cli import main
from labserver.servers.delivery import DeliveryQueue
from labserver.store import Delivery, Store


class NoSync(Store):
    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._db.execute("PRAGMA synchronous=OFF")


class Early(DeliveryQueue):
    async def deliver(self, delivery: Delivery) -> int:
        asyncio.get_running_loop().call_later(0.2, self._store.deliver, delivery)
        return 0


if __name__ == "__main__":
    if sys.argv[1] == "no-sync":
        labserver.lab.Store = NoSync  # type: ignore[misc]
    else:
        labserver.servers.setup.DeliveryQueue = Early  # type: ignore[misc]
    sys.exit(main(sys.argv[2:]))
