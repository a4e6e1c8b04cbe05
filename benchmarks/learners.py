"""Many learners at once: each sends itself a message and reads it, all in one asyncio client.

It is a process of its own: `python -m benchmarks.learners SMTP POP3 IMAP LEARNERS`, the first three
being ports.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from benchmarks import peers, processes
from benchmarks.peers import HOST, Missing

LEARNERS = 500
PATIENCE = 120.0
"""Seconds for all of them together."""


@dataclass(frozen=True, slots=True)
class Learners:
    """How it went for those who were connected at the same time."""

    asked: int
    connected: int
    """Connections open at once before the first command."""
    seconds: tuple[float, ...]
    """Of each whole dialogue that succeeded, from EHLO to the last QUIT or LOGOUT."""
    failures: dict[str, int]
    """What went wrong for the others, and how often."""

    def quantile(self, share: float) -> float:
        """The time in which that share of the dialogues was done."""
        if len(self.seconds) < 2:
            return self.seconds[0] if self.seconds else 0.0
        return statistics.quantiles(self.seconds, n=100, method="inclusive")[round(share * 100) - 1]


def measure(folder: Path, learners: int = LEARNERS) -> Learners:
    """Let them all work with one lab. Raises `Missing` where their process fails."""
    with peers.started(peers.lab(), folder) as server:
        ports = [str(server.places[name][1]) for name in ("smtp", "pop3", "imap")]
        program = [sys.executable, "-m", "benchmarks.learners", *ports, str(learners)]
        done = processes.run(program)
    if done.returncode:
        raise Missing(f"the learners' process failed: {processes.last_line(done.stderr)}")
    said = json.loads(done.stdout)
    return Learners(learners, said["connected"], tuple(said["seconds"]), said["failures"])


class Line:
    """One connection to a server, as commands and replies; a refusal raises `ValueError`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def to(cls, port: int) -> Line:
        """A connection whose greeting has come."""
        line = cls(*await asyncio.open_connection(HOST, port))
        await line._reply(("220", "+OK", "* OK"))
        return line

    async def smtp(self, text: str) -> None:
        self._writer.write(text.encode() + b"\r\n")
        await self._reply(("2", "3"))

    async def pop3(self, text: str, *, dotted: bool = False) -> bytes:
        self._writer.write(text.encode() + b"\r\n")
        await self._reply(("+OK",))
        return await self._reader.readuntil(b"\r\n.\r\n") if dotted else b""

    async def imap(self, text: str) -> bytes:
        self._writer.write(b"a " + text.encode() + b"\r\n")
        answer = line = await self._reader.readline()
        while line and not line.startswith(b"a "):
            line = await self._reader.readline()
            answer += line
        if not line.startswith(b"a OK"):
            raise ValueError(line.decode("utf-8").strip() or "the server hung up")
        return answer

    async def _reply(self, good: tuple[str, ...]) -> None:
        line = "-"
        while line[3:4] == "-" or line == "-":  # more lines of the same reply follow
            line = (await self._reader.readline()).decode("utf-8")
        if not line.startswith(good):
            raise ValueError(line.strip() or "the server hung up")

    async def close(self) -> None:
        self._writer.close()
        await self._writer.wait_closed()


async def learn(number: int, line: Line, pop3: int, imap: int) -> float:
    """Send a message over that line to SMTP and read it; how many seconds it took."""
    address, word = f"learner{number}@lab.example", f"word-{number}-{'x' * 40}"
    began = time.perf_counter()
    for command in ("EHLO client.example", f"MAIL FROM:<{address}>", f"RCPT TO:<{address}>"):
        await line.smtp(command)
    for command in ("DATA", f"Subject: {number}\r\n\r\n{word}\r\n.", "QUIT"):
        await line.smtp(command)
    await line.close()
    if number % 2:
        line = await Line.to(pop3)
        await line.pop3(f"USER {address}")
        await line.pop3(f"PASS {address}")
        read = await line.pop3("RETR 1", dotted=True)
        await line.pop3("QUIT")
    else:
        line = await Line.to(imap)
        await line.imap(f"LOGIN {address} {address}")
        await line.imap("SELECT INBOX")
        read = await line.imap("FETCH 1 (BODY.PEEK[])")
        await line.imap("LOGOUT")
    await line.close()
    if word.encode() not in read:
        raise ValueError("the message read is not the one sent")
    return time.perf_counter() - began


async def main(smtp: int, pop3: int, imap: int, learners: int) -> None:
    """All connect; once all are connected, all work."""
    lines = await asyncio.gather(*(Line.to(smtp) for _ in range(learners)), return_exceptions=True)
    connected = [line for line in lines if isinstance(line, Line)]
    results = await asyncio.gather(
        *(learn(number, line, pop3, imap) for number, line in enumerate(connected)),
        return_exceptions=True,
    )
    failed = [one for one in [*lines, *results] if isinstance(one, BaseException)]
    told = {
        "connected": len(connected),
        "seconds": [one for one in results if isinstance(one, float)],
        "failures": Counter(f"{type(error).__name__}: {error}" for error in failed),
    }
    print(json.dumps(told))


if __name__ == "__main__":
    asyncio.run(asyncio.wait_for(main(*map(int, sys.argv[1:])), PATIENCE))
