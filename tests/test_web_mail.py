"""What the page reads of a message: the list's rows, the search, the text, the parts."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from labserver import Message
from labserver.store import MessageRow, Store
from labserver.web.mail import HEAD_OCTETS, Head, Letter

NOON = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)


def letter(octets: bytes) -> Letter:
    return Letter(Message(octets, 1, NOON, frozenset(), None))


def head(octets: bytes) -> Head:
    store = Store(None)
    try:
        mailbox = store.ensure_mailbox("ana@lab.example", "INBOX")
        store.append(mailbox.id, octets, NOON, frozenset())
        (row,) = store.newest(mailbox.id, 1, None)
        assert isinstance(row, MessageRow)
        return Head.read(row, lambda most: store.beginning(row.content, most))
    finally:
        store.close()


@pytest.mark.parametrize(
    "before",
    [b"", b"X: y\r\n" * 75, b"X: y\r\n" * HEAD_OCTETS, b"X: " + b"y" * 3 * HEAD_OCTETS + b"\r\n"],
    ids=range(4),
)
def test_what_the_list_shows_is_found_in_a_header_of_any_size(before: bytes) -> None:
    octets = (
        before + b"Subject : =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\nFrom: ana\r\nCc: ben\r\n"
        b"Content-Type: text/plain; charset=gb2312\r\n\r\n" + "镕".encode("gbk")
    )
    row = head(octets)
    values = row.values()
    assert (values["subject"], values["from"]) == ("Grüße", "ana")
    for text, where in (("GRÜSSE", "subject"), ("ben", "to"), ("镕", "text"), ("镕", "anywhere")):
        assert row.says(text, where)
    assert not row.says("zoe", "anywhere")
    shown = letter(octets).values()
    assert (shown["subject"], shown["text"]) == ("Grüße", "镕")


def test_fields_that_are_not_shown_are_counted() -> None:
    fields = letter(b"X: y\r\n" * 75 + b"\r\n").values()["fields"]
    assert len(fields) == 61
    assert fields[-1] == {"name": "…", "value": "15 more fields not shown", "read": ""}


@pytest.mark.parametrize(
    ("field", "name"),
    [
        (b'filename="=?utf-8?B?cmVsYXTDs3Jpby5wZGY=?="', "relatório.pdf"),
        (b"filename*0*=utf-8''relat%C3; filename*1*=%B3rio.pdf", "relatório.pdf"),
        (b"filename=relat\xf3rio.pdf", "relatório.pdf"),
    ],
)
def test_a_file_is_saved_under_the_name_its_sender_gave(field: bytes, name: str) -> None:
    octets = (
        b"Content-Type: multipart/mixed; boundary*0=b; boundary*1=c\n\n--bc\n"
        b"Content-Type: a/b\nContent-Transfer-Encoding: base64\n"
        b"Content-Disposition: attachment; " + field + b"\n\nUQ==\nUUE=\n--bc--\n"
    )
    assert letter(octets).file(1) == (name, b"QQA")
