"""IMAP: the operations, and how each client does them."""

from __future__ import annotations

import imaplib
import platform
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import imap_tools
import imapclient
import imapclient.exceptions

from labserver import Session
from labserver.message import Message
from labserver.store import NoSuchMailbox
from tests.interop.pop3 import mail
from tests.interop.smtp import BIG, DOTTED, EIGHT_BIT, SHORT
from tests.interop.stage import (
    BEN,
    BENS_PASSWORD,
    WRONG,
    Client,
    Operations,
    Stage,
    Told,
    commands,
    package,
    program,
)

OTHER = SHORT.replace(b"from a real client", b"another one")
UMLAUT = "Entwürfe"


@dataclass(frozen=True)
class Login:
    """How a client is to log in, as Ben."""

    listener: str = "imaps"
    mechanism: str = ""
    """PLAIN (with AUTHENTICATE) or LOGIN; empty leaves it to the client."""
    password: str = BENS_PASSWORD


operation = Operations("IMAP")


# -- the operations


def verbs(session: Session) -> list[str]:
    """The commands of a session without their tags and arguments."""
    rows = [row.upper().split() for row in commands(session)]
    return [" ".join(row[1:3]) if row[1:2] == ["UID"] else row[1] for row in rows if row[1:]]


def used(stage: Stage, verb: str) -> bool:
    return any(verb in verbs(session) for session in stage.sessions("IMAP"))


def messages(stage: Stage, folder: str = "INBOX") -> tuple[Message, ...] | None:
    """What lies in one of Ben's folders; `None` where there is no such folder."""
    try:
        return stage.lab.mailbox(BEN, folder)
    except NoSuchMailbox:
        return None


def octets(stage: Stage, folder: str) -> list[bytes]:
    return [message.octets for message in messages(stage, folder) or ()]


def logs_in(stage: Stage, client: Any, login: Login) -> None:
    """The client logs in under TLS, and out."""
    told = client.log_in(stage, login)
    assert told.well, told.text
    for session in stage.sessions("IMAP"):
        assert (session.listener, session.ending) == (login.listener, "")
        assert session.tls.startswith("TLSv1."), "no TLS"
        secrets = [line for line in session.lines if line.secret]
        assert secrets, "nobody logged in"
        assert all(line.tls for line in secrets)
        assert ("STARTTLS" in verbs(session)) == (login.listener == "imap")
        assert verbs(session)[-1] == "LOGOUT"


@operation("Log in under STARTTLS", "As on port 143; the password travels under TLS only.")
def starttls(stage: Stage, client: Any) -> None:
    logs_in(stage, client, Login("imap"))


@operation("Log in under implicit TLS", "As on port 993.")
def implicit_tls(stage: Stage, client: Any) -> None:
    logs_in(stage, client, Login("imaps"))


@operation("Log in with LOGIN", "The client logs in with that command.")
def login(stage: Stage, client: Any) -> None:
    logs_in(stage, client, Login(mechanism="LOGIN"))
    assert used(stage, "LOGIN")


@operation("Log in with AUTHENTICATE PLAIN", "The client logs in with that command.")
def authenticate_plain(stage: Stage, client: Any) -> None:
    logs_in(stage, client, Login(mechanism="PLAIN"))
    assert used(stage, "AUTHENTICATE")


@operation("Wrong password", "The client says that it was refused.")
def wrong_password(stage: Stage, client: Any) -> None:
    told = client.log_in(stage, Login(password=WRONG))
    assert not told.well
    assert re.search("auth|login|denied|wrong name", told.text, re.I), told.text
    for session in stage.sessions("IMAP"):
        assert not {"SELECT", "EXAMINE", "LIST"} & set(verbs(session))
        assert WRONG not in session.text()


@operation("Create a folder", "It is there.")
def create(stage: Stage, client: Any) -> None:
    client.create(stage, "Archive")
    assert messages(stage, "Archive") == ()


@operation("List folders", "INBOX, a folder and one within it.")
def folders(stage: Stage, client: Any) -> None:
    for name in ("Archive", "Archive/2026"):
        imap_creates(stage, name)
    assert client.folders(stage) == {"INBOX", "Archive", "Archive/2026"}


@operation("Rename a folder", "The message within it has come along.")
def rename(stage: Stage, client: Any) -> None:
    imap_creates(stage, "Archive", SHORT)
    client.rename(stage, "Archive", "Old")
    assert messages(stage, "Archive") is None
    assert octets(stage, "Old") == [SHORT]


@operation("Delete a folder", "It is gone.")
def delete_folder(stage: Stage, client: Any) -> None:
    imap_creates(stage, "Archive")
    client.delete_folder(stage, "Archive")
    assert messages(stage, "Archive") is None


@operation("Folder named in UTF-8", "Entwürfe is created and listed (modified UTF-7).")
def umlaut(stage: Stage, client: Any) -> None:
    client.create(stage, UMLAUT)
    assert messages(stage, UMLAUT) == ()
    assert client.folders(stage) == {"INBOX", UMLAUT}


@operation("Select", "The client tells how many messages there are.")
def select(stage: Stage, client: Any) -> None:
    stage.deliver(SHORT, OTHER)
    assert client.select(stage) == 2


@operation("Search", "Of three messages the one whose body has the words is found.")
def search(stage: Stage, client: Any) -> None:
    stage.deliver(SHORT, DOTTED, OTHER)
    assert client.search(stage, "one dot") == [2]


@operation("Fetch headers", r"The subject of one message; it is `\Seen` unless the client peeked.")
def headers(stage: Stage, client: Any) -> None:
    stage.deliver(SHORT, OTHER)
    assert client.subject(stage, 2) == "another one"
    rows = [row for session in stage.sessions("IMAP") for row in commands(session)]
    seen = any("FETCH" in row and "BODY[" in row for row in rows)
    first, second = stage.lab.inbox(BEN)
    assert not first.flags
    assert second.flags == ({r"\Seen"} if seen else set())


@operation("Fetch messages", "All arrive octet for octet, text of 8 bits and leading dots too.")
def bodies(stage: Stage, client: Any) -> None:
    stored = stage.deliver(SHORT, EIGHT_BIT, DOTTED)
    assert mail(client.fetch(stage, 3)) == mail(*stored)


@operation("A message of 2 MB", "Two million octets arrive as they are stored.")
def big(stage: Stage, client: Any) -> None:
    (stored,) = stage.deliver(BIG)
    assert mail(client.fetch(stage, 1)) == mail(stored)


@operation("Flags", r"`\Flagged` and `\Answered` are set, read back, and one is taken away.")
def flags(stage: Stage, client: Any) -> None:
    stage.deliver(SHORT, OTHER)
    client.flag(stage, 2, [r"\Flagged", r"\Answered"])
    first, second = stage.lab.inbox(BEN)
    assert not first.flags
    assert second.flags == {r"\Flagged", r"\Answered"}
    assert {r"\Flagged", r"\Answered"} <= client.flags(stage, 2)
    client.unflag(stage, 2, [r"\Flagged"])
    assert stage.lab.inbox(BEN)[1].flags == {r"\Answered"}


@operation("Keywords", "The same with a keyword of the client's own, `$Urgent`.")
def keywords(stage: Stage, client: Any) -> None:
    stage.deliver(SHORT)
    client.flag(stage, 1, ["$Urgent"])
    assert stage.lab.inbox(BEN)[0].flags == {"$Urgent"}
    assert "$Urgent" in client.flags(stage, 1)
    client.unflag(stage, 1, ["$Urgent"])
    assert not stage.lab.inbox(BEN)[0].flags


@operation("Append", "A message put into a folder is there octet for octet.")
def append(stage: Stage, client: Any) -> None:
    imap_creates(stage, "Archive")
    client.append(stage, "Archive", EIGHT_BIT)
    assert octets(stage, "Archive") == [EIGHT_BIT]


@operation("Append, UIDPLUS", "The client knows the new message's UID without asking again.")
def append_uid(stage: Stage, client: Any) -> None:
    imap_creates(stage, "Archive", SHORT, SHORT)
    assert client.append(stage, "Archive", EIGHT_BIT) == 3
    assert [message.uid for message in messages(stage, "Archive") or ()] == [1, 2, 3]


@operation("Copy", "The message is in both folders.")
def copy(stage: Stage, client: Any) -> None:
    first, second = stage.deliver(SHORT, OTHER)
    imap_creates(stage, "Archive")
    client.copy(stage, 2, "Archive")
    assert octets(stage, "INBOX") == [first, second]
    assert octets(stage, "Archive") == [second]


@operation("Move", "MOVE takes the message from one folder to the other.")
def move(stage: Stage, client: Any) -> None:
    first, second = stage.deliver(SHORT, OTHER)
    imap_creates(stage, "Archive")
    client.move(stage, 2, "Archive")
    assert octets(stage, "INBOX") == [first]
    assert octets(stage, "Archive") == [second]
    assert used(stage, "UID MOVE")


@operation("Delete and expunge", "The message is gone, the other is not.")
def delete(stage: Stage, client: Any) -> None:
    _, second = stage.deliver(SHORT, OTHER)
    client.delete(stage, 1)
    assert octets(stage, "INBOX") == [second]
    assert used(stage, "EXPUNGE") or used(stage, "UID EXPUNGE") or used(stage, "CLOSE")


@operation("Expunge, UIDPLUS", "Of two messages marked as deleted only the one named goes.")
def uid_expunge(stage: Stage, client: Any) -> None:
    first, _ = stage.deliver(SHORT, OTHER)
    client.flag(stage, 1, [r"\Deleted"])
    client.flag(stage, 2, [r"\Deleted"])
    client.uid_expunge(stage, 2)
    assert octets(stage, "INBOX") == [first]


@operation("Idle", "The client waits, and hears of the message that comes meanwhile.")
def idle(stage: Stage, client: Any) -> None:
    stage.deliver(SHORT)
    client.idle(stage, lambda: stage.deliver(OTHER))
    assert used(stage, "IDLE")


@operation("Synchronise: new messages", "Those on either side are on both sides afterwards.")
def sync_new(stage: Stage, client: Any) -> None:
    stored = stage.deliver(SHORT, DOTTED)
    near = client.synchronise(stage)
    assert near.messages() == list(map(mail, stored))
    near.add(EIGHT_BIT)
    client.synchronise(stage)
    assert list(map(unmarked, octets(stage, "INBOX"))) == [*stored, EIGHT_BIT]
    client.synchronise(stage)
    assert len(octets(stage, "INBOX")) == len(near.messages()) == 3


@operation("Synchronise: flags", "Flags that are set on either side are set on both afterwards.")
def sync_flags(stage: Stage, client: Any) -> None:
    short, dotted = map(mail, stage.deliver(SHORT, DOTTED))
    near = client.synchronise(stage)
    near.flag(short, "F")
    imap_flags(stage, 2, r"(\Answered)")
    client.synchronise(stage)
    assert [message.flags for message in stage.lab.inbox(BEN)] == [{r"\Flagged"}, {r"\Answered"}]
    assert (near.flags(short), near.flags(dotted)) == ("F", "R")


@operation("Synchronise: deletions", "What is deleted on either side is gone on both afterwards.")
def sync_deletions(stage: Stage, client: Any) -> None:
    short, _, dotted = stage.deliver(SHORT, OTHER, DOTTED)
    near = client.synchronise(stage)
    near.delete(mail(short))
    imap_flags(stage, 2, r"(\Deleted)")
    client.synchronise(stage)
    assert octets(stage, "INBOX") == [dotted]
    assert near.messages() == [mail(dotted)]


def unmarked(message: bytes) -> bytes:
    """Without the header field with which mbsync marks what it copies."""
    return re.sub(rb"^X-TUID: .*\n", b"", message, flags=re.M)


# -- what an operation needs to find: put there as any other client of Ben's would, on `imap`


@contextmanager
def _other_client(stage: Stage) -> Iterator[imaplib.IMAP4]:
    with imaplib.IMAP4(*stage.lab.imap) as client:
        client.login(BEN, BENS_PASSWORD)
        yield client


def imap_creates(stage: Stage, folder: str, *within: bytes) -> None:
    with _other_client(stage) as client:
        assert client.create(folder)[0] == "OK"
        for message in within:
            assert client.append(folder, "", "", message)[0] == "OK"


def imap_flags(stage: Stage, uid: int, flags: str) -> None:
    with _other_client(stage) as client:
        client.select()
        assert client.uid("STORE", str(uid), "+FLAGS", flags)[0] == "OK"


# -- the clients


class Curl:
    """What it has no words of its own for, it says as it is told (`--request`)."""

    def _call(
        self,
        stage: Stage,
        *arguments: str,
        path: str = "",
        login: Login = Login(),
    ) -> list[str]:
        options = ["-q", "--no-progress-meter", "--ssl-reqd", "--cacert", str(stage.lab.ca)]
        if login.mechanism:
            options += ["--login-options", f"AUTH={login.mechanism}"]
        url = f"{login.listener}://127.0.0.1:{stage.port(login.listener)}/{path}"
        return ["curl", *options, "--user", f"{BEN}:{login.password}", *arguments, url]

    def _said(self, stage: Stage, *arguments: str, path: str = "") -> str:
        return stage.output(*self._call(stage, *arguments, path=path)).decode()

    def _request(self, stage: Stage, command: str, folder: str = "") -> str:
        return self._said(stage, "--request", command, path=folder)

    def log_in(self, stage: Stage, login: Login) -> Told:
        return stage.run(*self._call(stage, "--verbose", login=login))

    def folders(self, stage: Stage) -> set[str]:
        return set(re.findall(r'^\* LIST \([^)]*\) "/" (\S+)\r$', self._said(stage), re.M))

    def create(self, stage: Stage, folder: str) -> None:
        self._request(stage, f"CREATE {folder}")

    def rename(self, stage: Stage, folder: str, name: str) -> None:
        self._request(stage, f"RENAME {folder} {name}")

    def delete_folder(self, stage: Stage, folder: str) -> None:
        self._request(stage, f"DELETE {folder}")

    def select(self, stage: Stage) -> int:
        (count,) = re.findall(r"^\* (\d+) EXISTS\r$", self._request(stage, "EXAMINE INBOX"), re.M)
        return int(count)

    def search(self, stage: Stage, words: str) -> list[int]:
        found = self._said(stage, path="INBOX?" + quote(f'TEXT "{words}"'))
        return [int(number) for number in found.split()[2:]]

    def subject(self, stage: Stage, uid: int) -> str:
        header = self._said(stage, path=f"INBOX;UID={uid};SECTION=HEADER.FIELDS%20(SUBJECT)")
        return header.strip().removeprefix("Subject: ")

    def fetch(self, stage: Stage, count: int) -> bytes:
        return stage.output(*self._call(stage, path=f"INBOX;UID=[1-{count}]"))

    def flag(self, stage: Stage, uid: int, flags: Sequence[str]) -> None:
        self._request(stage, f"UID STORE {uid} +FLAGS ({' '.join(flags)})", "INBOX")

    def unflag(self, stage: Stage, uid: int, flags: Sequence[str]) -> None:
        self._request(stage, f"UID STORE {uid} -FLAGS ({' '.join(flags)})", "INBOX")

    def flags(self, stage: Stage, uid: int) -> set[str]:
        (told,) = re.findall(
            r"FLAGS \(([^)]*)\)", self._request(stage, f"FETCH {uid} FLAGS", "INBOX")
        )
        return set(told.split())

    def append(self, stage: Stage, folder: str, message: bytes) -> int:
        letter = stage.keep("letter.eml", message)
        call = self._call(stage, "--verbose", "--upload-file", str(letter), path=folder)
        told = stage.run(*call)
        assert told.well, told.text
        return _appended(told.text)

    def copy(self, stage: Stage, uid: int, folder: str) -> None:
        self._request(stage, f"UID COPY {uid} {folder}", "INBOX")

    def move(self, stage: Stage, uid: int, folder: str) -> None:
        self._request(stage, f"UID MOVE {uid} {folder}", "INBOX")

    def delete(self, stage: Stage, uid: int) -> None:
        self.flag(stage, uid, [r"\Deleted"])
        self._request(stage, "EXPUNGE", "INBOX")

    def uid_expunge(self, stage: Stage, uid: int) -> None:
        self._request(stage, f"UID EXPUNGE {uid}", "INBOX")


def _appended(text: str) -> int:
    """The UID in a response to APPEND (RFC 4315 section 3)."""
    (uid,) = re.findall(r"\[APPENDUID \d+ (\d+)\]", text)
    return int(uid)


class ImapClient:
    @contextmanager
    def _client(
        self,
        stage: Stage,
        folder: str = "",
        login: Login = Login(),
    ) -> Iterator[imapclient.IMAPClient]:
        host, port = stage.lab.address(login.listener)
        implicit = login.listener == "imaps"
        context = stage.lab.tls if implicit else None
        with imapclient.IMAPClient(host, port, ssl=implicit, ssl_context=context) as client:
            if not implicit:
                client.starttls(stage.lab.tls)
            if login.mechanism == "PLAIN":
                client.plain_login(BEN, login.password)
            else:
                client.login(BEN, login.password)
            if folder:
                client.select_folder(folder)
            yield client

    def log_in(self, stage: Stage, login: Login) -> Told:
        try:
            with self._client(stage, login=login):
                return Told(True, "")
        except imapclient.exceptions.LoginError as error:
            return Told(False, repr(error))

    def folders(self, stage: Stage) -> set[str]:
        with self._client(stage) as client:
            return {name for _, _, name in client.list_folders()}

    def create(self, stage: Stage, folder: str) -> None:
        with self._client(stage) as client:
            client.create_folder(folder)

    def rename(self, stage: Stage, folder: str, name: str) -> None:
        with self._client(stage) as client:
            client.rename_folder(folder, name)

    def delete_folder(self, stage: Stage, folder: str) -> None:
        with self._client(stage) as client:
            client.delete_folder(folder)

    def select(self, stage: Stage) -> int:
        with self._client(stage) as client:
            return int(client.select_folder("INBOX")[b"EXISTS"])

    def search(self, stage: Stage, words: str) -> list[int]:
        with self._client(stage, "INBOX") as client:
            return list(client.search(["TEXT", words]))

    def subject(self, stage: Stage, uid: int) -> str:
        with self._client(stage, "INBOX") as client:
            return str(client.fetch(uid, ["ENVELOPE"])[uid][b"ENVELOPE"].subject.decode())

    def fetch(self, stage: Stage, count: int) -> bytes:
        with self._client(stage, "INBOX") as client:
            fetched = client.fetch(range(1, count + 1), ["BODY.PEEK[]"])
            return b"".join(fetched[uid][b"BODY[]"] for uid in sorted(fetched))

    def flag(self, stage: Stage, uid: int, flags: Sequence[str]) -> None:
        with self._client(stage, "INBOX") as client:
            client.add_flags(uid, flags)

    def unflag(self, stage: Stage, uid: int, flags: Sequence[str]) -> None:
        with self._client(stage, "INBOX") as client:
            client.remove_flags(uid, flags)

    def flags(self, stage: Stage, uid: int) -> set[str]:
        with self._client(stage, "INBOX") as client:
            return {flag.decode() for flag in client.get_flags(uid)[uid]}

    def append(self, stage: Stage, folder: str, message: bytes) -> int:
        with self._client(stage) as client:
            return _appended(client.append(folder, message).decode())

    def copy(self, stage: Stage, uid: int, folder: str) -> None:
        with self._client(stage, "INBOX") as client:
            client.copy(uid, folder)

    def move(self, stage: Stage, uid: int, folder: str) -> None:
        with self._client(stage, "INBOX") as client:
            client.move(uid, folder)

    def delete(self, stage: Stage, uid: int) -> None:
        with self._client(stage, "INBOX") as client:
            client.delete_messages(uid)
            client.expunge()

    def uid_expunge(self, stage: Stage, uid: int) -> None:
        with self._client(stage, "INBOX") as client:
            client.uid_expunge(uid)

    def idle(self, stage: Stage, meanwhile: Callable[[], object]) -> None:
        with self._client(stage, "INBOX") as client:
            client.idle()
            meanwhile()
            heard = client.idle_check(timeout=10)
            client.idle_done()
        assert (2, b"EXISTS") in heard, heard


class ImapTools:
    @contextmanager
    def _client(
        self,
        stage: Stage,
        folder: str | None = None,
        login: Login = Login(),
    ) -> Iterator[imap_tools.BaseMailBox]:
        host, port = stage.lab.address(login.listener)
        kind = imap_tools.MailBox if login.listener == "imaps" else imap_tools.MailBoxStartTls
        box = kind(host, port, ssl_context=stage.lab.tls)
        enter = box.login_utf8 if login.mechanism == "PLAIN" else box.login
        try:
            enter(BEN, login.password, initial_folder=folder)
            yield box
        finally:
            box.logout()

    def log_in(self, stage: Stage, login: Login) -> Told:
        try:
            with self._client(stage, login=login):
                return Told(True, "")
        except imap_tools.MailboxLoginError as error:
            return Told(False, repr(error))

    def folders(self, stage: Stage) -> set[str]:
        with self._client(stage) as box:
            return {folder.name for folder in box.folder.list()}

    def create(self, stage: Stage, folder: str) -> None:
        with self._client(stage) as box:
            box.folder.create(folder)

    def rename(self, stage: Stage, folder: str, name: str) -> None:
        with self._client(stage) as box:
            box.folder.rename(folder, name)

    def delete_folder(self, stage: Stage, folder: str) -> None:
        with self._client(stage) as box:
            box.folder.delete(folder)

    def select(self, stage: Stage) -> int:
        with self._client(stage, "INBOX") as box:
            return len(box.numbers())

    def search(self, stage: Stage, words: str) -> list[int]:
        with self._client(stage, "INBOX") as box:
            return [int(uid) for uid in box.uids(imap_tools.AND(text=words))]

    def subject(self, stage: Stage, uid: int) -> str:
        with self._client(stage, "INBOX") as box:
            (message,) = box.fetch(imap_tools.AND(uid=str(uid)), mark_seen=False, headers_only=True)
            return message.subject

    def fetch(self, stage: Stage, count: int) -> bytes:
        with self._client(stage, "INBOX") as box:
            fetched = list(box.fetch(mark_seen=False))
        assert len(fetched) == count
        return b"".join(message.obj.as_bytes() for message in fetched)

    def flag(self, stage: Stage, uid: int, flags: Sequence[str]) -> None:
        with self._client(stage, "INBOX") as box:
            box.flag(str(uid), flags, True)

    def unflag(self, stage: Stage, uid: int, flags: Sequence[str]) -> None:
        with self._client(stage, "INBOX") as box:
            box.flag(str(uid), flags, False)

    def flags(self, stage: Stage, uid: int) -> set[str]:
        with self._client(stage, "INBOX") as box:
            (message,) = box.fetch(imap_tools.AND(uid=str(uid)), mark_seen=False)
            return set(message.flags)

    def append(self, stage: Stage, folder: str, message: bytes) -> int:
        with self._client(stage) as box:
            _, (told,) = box.append(message, folder)
            return _appended(told.decode())

    def copy(self, stage: Stage, uid: int, folder: str) -> None:
        with self._client(stage, "INBOX") as box:
            box.copy(str(uid), folder)

    def move(self, stage: Stage, uid: int, folder: str) -> None:
        with self._client(stage, "INBOX") as box:
            box.move(str(uid), folder)

    def delete(self, stage: Stage, uid: int) -> None:
        with self._client(stage, "INBOX") as box:
            box.delete(str(uid))

    def idle(self, stage: Stage, meanwhile: Callable[[], object]) -> None:
        with self._client(stage, "INBOX") as box, box.idle as waiting:
            meanwhile()
            heard = waiting.poll(timeout=10)
        assert b"* 2 EXISTS" in heard, heard


class Imaplib:
    @contextmanager
    def _client(
        self,
        stage: Stage,
        folder: str = "",
        login: Login = Login(),
    ) -> Iterator[imaplib.IMAP4]:
        host, port = stage.lab.address(login.listener)
        client: imaplib.IMAP4
        if login.listener == "imaps":
            client = imaplib.IMAP4_SSL(host, port, ssl_context=stage.lab.tls)
        else:
            client = imaplib.IMAP4(host, port)
        with client:
            if login.listener == "imap":
                client.starttls(stage.lab.tls)
            if login.mechanism == "PLAIN":
                response = f"\0{BEN}\0{login.password}".encode()
                client.authenticate("PLAIN", lambda _: response)
            else:
                client.login(BEN, login.password)
            if folder:
                client.select(folder)
            yield client

    def _done(self, answer: tuple[str, list[Any]]) -> list[Any]:
        assert answer[0] == "OK", answer
        return answer[1]

    def log_in(self, stage: Stage, login: Login) -> Told:
        try:
            with self._client(stage, login=login):
                return Told(True, "")
        except imaplib.IMAP4.error as error:
            return Told(False, repr(error))

    def folders(self, stage: Stage) -> set[str]:
        with self._client(stage) as client:
            return {row.decode().rpartition(' "/" ')[2] for row in self._done(client.list())}

    def create(self, stage: Stage, folder: str) -> None:
        with self._client(stage) as client:
            self._done(client.create(folder))

    def rename(self, stage: Stage, folder: str, name: str) -> None:
        with self._client(stage) as client:
            self._done(client.rename(folder, name))

    def delete_folder(self, stage: Stage, folder: str) -> None:
        with self._client(stage) as client:
            self._done(client.delete(folder))

    def select(self, stage: Stage) -> int:
        with self._client(stage) as client:
            return int(self._done(client.select())[0])

    def search(self, stage: Stage, words: str) -> list[int]:
        with self._client(stage, "INBOX") as client:
            (found,) = self._done(client.uid("SEARCH", "TEXT", f'"{words}"'))
            return [int(uid) for uid in found.split()]

    def subject(self, stage: Stage, uid: int) -> str:
        with self._client(stage, "INBOX") as client:
            item = "(BODY.PEEK[HEADER.FIELDS (SUBJECT)])"
            (_, header), _ = self._done(client.uid("FETCH", str(uid), item))
            return str(header.decode().strip().removeprefix("Subject: "))

    def fetch(self, stage: Stage, count: int) -> bytes:
        with self._client(stage, "INBOX") as client:
            parts = self._done(client.uid("FETCH", f"1:{count}", "(BODY.PEEK[])"))
            return b"".join(part[1] for part in parts if isinstance(part, tuple))

    def flag(self, stage: Stage, uid: int, flags: Sequence[str]) -> None:
        with self._client(stage, "INBOX") as client:
            self._done(client.uid("STORE", str(uid), "+FLAGS", f"({' '.join(flags)})"))

    def unflag(self, stage: Stage, uid: int, flags: Sequence[str]) -> None:
        with self._client(stage, "INBOX") as client:
            self._done(client.uid("STORE", str(uid), "-FLAGS", f"({' '.join(flags)})"))

    def flags(self, stage: Stage, uid: int) -> set[str]:
        with self._client(stage, "INBOX") as client:
            (row,) = self._done(client.uid("FETCH", str(uid), "(FLAGS)"))
            return {flag.decode() for flag in imaplib.ParseFlags(row)}

    def append(self, stage: Stage, folder: str, message: bytes) -> int:
        with self._client(stage) as client:
            (told,) = self._done(client.append(folder, "", "", message))
            return _appended(told.decode())

    def copy(self, stage: Stage, uid: int, folder: str) -> None:
        with self._client(stage, "INBOX") as client:
            self._done(client.uid("COPY", str(uid), folder))

    def move(self, stage: Stage, uid: int, folder: str) -> None:
        with self._client(stage, "INBOX") as client:
            self._done(client.uid("MOVE", str(uid), folder))

    def delete(self, stage: Stage, uid: int) -> None:
        self.flag(stage, uid, [r"\Deleted"])
        with self._client(stage, "INBOX") as client:
            self._done(client.expunge())

    def uid_expunge(self, stage: Stage, uid: int) -> None:
        with self._client(stage, "INBOX") as client:
            self._done(client.uid("EXPUNGE", str(uid)))


@dataclass(frozen=True)
class Maildir:
    """The near side of a synchronisation; a file's name ends in its flags, such as `:2,FS`."""

    folder: Path

    def _files(self) -> list[Path]:
        return [*self.folder.glob("new/*"), *self.folder.glob("cur/*")]

    def _content(self, path: Path) -> bytes:
        return unmarked(path.read_bytes())

    def _file(self, content: bytes) -> Path:
        (path,) = [path for path in self._files() if self._content(path) == content]
        return path

    def messages(self) -> list[bytes]:
        """In the order of their UIDs, which mbsync notes in the file names."""
        files = {
            int(path.name.rpartition("U=")[2].partition(":")[0]): path for path in self._files()
        }
        return [self._content(path) for _, path in sorted(files.items())]

    def add(self, message: bytes) -> None:
        (self.folder / "new" / "1.interop.lab").write_bytes(mail(message))

    def flags(self, content: bytes) -> str:
        return self._file(content).name.partition(":2,")[2].replace("S", "")

    def flag(self, content: bytes, flags: str) -> None:
        path = self._file(content)
        path.rename(self.folder / "cur" / f"{path.name.partition(':2,')[0]}:2,{flags}")

    def delete(self, content: bytes) -> None:
        self._file(content).unlink()


class Mbsync:
    def _run(self, stage: Stage, login: Login = Login()) -> Told:
        near = stage.folder / "near"
        state = stage.folder / "state"
        near.mkdir(exist_ok=True)
        state.mkdir(exist_ok=True)
        settings = stage.keep(
            "mbsyncrc",
            f"""\
FSync no

IMAPAccount lab
Host localhost
Port {stage.port(login.listener)}
User {BEN}
Pass {login.password}
SSLType {"IMAPS" if login.listener == "imaps" else "STARTTLS"}
SystemCertificates no
CertificateFile {stage.lab.ca}
AuthMechs {login.mechanism or "*"}

IMAPStore far
Account lab

MaildirStore near
Path {near}/
Inbox {near}/INBOX
SubFolders Verbatim

Channel lab
Far :far:
Near :near:
Patterns *
Create Both
Remove Both
Expunge Both
SyncState {state}/
""",
        )
        return stage.run("mbsync", "--config", str(settings), "--verbose", "lab")

    def synchronise(self, stage: Stage) -> Maildir:
        told = self._run(stage)
        assert told.well, told.text
        return Maildir(stage.folder / "near" / "INBOX")

    def log_in(self, stage: Stage, login: Login) -> Told:
        return self._run(stage, login)

    def folders(self, stage: Stage) -> set[str]:
        inbox = self.synchronise(stage).folder
        found = inbox.parent.glob("**/cur")
        return {str(path.parent.relative_to(inbox.parent)) for path in found}

    def create(self, stage: Stage, folder: str) -> None:
        inbox = self.synchronise(stage).folder
        for name in ("cur", "new", "tmp"):
            (inbox.parent / folder / name).mkdir(parents=True)
        self.synchronise(stage)

    def delete_folder(self, stage: Stage, folder: str) -> None:
        inbox = self.synchronise(stage).folder
        shutil.rmtree(inbox.parent / folder)
        self.synchronise(stage)

    def fetch(self, stage: Stage, count: int) -> bytes:
        return b"".join(self.synchronise(stage).messages())


class Fetchmail:
    def _settings(self, stage: Stage, login: Login = Login()) -> Path:
        return stage.keep(
            "fetchmailrc",
            f"""\
set idfile {stage.folder / "seen"}
set pidfile {stage.folder / "pid"}
set invisible
poll localhost protocol imap port {stage.port(login.listener)} auth password
  user "{BEN}" password "{login.password}" is "ben" here
  {"ssl" if login.listener == "imaps" else "sslproto 'auto'"} sslcertck sslcertfile {stage.lab.ca}
  keep no rewrite pass8bits fetchall
  mda "cat >> {stage.folder / "box"}"
""",
        )

    def _poll(self, stage: Stage, settings: Path, *arguments: str) -> Told:
        return stage.run("fetchmail", "--fetchmailrc", str(settings), "--verbose", *arguments)

    def log_in(self, stage: Stage, login: Login) -> Told:
        stage.deliver(SHORT)
        return self._poll(stage, self._settings(stage, login))

    def select(self, stage: Stage) -> int:
        told = self._poll(stage, self._settings(stage), "--check")
        (count,) = re.findall(r"(\d+) messages for \S+ at localhost", told.text)
        return int(count)

    def fetch(self, stage: Stage, count: int) -> bytes:
        told = self._poll(stage, self._settings(stage))
        assert told.well, told.text
        return (stage.folder / "box").read_bytes()

    def delete(self, stage: Stage, uid: int) -> None:
        assert uid == 1, "it takes the oldest message first"
        told = self._poll(stage, self._settings(stage), "--fetchlimit", "1", "--nokeep")
        assert "1 message left on server" in told.text, told.text

    def idle(self, stage: Stage, meanwhile: Callable[[], object]) -> None:
        settings = self._settings(stage)
        arguments = ["--fetchmailrc", str(settings), "--verbose", "--verbose", "--idle"]
        with stage.running("fetchmail", *arguments) as said:
            assert any(b"< + idling" in row for row in said)
            meanwhile()
            assert any(b"< * 2 EXISTS" in row for row in said)
            assert any(b"reading message" in row and b":2 of 2" in row for row in said)


_NO_COPY = "keeps no copy of a folder"
_NO_UTF7 = "leaves the encoding of a folder's name to whoever calls it"
_BY_SYNC = "does it by synchronising: see there"
_COLLECTS = "collects mail, and does nothing else to a mailbox"
_PLAIN_FIRST = "takes AUTHENTICATE PLAIN wherever it is offered"
_NO_WAY = "has no command for it"

_SYNC = dict.fromkeys(["sync_new", "sync_flags", "sync_deletions"], _NO_COPY)

CLIENTS = [
    Client(
        "curl",
        program("curl", "--version"),
        Curl(),
        {"login": _PLAIN_FIRST, "umlaut": _NO_UTF7, "idle": "doesn't wait", **_SYNC},
    ),
    Client("imapclient", package("imapclient"), ImapClient(), _SYNC),
    Client(
        "imap-tools",
        package("imap-tools"),
        ImapTools(),
        {"uid_expunge": "expunges all that is marked as deleted", **_SYNC},
    ),
    Client(
        "imaplib",
        platform.python_version,
        Imaplib(),
        {"umlaut": _NO_UTF7, "idle": "can't wait before Python 3.14", **_SYNC},
    ),
    Client(
        "mbsync",
        program("mbsync", "--version"),
        Mbsync(),
        {
            "umlaut": _NO_UTF7,
            **dict.fromkeys(["rename", "select", "search", "headers", "copy", "move"], _NO_WAY),
            **dict.fromkeys(["keywords", "uid_expunge", "idle"], _NO_WAY),
            **dict.fromkeys(["flags", "append", "append_uid", "delete"], _BY_SYNC),
        },
    ),
    Client(
        "fetchmail",
        program("fetchmail", "--version"),
        Fetchmail(),
        {
            "authenticate_plain": "knows LOGIN only",
            **dict.fromkeys(["create", "folders", "rename", "delete_folder", "umlaut"], _COLLECTS),
            **dict.fromkeys(["search", "headers", "flags", "keywords", "append"], _COLLECTS),
            **dict.fromkeys(["append_uid", "copy", "move", "uid_expunge"], _COLLECTS),
            **_SYNC,
        },
    ),
]
