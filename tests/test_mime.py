"""The one reader of messages: what mail programs really write is read right, in linear time."""

from __future__ import annotations

import email
import re
import sys
from collections.abc import Callable
from email.message import EmailMessage, MIMEPart
from email.policy import SMTP

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labserver.charsets import codec, decoded, unencoded, unstructured
from labserver.fields import without_comments
from labserver.mime import DEEPEST, MOST_PARTS, Part, referred


def part(head: str | bytes, body: bytes = b"") -> Part:
    octets = head if isinstance(head, bytes) else head.encode()
    return Part(octets + b"\r\n\r\n" + body)


def typed(value: str | bytes) -> Part:
    return part(b"Content-Type: " + (value if isinstance(value, bytes) else value.encode()))


def tree(message: Part) -> list[tuple[int, str]]:
    return [(one.depth, one.kind) for one in message.walk()]


def multipart(*parts: bytes, kind: bytes = b"mixed", line_end: bytes = b"\r\n") -> bytes:
    inside = b"".join(b"--b\r\n" + one + b"\r\n" for one in parts)
    whole = b"Content-Type: multipart/" + kind + b"; boundary=b\r\n\r\n" + inside + b"--b--\r\n"
    return whole.replace(b"\r\n", line_end)


PLAIN = b"Content-Type: text/plain\r\n\r\nplain"
HTML = b"Content-Type: text/html\r\n\r\n<p>html"


# -- header


@pytest.mark.parametrize(
    ("octets", "subject"),
    [
        (b"Subject: a\r\n\r\n", b"a"),
        (b"Subject: a\n\nb", b"a"),
        (b"From: x\nSUBJECT : a\r\n\nb", b"a"),
        (b"Subject \t:a\r\n\r\n", b"a"),
        (b"Subject:\r\n a\r\n\tb\r\n\r\n", b"a\tb"),
        (b"Subject: a\r\n \r\n b\r\n\r\n", b"a  b"),
        (b"Subject: a", b"a"),
        (b"Subject:\r\n\r\n", b""),
        (b"X: 1\r\nbadly folded\r\nSubject: a\r\n\r\n", b"a"),
        (b">From a@b Mon\r\nSubject: a\r\n\r\n", b"a"),
        (
            b"X-Subject: no\r\nNot-Subject: no\r\n Subject: no\r\nSubject: a\r\nSubject: b\r\n\r\n",
            b"a",
        ),
        (b"a: b\r\n" * 50_000 + b"Subject: a\r\n\r\n", b"a"),
        (b"X: " + b"y" * 1_000_000 + b"\r\nSubject: a\r\n\r\n", b"a"),
        (b"To: a\r\n\r\nSubject: in the body\r\n", None),
        (b"no header\r\nSubject: in the body\r\n", None),
        (b"", None),
    ],
)
def test_a_field_is_found_however_it_is_written(octets: bytes, subject: bytes | None) -> None:
    assert Part(octets).first(b"subject") == subject


@pytest.mark.parametrize(
    ("octets", "body"),
    [
        (b"a: b\r\n\r\nbody", b"body"),
        (b"a: b\n\nbody", b"body"),
        (b"a: b\n\r\nbody", b"body"),
        (b"\r\nbody", b"body"),
        (b"\nbody", b"body"),
        (b"only a body\r\n\r\nof two lines", b"only a body\r\n\r\nof two lines"),
        (b"a: b\r\nno blank line\r\n", b"no blank line\r\n"),
        (b"a: b\r\n c\r\n", b""),
    ],
)
def test_the_body_begins_behind_the_header(octets: bytes, body: bytes) -> None:
    assert Part(octets).body == body


def test_fields_are_counted_and_all_of_a_name_are_found_behind_the_index() -> None:
    message = Part(b"Received: x\r\nTo: a\r\n" * 3_000 + b"\r\n")
    assert message.number_of_fields == 6_000
    assert message.number_of(b"to") == len(message.all(b"to")) == 3_000
    assert message.chosen([b"TO"]) == b"To: a\r\n" * 3_000
    assert message.chosen([b"to"], inverse=True) == b"Received: x\r\n" * 3_000


# -- structured values


@pytest.mark.parametrize(
    ("value", "left"),
    [
        (b"a (b) c", b"a   c"),
        (b"a(b(c)d)e", b"a e"),
        (rb"a(\)b)c", b"a c"),
        (b'"(a)"(b)', b'"(a)" '),
        (b"smile :( a", b"smile :( a"),
        (b"(a) ) (b", b"  ) (b"),
        (b"=?utf-8?q?a(b)?=", b"=?utf-8?q?a(b)?="),
        (b"((((", b"(((("),
    ],
)
def test_comments_are_taken_out(value: bytes, left: bytes) -> None:
    assert without_comments(value) == left


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("text/html", "text/html"),
        ("TEXT/HTML;", "text/html"),
        ("text / html ; charset=x", "text/html"),
        ("(c) text/(d)html", "text/html"),
        ("text/html charset=utf-8", "text/html"),
        # RFC 2045 section 5.2
        ("text", "text/plain"),
        ("", "text/plain"),
        ("/html", "text/plain"),
        ("html; charset=utf-8", "text/plain"),
    ],
)
def test_a_type_that_cannot_be_read_is_plain_text(value: str, kind: str) -> None:
    assert typed(value).kind == kind


def test_of_two_types_the_first_counts() -> None:
    assert part("Content-Type: text/html\r\nContent-Type: image/png").kind == "text/html"


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("name=a.pdf", "a.pdf"),
        ('NAME="a; b.pdf"', "a; b.pdf"),
        ("name=my file.pdf; size=3", "my file.pdf"),
        ('x=y name="a.pdf" charset=z', "a.pdf"),
        ('name="unclosed.pdf', "unclosed.pdf"),
        ("name=é.pdf", "é.pdf"),
        ("name = a.pdf (the name)", "a.pdf"),
        (r'name="a\"b.pdf"', 'a"b.pdf'),
        # RFC 2231, in any order and mixed
        ("name*=utf-8''caf%C3%A9.pdf", "café.pdf"),
        ("name*=iso-8859-1'fr'caf%E9.pdf", "café.pdf"),
        ("name*0=a; name*1=b; name*2=.pdf", "ab.pdf"),
        ("name*2=.pdf; name*0=a; name*1=b", "ab.pdf"),
        ("name*0*=utf-8''caf%C3; name*1*=%A9; name*2=\".pdf\"", "café.pdf"),
        ('name*0="a%20\'"; name*1*=%20b', "a%20' b"),
        ("name=cafe.pdf; name*=utf-8''caf%C3%A9.pdf", "café.pdf"),
        ("name*=utf-8''caf%C3%A9.pdf; name=cafe.pdf", "café.pdf"),
        ("name*=plain.pdf", "plain.pdf"),
        ("name*=\"utf-8''caf%C3%A9.pdf\"", "café.pdf"),
        ("name*=no-such''caf%C3%A9.pdf", "café.pdf"),
        ("name*99999999999=x; name*0=a", "a"),
        # encoded words, which RFC 2047 section 5 forbids there
        ('name="=?utf-8?B?cmVsYXTDs3Jpby5wZGY=?="', "relatório.pdf"),
        ("name==?utf-8?B?cmVsYXTDs3Jpby5wZGY=?=", "relatório.pdf"),
        ("name==?utf-8?Q?relat=C3?= =?utf-8?Q?=B3rio.pdf?=; x=y", "relatório.pdf"),
        ('name="=?utf-8?Q?relat=C3?=\r\n =?utf-8?Q?=B3rio.pdf?="', "relatório.pdf"),
        ('name="=?utf-8?q?a(1).pdf?="', "a(1).pdf"),
        ("name==?x-unknown?q?a?=", "=?x-unknown?q?a?="),
    ],
)
def test_the_name_of_a_file_is_read_however_it_is_written(value: str, name: str) -> None:
    assert typed(f"a/b; {value}").name == name
    disposition = re.sub(r"(?i)name(?=\*| ?=)", "filename", value)
    assert part(f"Content-Disposition: attachment; {disposition}").name == name
    assert part(f"Content-Disposition: {disposition}").name == name


def test_a_raw_name_that_is_not_utf_8_is_read_as_windows_1252() -> None:
    assert typed(b'a/b; name="caf\xe9.pdf"').name == "café.pdf"
    assert unstructured(b"raw \xe4\xf6 \x80") == "raw äö €"
    assert unstructured("raw äö €".encode()) == "raw äö €"


def test_pieces_are_joined_for_imap_and_keep_their_charset() -> None:
    """RFC 2231 section 6."""
    assert typed("a/b; n*0=a; n*1=b; m*0*=utf-8''%20; m*1=x y").parameters == (
        (b"n", b"ab"),
        (b"m*", b"utf-8''%20x%20y"),
    )


@pytest.mark.parametrize(
    ("value", "encoding"),
    [
        ("base64", b"base64"),
        (" BASE64 (c)", b"base64"),
        ('"base64"', b"base64"),
        ("base64;", b"base64"),
        ("x-uuencode", b"x-uuencode"),
        ("", b"7bit"),
    ],
)
def test_the_transfer_encoding_is_read(value: str, encoding: bytes) -> None:
    assert part(f"Content-Transfer-Encoding: {value}").encoding == encoding


# -- text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("=?utf-8?Q?caf=C3=A9?=", "café"),
        ("=?UTF-8?b?Y2Fmw6k?=", "café"),
        ("=?utf-8*fr?q?caf=c3=a9?=", "café"),
        ("=?utf-8?q?two_words here?= x", "two words here x"),
        ("=?utf-8?q?a=C3?= =?utf-8?q?=A9b?=", "aéb"),
        ("=?utf-8?q?a=C3?=\r\n =?UTF-8?b?qWI=?=", "aéb"),
        ("=?utf-8?q?a?==?utf-8?q?b?=", "ab"),
        ("=?utf-8?q?a?= =?latin1?q?=E9?= =?utf-8?q?c?=", "aéc"),
        ("=?x-nobody?Q?zz?= and =?utf-8?Q?caf=C3=A9?=", "=?x-nobody?Q?zz?= and café"),
        ("=?utf-8?Q?caf=C3=A9?= =?x-nobody?Q?zz?=", "café =?x-nobody?Q?zz?="),
        ("=?punycode?Q?zz?= =?utf-8?Q?=C3=A9?=", "=?punycode?Q?zz?= é"),
        ('"=?utf-8?Q?caf=C3=A9?=" <a@b>', '"café" <a@b>'),
        ("(=?utf-8?q?a?=)", "(a)"),
        ("=?utf-8?q?What's up??=", "What's up?"),
        ("=?gb2312?B?6UY=?=", "镕"),
        ("=?utf-8?q?bad=E9=Z?=", "bad\\xe9=Z"),
        ("=?utf-8?q?open", "=?utf-8?q?open"),
        ("a =?= ?= b", "a =?= ?= b"),
        ("é =?utf-8?q?=C3=A9?=", "é é"),
    ],
)
def test_encoded_words_are_read_where_they_can_be(value: str, text: str) -> None:
    assert unstructured(value.encode().replace(b"\r\n", b"")) == text


@pytest.mark.parametrize(
    ("label", "octets", "text"),
    [
        ("gb2312", "镕".encode("gbk"), "镕"),
        ("ks_c_5601-1987", "똠".encode("cp949"), "똠"),
        ("shift_jis", "①髙".encode("cp932"), "①髙"),
        ("x-sjis", "①".encode("cp932"), "①"),
        ("iso-8859-1", b"\x93a\x94 \x80", "“a” €"),
        ("us-ascii", "é".encode(), "é"),
        ("us-ascii", b"\xe9", "é"),
        ("", b"\xe9", "é"),
        ("iso-8859-8-i", "שלום".encode("iso-8859-8"), "שלום"),
        ("csISO88598E", "ש".encode("iso-8859-8"), "ש"),
        ("iso-8859-9", b"\x80", "€"),
        ("cp-850", "é".encode("cp850"), "é"),
        ("windows-874", "ไทย".encode("cp874"), "ไทย"),
        ("tis-620", "ไทย".encode("cp874"), "ไทย"),
        ("x-mac-cyrillic", "Да".encode("mac-cyrillic"), "Да"),
        ("'UTF-8'", "é".encode(), "é"),
        ("unicode-1-1-utf-7", b"+AOk-", "é"),
        ("utf-7", b"+2AA-", "\\ud800"),
        ("utf-8", b"\xef\xbb\xbfa\xff", "a\\xff"),
        ("no-such-charset", b"a\xe9", "a\\xe9"),
        ("rot13", b"a", "a"),
        ("a\0b", b"a", "a"),
    ],
)
def test_labels_are_read_as_mail_uses_them(label: str, octets: bytes, text: str) -> None:
    assert decoded(octets, label) == text


@pytest.mark.parametrize(
    "label", ["idna", "punycode", "unicode_escape", "hex", "zlib", "undefined"]
)
def test_codecs_that_make_no_text_are_none(label: str) -> None:
    assert codec(label) is None


@pytest.mark.parametrize(
    ("encoding", "data", "octets"),
    [
        (b"base64", b"aGVsbG8=", b"hello"),
        (b"base64", b"aGVsbG8", b"hello"),
        (b"base64", b"aGVs\r\nbG8=\r\n\r\n", b"hello"),
        (b"base64", b"UGFydCBvbmUK\r\nAA==\r\nUGFydCB0d28h\r\n", b"Part one\n\0Part two!"),
        (b"base64", b"!aG-Vs bG8=**", b"hello"),
        (b"base64", b"a", b""),
        (b"base64", b"=====", b""),
        (b"quoted-printable", b"caf=C3=a9 =3d", "café =".encode()),
        (b"quoted-printable", b"a=\r\nb=\nc= \t\r\nd", b"abcd"),
        (b"quoted-printable", b"a  \t\r\nb ", b"a\r\nb"),
        (b"quoted-printable", b"=ZZ =4 end=", b"=ZZ =4 end"),
        (b"x-uuencode", b"begin 644 a\r\n%:&5L;&\\\r\n \r\nend\r\n", b"hello"),
        (b"x-uue", b"begin 644 a\n%:&5L;&\\XXXX\n`\nend\n", b"hello"),
        (b"x-uue", b"no begin", b""),
        (b"x-uue", b"begin\n\n\n\xff\xff\n%\n", b"\0" * 5),
        (b"8bit", b"=3D", b"=3D"),
        (b"no-such", b"=3D", b"=3D"),
    ],
)
def test_transfer_encodings_are_undone_as_far_as_they_are_kept(
    encoding: bytes, data: bytes, octets: bytes
) -> None:
    assert unencoded(data, encoding) == octets


def test_a_text_that_is_cut_within_a_character_is_read_up_to_it() -> None:
    body = "éé".encode()
    assert part("Content-Type: text/plain; charset=utf-8", body).text(3) == "é"
    assert part("X: y", body).text(3) == "é"
    assert (
        part("Content-Type: text/plain; charset=shift_jis", "日本".encode("cp932")).text(3) == "日"
    )


# -- parts


@pytest.mark.parametrize("line_end", [b"\r\n", b"\n"])
@pytest.mark.parametrize(
    "boundary",
    [
        b"boundary=b",
        b'boundary="b"',
        b'boundary="b "',
        b'boundary*0="b"; boundary*1=""',
        b"boundary*=us-ascii''b",
        b"boundary*=us-ascii'en'%62",
        b"Boundary = b (comment)",
    ],
)
def test_a_boundary_is_found_however_it_is_written(boundary: bytes, line_end: bytes) -> None:
    octets = multipart(PLAIN, HTML, line_end=line_end).replace(b"boundary=b", boundary)
    message = Part(octets)
    assert [one.body for one in message.parts] == [b"plain", b"<p>html"]
    assert tree(message) == [(0, "multipart/mixed"), (1, "text/plain"), (1, "text/html")]


@pytest.mark.parametrize(
    ("body", "bodies"),
    [
        (b"preamble\r\n--b\r\n\r\none\r\n--b--\r\nepilogue\r\n--b\r\n\r\nno", [b"one"]),
        (b"--b\r\n\r\none\r\n--b\n\ntwo", [b"one", b"two"]),
        (b"--b \t\r\n\r\none\r\n--b-- \r\n", [b"one"]),
        (b"--b\r\n\r\n--bc\r\n--b-\r\n--b--c\r\n--b--", [b"--bc\r\n--b-\r\n--b--c"]),
        (b"--b\r\n--b\r\n--b--", [b"", b""]),
        (b"no boundary", []),
        (b"--b--", []),
    ],
)
def test_parts_are_what_stands_between_the_lines_of_a_boundary(
    body: bytes, bodies: list[bytes]
) -> None:
    message = part("Content-Type: multipart/mixed; boundary=b", body)
    assert [one.body for one in message.parts] == bodies


def test_an_outer_boundary_ends_what_has_no_end() -> None:
    inner = b"Content-Type: multipart/mixed; boundary=c\r\n\r\n--c\r\n\r\none"
    assert tree(Part(multipart(inner, PLAIN))) == [
        (0, "multipart/mixed"),
        (1, "multipart/mixed"),
        (2, "text/plain"),
        (1, "text/plain"),
    ]


def test_parts_of_a_digest_are_messages_where_they_do_not_say() -> None:
    octets = multipart(
        b"\r\nSubject: one\r\n\r\nfirst", PLAIN, b"Content-Type: x\r\n\r\n", kind=b"digest"
    )
    assert tree(Part(octets))[1:] == [
        (1, "message/rfc822"),
        (2, "text/plain"),
        (1, "text/plain"),
        (1, "text/plain"),
    ]


@pytest.mark.parametrize("kind", ["rfc822", "global", "RFC822"])
def test_a_message_within_a_message_is_taken_apart(kind: str) -> None:
    inner = part(f"Content-Type: message/{kind}", b"Subject: inner\r\n\r\ntext").parts
    assert [one.first(b"subject") for one in inner] == [b"inner"]
    encoded = part(f"Content-Type: message/{kind}\r\nContent-Transfer-Encoding: base64", b"YTpi")
    assert encoded.parts == ()
    assert encoded.content() == b"a:b"


# -- what is shown


@pytest.mark.parametrize(
    ("octets", "plain", "html"),
    [
        (PLAIN, b"plain", None),
        (HTML, None, b"<p>html"),
        (multipart(PLAIN, HTML, kind=b"alternative"), b"plain", b"<p>html"),
        (multipart(HTML, PLAIN, kind=b"alternative"), b"plain", b"<p>html"),
        (b'Content-Type: text/plain; name="a.txt"\r\n\r\nnamed', b"named", None),
        (
            multipart(
                b"Content-Type: text/plain; name=a.txt\r\nContent-Disposition: inline\r\n\r\nin",
                b"Content-Type: text/html; name=a.html\r\n\r\n<p>in",
                kind=b"alternative",
            ),
            b"in",
            b"<p>in",
        ),
        (
            multipart(
                b"Content-Type: text/plain\r\nContent-Disposition: attachment\r\n\r\nfile", PLAIN
            ),
            b"plain",
            None,
        ),
        (multipart(PLAIN, b"Content-Type: text/html; name=a.html\r\n\r\n<p>file"), b"plain", None),
        (multipart(HTML, b"Content-Type: text/plain; name=n.txt\r\n\r\nnotes"), None, b"<p>html"),
        (multipart(PLAIN, b"Content-Type: message/rfc822\r\n\r\n" + HTML), b"plain", None),
        (b"Content-Type: message/rfc822\r\n\r\n" + PLAIN, b"plain", None),
        (b"Content-Type: application/pdf\r\n\r\nx", None, None),
    ],
)
def test_the_body_is_the_text_that_is_no_attachment(
    octets: bytes, plain: bytes | None, html: bytes | None
) -> None:
    for subtype, wanted in ((b"plain", plain), (b"html", html)):
        found = Part(octets).body_part(subtype)
        assert (found.body.strip() if found else None) == wanted


@pytest.mark.parametrize(
    ("field", "reference"),
    [
        ("<logo@shop>", "cid:logo@shop"),
        ("logo@shop", "cid:logo@shop"),
        ("< logo@shop >", "CID:logo@shop"),
        ("<logo@shop> (a comment)", "cid:logo%40shop"),
        ("\r\n <logo@shop>", " cid:<logo@shop>"),
        ("<100%@shop>", "cid:100%25@shop"),
        ("<100%40shop>", "cid:100%40shop"),
    ],
)
def test_a_reference_means_the_part_with_its_content_id(field: str, reference: str) -> None:
    image = part(f"Content-ID: {field}")
    assert referred(reference, {image.content_id: image}) is image
    assert referred("cid:other", {image.content_id: image}) is None
    assert referred("http:" + image.content_id, {image.content_id: image}) is None


# -- bounds, each of which is told


def test_what_is_not_taken_apart_is_told() -> None:
    flood = Part(multipart(*[PLAIN] * 3_000))
    *_, last = flood.parts
    assert len(flood.parts) == MOST_PARTS + 1
    assert last.left_out == "2,000 more parts not taken apart"
    assert (last.stands_for, last.kind) == (2_000, "text/plain")
    assert last.octets[last.start : last.end].count(b"plain") == 2 * 2_000
    deep = Part(b"Content-Type: message/rfc822\r\n\r\n" * 1_000).walk()
    assert len(deep) == DEEPEST + 1
    assert deep[-1].left_out == f"what lies in {DEEPEST} others isn't taken apart"
    long = typed("text/plain; " + "x" * 100_000 + "; charset=utf-8")
    assert (long.charset, long.left_out) == ("", "34,491 octets of content-type not read")
    many = typed("text/plain" + "; a=b" * 1_000)
    assert len(many.parameters) == 100
    assert many.left_out.endswith(" octets of content-type not read")


# -- whatever the octets are

GRAMMAR = st.lists(
    st.sampled_from(
        [
            *(b"Content-Type: multipart/mixed; boundary=b\r\n", b"--b\r\n", b"--b--\r\n", b"\r\n"),
            *(b"Content-Type: message/rfc822\n", b"\n", b"Subject : =?utf-8?b?////?=\r\n", b":"),
            *(
                b"Content-Type: text/plain; charset*=''%ff\r\n",
                b"\xff\x00",
                b"(",
                b")",
                b'"',
                b"\\",
            ),
            *(
                b"Content-Disposition: attachment; filename*0*=x'y'%FF;filename*9=z\r\n",
                b" ",
                b"\t",
            ),
            *(b"Content-Transfer-Encoding: base64\r\n", b"=?utf-7?q?", b"?=", b"=C3", b";", b"a=b"),
            *(
                b"Content-Transfer-Encoding: x-uue\r\n",
                b"begin 644 x\r\n",
                b"Content-ID: <",
                b"From ",
            ),
            b'Content-Type: multipart/digest; boundary*0="b"; boundary*1=c\r\n',
        ]
    )
    | st.binary(max_size=8),
    max_size=30,
).map(b"".join)


@settings(max_examples=400, deadline=None)
@given(GRAMMAR)
def test_any_octets_are_read(octets: bytes) -> None:
    message = Part(octets)
    inside = 0
    for one in message.walk():
        assert 0 <= one.start <= one.body_start <= one.end <= len(octets)
        assert one.header + one.body == octets[one.start : one.end]
        ends = [inner.end for inner in one.parts]
        starts = [inner.start for inner in one.parts]
        assert all(one.body_start <= at <= one.end for at in (*starts, *ends))
        assert all(end <= start for end, start in zip(ends, starts[1:], strict=False))
        for text in (one.kind, one.name, one.charset, one.disposition, one.content_id, one.text()):
            assert text.encode() is not None  # no lone surrogate
        one.text(7)
        inside += 1
    assert inside <= MOST_PARTS * 2
    message.body_part(b"plain")
    for name in (b"subject", b"content-type", b"x"):
        for value in message.all(name):
            unstructured(value).encode()


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60), st.sampled_from(["", "utf-7", "utf-16", "iso-2022-jp", "hz", "x"]))
def test_any_octets_are_text(octets: bytes, label: str) -> None:
    decoded(octets, label).encode()
    decoded(octets, label, whole=False).encode()
    unstructured(octets).encode()
    for encoding in (b"base64", b"quoted-printable", b"x-uue"):
        unencoded(octets, encoding)


WORDS = st.text("abc é日;='", min_size=1, max_size=12).filter(lambda text: text.strip() == text)


@st.composite
def messages(draw: st.DrawFn, depth: int = 0) -> EmailMessage:
    """A well-formed message with parts within parts, as Python's own package writes it."""
    made = EmailMessage(policy=SMTP)
    kind = draw(st.sampled_from(["text", "file", "mixed", "alternative", "message"]))
    if kind in ("mixed", "alternative") and depth < 3:
        made["Content-Type"] = f"multipart/{kind}"
        for inner in draw(st.lists(messages(depth + 1), min_size=1, max_size=3)):
            made.attach(inner)
    elif kind == "message" and depth < 3:
        inner = draw(messages(depth + 1))
        made.set_content(inner)
    elif kind == "file":
        data = draw(st.binary(max_size=40))
        made.set_content(data, maintype="image", subtype="png", filename=draw(WORDS))
    else:
        made.set_content(
            draw(st.text("abc é日\n.", max_size=30)) + "\n",
            cte=draw(st.sampled_from([None, "base64", "quoted-printable"])),
        )
    if depth == 0:
        made["Subject"] = draw(WORDS)
    return made


@pytest.mark.long
@settings(max_examples=150, deadline=None)
@given(messages(), st.booleans())
def test_well_formed_mail_is_read_as_pythons_parser_reads_it(
    made: EmailMessage, bare: bool
) -> None:
    octets = made.as_bytes()
    octets = octets.replace(b"\r\n", b"\n") if bare else octets
    theirs = list(email.message_from_bytes(octets, policy=SMTP).walk())
    ours = Part(octets).walk()
    assert [one.kind for one in ours] == [one.get_content_type() for one in theirs]
    subject = ours[0].first(b"subject")
    assert subject is not None
    assert unstructured(subject) == made["Subject"]
    for one, their in zip(ours, theirs, strict=True):
        assert isinstance(their, MIMEPart)
        assert one.name == (their.get_filename() or "")
        if not their.is_multipart():
            assert one.content() == their.get_payload(decode=True)
        if one.type == b"text":
            assert one.text() == their.get_content()


# -- steps grow as the input does

FLOODS: dict[str, Callable[[int], bytes]] = {
    "boundaries": lambda n: b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + b"--b\r\n" * n,
    "almost boundaries": lambda n: b"Content-Type: multipart/mixed; boundary=b\n\n" + b"--bb\n" * n,
    "nested boundaries": lambda n: (
        b"".join(
            b"Content-Type: multipart/mixed; boundary=%b\r\n\r\n--%b\r\n" % (b"b" * i, b"b" * i)
            for i in range(1, 60)
        )
        + (b"--" + b"b" * 60 + b"\r\n") * (n // 10)
    ),
    "open comments": lambda n: b"Content-Type: a/b" + b"(" * n + b"\r\n\r\n",
    "nested comments": lambda n: b"Content-Type: a/b" + b"(" * n + b")" * n + b"\r\n\r\n",
    "open quotes": lambda n: b'Content-Type: a/b; x="' + b'\\"' * n + b"\r\n\r\n",
    "encoded words": lambda n: b"Subject: " + b"=?utf-8?q?x?= " * n + b"\r\n\r\n",
    "words without end": lambda n: b"Subject: " + b"=?utf-8?q?x" * n + b"\r\n\r\n",
    "unknown words": lambda n: b"Subject: " + b"=?x-no?q?x?= " * n + b"\r\n\r\n",
    "pieces": lambda n: (
        b"Content-Type: a/b" + b"".join(b"; name*%d*=%%20" % i for i in range(n)) + b"\r\n\r\n"
    ),
    "a huge index": lambda n: b"Content-Type: a/b" + b"; name*999999999=x" * n + b"\r\n\r\n",
    "parameters": lambda n: (
        b"Content-Type: a/b" + b"".join(b"; n%d=x" % i for i in range(n)) + b"\r\n\r\n"
    ),
    "folds": lambda n: b"Subject: x" + b"\r\n x" * n + b"\r\n\r\n",
    "fields": lambda n: b"a: b\r\n" * n + b"Subject: x\r\n\r\n",
    "blanks": lambda n: b"Subject" + b" " * n + b"x\r\nContent-Type: a" + b" " * n + b"\r\n\r\n",
    "blanks in a parameter": lambda n: b"Content-Type: a/b; x=a" + b" b " * n + b"\r\n\r\n",
    "quoted-printable": lambda n: (
        b"Content-Transfer-Encoding: quoted-printable\n\n" + b" " * n + b"x"
    ),
    "padding": lambda n: b"Content-Transfer-Encoding: base64\r\n\r\n" + b"QQ==" * n,
    "line feeds": lambda n: b"a: b\n" + b"\n" * n,
    "carriage returns": lambda n: b"a: b\r\r" + b"\r" * n,
}


def steps(read: Callable[[], object]) -> int:
    """How many functions are called, Python's own and those of C."""
    number = 0

    def count(*_: object) -> None:
        nonlocal number
        number += 1

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        read()
    finally:
        sys.setprofile(before)
    return number


def read_all(octets: bytes) -> None:
    message = Part(octets)
    for one in message.walk():
        _ = one.name, one.charset, one.disposition, one.encoding, one.content_id, one.left_out
        one.text()
    unstructured(message.first(b"subject") or b"")
    message.body_part(b"plain")
    _ = message.number_of_fields


@pytest.mark.long
@pytest.mark.timeout(60)  # an expression that looks for its end again and again takes hours
@pytest.mark.parametrize("kind", FLOODS)
def test_the_work_grows_no_faster_than_the_message(kind: str) -> None:
    read_all(FLOODS[kind](10))  # what is compiled and remembered at first
    small, large = (steps(lambda n=n: read_all(FLOODS[kind](n))) for n in (20_000, 40_000))
    # Twice, or somewhat more where another branch is taken; four times were too many.
    assert large <= 3 * small + 1_000
    read_all(FLOODS[kind](400_000))
