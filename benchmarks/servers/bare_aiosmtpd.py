"""Bare aiosmtpd with its Sink handler, which throws every message away.

Prints where it listens as one line of JSON.
"""

from __future__ import annotations

import asyncio
import json

from aiosmtpd.handlers import Sink
from aiosmtpd.smtp import SMTP


async def main() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: SMTP(Sink()), "127.0.0.1", 0)
    print(json.dumps({"smtp": server.sockets[0].getsockname()}), flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
