"""What the page reads of a message: the list's rows, the search, the text, the parts."""

from __future__ import annotations

from base64 import b64encode
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
        begins = Head(row, store.beginning(row.content, HEAD_OCTETS))
        return begins if begins.is_whole else Head.of(row, store.octets(row.content))
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


PIXEL = b"\x89PNG\r\n\x1a\n"


def related(html: str, *parts: tuple[str, bytes]) -> Letter:
    """A message of HTML and what belongs to it: further fields and content of each part."""
    octets = (
        b"Content-Type: multipart/related; boundary=b\r\n\r\n--b\r\nContent-Type: text/html\r\n"
    )
    octets += b"\r\n" + html.encode() + b"\r\n"
    for fields, content in parts:
        octets += b"--b\r\nContent-Transfer-Encoding: base64\r\n" + fields.encode() + b"\r\n\r\n"
        octets += b64encode(content) + b"\r\n"
    return letter(octets + b"--b--\r\n")


@pytest.mark.parametrize(
    ("parameter", "saved"),
    [
        ('filename="menu.pdf"', "menu.pdf"),
        ('filename="../../menu.pdf"', "menu.pdf"),
        (r'filename="C:\\new\\report.pdf"', "report.pdf"),
        ("filename*=utf-8''men%C3%BC.pdf", "menü.pdf"),
        ("filename*=utf-8''x%0D%0Ay.txt", "x__y.txt"),
        ("filename*=utf-8''evil%E2%80%AEgpj.exe", "evil_gpj.exe"),
        ("filename*=utf-8''a%00b%1B%5B2J.txt", "a_b_[2J.txt"),
        ('filename=".."', "part-3.bin"),
        ('filename=""', "part-3.bin"),
        ("filename*=no-charset''x", "x"),
        (f'filename="{"n" * 300}.pdf"', f"{'n' * 100}.pdf"),
    ],
)
def test_a_file_is_saved_under_a_harmless_name(parameter: str, saved: str) -> None:
    fields = (
        f"Content-Type: application/octet-stream\r\nContent-Disposition: attachment; {parameter}"
    )
    name, octets = related("<p>hi", (fields, b"\x00\x01")).file(2)
    assert (name, octets) == (saved, b"\x00\x01")


def test_a_message_within_a_message_has_the_name_of_its_own_header() -> None:
    inner = b"Content-Disposition: attachment; filename=inner.txt\r\n\r\nhi\r\n"
    outer = b"Content-Type: message/rfc822; name=outer.eml\r\n\r\n"
    assert letter(outer + inner).file(0)[0] == "outer.eml"
    assert letter(outer + inner).file(1)[0] == "inner.txt"


@pytest.mark.parametrize(
    "identity",
    ["<logo@x>", "<logo@x> ", "\r\n <logo@x>", "logo@x"],
)
def test_the_message_s_own_image_is_shown(identity: str) -> None:
    image = (f"Content-Type: image/png\r\nContent-ID: {identity}", PIXEL)
    html = related("<img src=cid:logo@x><img src='cid:logo%40x'>", image).rendered()
    assert html.count(b64encode(PIXEL).decode()) == 1
    assert html.count('<img data-image="1">') == 2


@pytest.mark.parametrize("kind", ["image/svg+xml", "text/html", "application/octet-stream"])
def test_nothing_but_an_image_is_put_in(kind: str) -> None:
    other = (f"Content-Type: {kind}\r\nContent-ID: <x>", b"<svg onload=alert(1)>")
    assert "data:" not in related("<img src=cid:x>", other).rendered().partition("<body>")[2]


@pytest.mark.parametrize("references", [1, 400, 17_000])
def test_references_to_an_image_multiply_nothing(references: int) -> None:
    image = ("Content-Type: image/png\r\nContent-ID: <x>", PIXEL * 160_000)
    shown = related("<img src=cid:x>" * references, image)
    assert len(shown.rendered()) < 4 * len(PIXEL) * 160_000 // 3 + 30 * references + 5000


def test_only_the_beginning_of_much_html_is_rendered() -> None:
    message = letter(b"Content-Type: text/html\r\n\r\n" + b"<p>word</p>\r\n" * 800_000)
    assert message.values()["cut"] is True
    assert len(message.rendered()) < 600_000


def test_a_message_without_html_says_so() -> None:
    message = letter(b"\r\nhi\r\n")
    assert message.rendered() == "<!doctype html><p>This message has no HTML.</p>"
    assert (message.values()["html"], message.values()["links"]) == (False, [])
