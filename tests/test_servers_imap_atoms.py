"""What IMAP commands are made of, octet by octet (RFC 3501 section 9), and mailbox names."""

from __future__ import annotations

import imaplib
import re
from collections.abc import Iterator

import imapclient
import pytest
from dialogue import play
from hypothesis import given, settings
from hypothesis import strategies as st
from pymap.parsing import Params
from pymap.parsing.exceptions import NotParseable
from test_servers_imap import ANA, HELLO, PASSWORD, Imap, ana, connect, deliver, keep

from labserver import Lab
from labserver.catalog import explain
from labserver.network import Network
from labserver.network.loopback import LoopbackNetwork
from labserver.servers.imap import atoms
from labserver.servers.imap.names import Pattern, decoded, encoded

pytestmark = pytest.mark.protocol

# The grammar of RFC 3501 section 9, in its own words.
CHAR = set(range(0x01, 0x80))
CTL = set(range(0x20)) | {0x7F}
QUOTED_SPECIALS, LIST_WILDCARDS, RESP_SPECIALS = set(b'"\\'), set(b"%*"), set(b"]")
ATOM_SPECIALS = set(b"(){ ") | CTL | LIST_WILDCARDS | QUOTED_SPECIALS | RESP_SPECIALS
ATOM_CHAR = CHAR - ATOM_SPECIALS
ASTRING_CHAR = ATOM_CHAR | RESP_SPECIALS
TAG_CHAR = ASTRING_CHAR - set(b"+")
LIST_CHAR = ATOM_CHAR | LIST_WILDCARDS | RESP_SPECIALS
PRINTABLE = [chr(octet) for octet in range(0x21, 0x7F)]


@pytest.mark.parametrize(
    ("kind", "allowed"),
    [(atoms.Atom, ATOM_CHAR), (atoms.AString, ASTRING_CHAR), (atoms.Tag, TAG_CHAR)],
)
def test_each_octet_is_in_a_token_as_the_grammar_says(kind: type, allowed: set[int]) -> None:
    for octet in range(256):
        said = memoryview(b"a" + bytes([octet]) + b"\r\n")
        token, rest = kind.parse(said, Params())
        assert len(token.value) == (2 if octet in allowed else 1), (kind, octet)
        assert token.value + bytes(rest) == bytes(said)


def test_each_octet_is_in_a_pattern_as_the_grammar_says() -> None:
    for octet in range(256):
        assert bool(atoms.LIST_PATTERN.fullmatch(bytes([octet]))) == (octet in LIST_CHAR), octet


@pytest.mark.parametrize("before", [b"", b"\\"])
def test_each_octet_is_in_a_flag_as_the_grammar_says(before: bytes) -> None:
    for octet in set(range(256)) - set(b" )"):
        said = memoryview(b"(%bx%c)" % (before, octet))
        if octet in ATOM_CHAR:
            assert len(atoms.flags(said)[0]) == 1
        else:
            with pytest.raises(NotParseable):
                atoms.flags(said)


# -- the same on the wire


@pytest.mark.process
@pytest.mark.parametrize("password", ["pa}ss", "}", "2+}", "pa]ss", "]}[", "a+{b}", "{2}", "{2+}"])
def test_a_password_is_quoted_only_where_it_has_to_be(network: Network, password: str) -> None:
    with Lab(network=network, accounts={ANA: password}) as lab:
        client = connect(lab)
        client.line()
        bare = all(ord(character) in ASTRING_CHAR for character in password)
        client.send(f"a LOGIN {ANA} {password}\r\n".encode() if bare else b"a NOOP\r\n")
        assert client.line().startswith(b"a OK ")
        client = connect(lab)
        client.line()
        client.send(f'a}} LOGIN {ANA} "{password}"\r\n'.encode())
        assert client.line().startswith(b"a} OK ")
        client.send(b"b NOOP\r\n")
        assert client.line() == b"b OK NOOP completed.\r\n"
        told = str(lab.sessions[-1]).replace("a}", "")
        assert password not in told


def test_a_tag_has_any_astring_character_but_plus(lab: Lab) -> None:
    client = Imap(lab).client  # before login only a few strange tags would be answered
    for character in PRINTABLE:
        tag = f"b{character}x"
        client.send(f"{tag} NOOP\r\nok NOOP\r\n".encode())
        told = client.line().decode()
        if ord(character) in TAG_CHAR:
            assert told == f"{tag} OK NOOP completed.\r\n"
        else:
            assert told == "* BAD That can't be read as a command.\r\n"
        assert client.line() == b"ok OK NOOP completed.\r\n"


@pytest.mark.parametrize("tag", ["b}", "}", "a]b}", "b}{", "}+"])
def test_the_transcript_knows_a_tag_when_it_sees_one(lab: Lab, tag: str) -> None:
    client = connect(lab)
    client.line()
    client.send(f"{tag} NOOP\r\n".encode())
    client.line()
    good = set(tag.encode()) <= TAG_CHAR
    assert (explain(lab.sessions[-1])[2].label == "OK") == good


def test_a_mailbox_name_is_an_astring_of_any_character(lab: Lab) -> None:
    client = Imap(lab)
    for character in PRINTABLE:
        _name_with(character, client)


def _name_with(character: str, client: Imap) -> None:
    name = f"x{character}y"
    quoted = '"{}"'.format(re.sub(r'([\\"])', r"\\\1", name))
    if character in "*%":
        assert client("CREATE", quoted)[-1].startswith("NO [CANNOT] ")
        return
    said = name.replace("&", "&-")
    wire = quoted.replace("&", "&-")
    if ord(character) in ASTRING_CHAR:
        assert client("CREATE", said) == ["OK CREATE completed."]
        assert client("SELECT", said)[-1].startswith("OK ")
    else:
        assert client("CREATE", said)[-1].startswith("BAD ")
        assert client("CREATE", wire) == ["OK CREATE completed."]
    assert client("SELECT", wire)[-1].startswith("OK ")
    assert client("SUBSCRIBE", wire) == ["OK SUBSCRIBE completed."]
    pattern = said if ord(character) in LIST_CHAR else wire
    name_told = said if ord(character) in ASTRING_CHAR - set(b"[]}") else wire
    for command in ("LIST", "LSUB"):
        told, completed = client(command, '""', pattern)[-2:]
        assert told.startswith(f"* {command} (")
        assert told.endswith(f') "/" {name_told}')
        assert completed == f"OK {command} completed."
    assert client("STATUS", wire, "(MESSAGES)")[0] == f"* STATUS {name_told} (MESSAGES 0)"
    assert client("RENAME", wire, '"z z"') == ["OK RENAME completed."]
    assert client("DELETE", '"z z"') == ["OK DELETE completed."]
    assert client("UNSUBSCRIBE", wire) == ["OK UNSUBSCRIBE completed."]


@pytest.mark.parametrize("keyword", ["a}b", "}", "$x[y", "a+b", "a'b", "~"])
def test_a_keyword_is_an_atom(lab: Lab, keyword: str) -> None:
    keep(lab, HELLO, HELLO)
    client = ana(lab)
    assert client("STORE 1 +FLAGS", f"({keyword})")[-1] == "OK STORE completed."
    assert client("STORE 2 +FLAGS", keyword)[-1] == "OK STORE completed."
    assert client("UID STORE 2 -FLAGS", keyword)[-1] == "OK UID STORE completed."
    assert client("SEARCH KEYWORD", keyword)[0] == "* SEARCH 1"
    assert client("SEARCH UNKEYWORD", keyword)[0] == "* SEARCH 2"
    assert client("SEARCH NOT KEYWORD", keyword)[0] == "* SEARCH 2"
    assert client(f"SEARCH (OR KEYWORD {keyword} DELETED)")[0] == "* SEARCH 1"
    client(f"APPEND INBOX ({keyword}) {{3+}}\r\nabc")
    assert client("SEARCH KEYWORD", keyword)[0] == "* SEARCH 1 3"
    assert lab.inbox(ANA)[2].flags == {keyword}


@pytest.mark.parametrize("keyword", ["a]b", "a%b", "a*", "a{b", 'a"b', "a\\b", "\\", "\\*", "\\ x"])
def test_what_is_no_atom_is_no_keyword(lab: Lab, keyword: str) -> None:
    keep(lab, HELLO)
    client = ana(lab)
    for said in (f"STORE 1 +FLAGS ({keyword})", f"STORE 1 FLAGS {keyword}", "STORE 1 FLAGS "):
        assert client(said)[-1].startswith("BAD "), said
    assert client("SEARCH KEYWORD", keyword)[-1].startswith("BAD ")
    assert client("NOOP") == ["OK NOOP completed."]


@pytest.mark.parametrize("word", ["x}", "}", "a]b", "2}", "{2}"])
def test_search_and_fetch_take_astrings(lab: Lab, word: str) -> None:
    keep(lab, b"Subject: say %b now\r\nX}: }\r\n\r\nbody %b\r\n" % (word.encode(), word.encode()))
    client = ana(lab)
    said = word if word != "{2}" else f'"{word}"'
    for key in ("SUBJECT", "TEXT", "BODY", "HEADER SUBJECT"):
        assert client("SEARCH", key, said)[0] == "* SEARCH 1", key
    assert client("SEARCH CHARSET UTF-8 SUBJECT", said)[0] == "* SEARCH 1"
    assert client("SEARCH HEADER X} }")[0] == "* SEARCH 1"
    header = f"Subject: say {word} now\r\nX}}: }}\r\n\r\n"
    assert client("FETCH 1 BODY.PEEK[HEADER.FIELDS (X} Subject)]")[0] == (
        f"* 1 FETCH (BODY[HEADER.FIELDS (X}} Subject)] {{{len(header)}}}\r\n{header})"
    )


def test_a_header_field_name_that_could_not_be_told_back_is_refused(lab: Lab) -> None:
    keep(lab, HELLO)
    client = ana(lab)
    for name in ("{4+}\r\na\r\nb", "{1+}\r\n\n", '"a\tb"', "{2+}\r\n\u00e9"):
        told = client(f"FETCH 1 BODY.PEEK[HEADER.FIELDS ({name})]")
        assert told == ["BAD A header field's name has no such characters."]


@pytest.mark.parametrize(
    "said",
    [
        "CREATE {2+}\r\nx}",
        "CREATE {3}\r\nx{}",
        "CREATE {4}\r\n{2+}",
        'CREATE "{2+}"',
        'CREATE "x{2}"',
        "CREATE 2}",
        "CREATE +}",
        "CREATE {1+}\r\n}",
    ],
)
def test_what_announces_a_literal_is_one_and_nothing_else_is(lab: Lab, said: str) -> None:
    client = Imap(lab)
    first, announced, rest = said.partition("}\r\n")
    client.say(f"t {first}{announced}".encode() + (b"" if announced else b"\r\n"))
    if announced and not first.endswith("+"):
        assert client.line() == "+ Literal string"
    if announced:
        client.say(rest.encode() + b"\r\n")
    assert client.answer() == ["OK CREATE completed."]
    assert client("NOOP") == ["OK NOOP completed."]
    name = rest or said.split()[1].strip('"')
    listed = client('LIST "" *')[-2]
    assert listed.rpartition(' "/" ')[2].strip('"') == name
    kinds = [line.kind for line in lab.sessions[-1].lines if line.who == "C"]
    assert kinds.count("content") == bool(announced)
    assert kinds.count("command") == (5 if announced else 4)


@pytest.mark.parametrize("line", ['"pa{2}', '"x\\"{2}', "x{2}", "(a{2}", "1{2}"])
def test_what_only_looks_like_a_literal_is_refused_at_once(lab: Lab, line: str) -> None:
    client = Imap(lab)
    for command in ("CREATE", "STATUS INBOX", "SEARCH SUBJECT", 'LIST ""', "STORE 1 FLAGS"):
        assert client(command, line)[-1].startswith("BAD "), (command, line)
        assert client("NOOP") == ["OK NOOP completed."]


@pytest.mark.parametrize("line", ['"pa{2+}', "x{2+}", "(a{2+}", "1{2+}"])
def test_octets_that_come_unasked_are_never_obeyed(lab: Lab, line: str) -> None:
    """Whatever stands before `{2+}`, the client has sent two octets of content behind it."""
    client = Imap(lab)
    client.say(f"t CREATE {line}\r\nzz\r\n".encode())
    assert client.answer()[-1].startswith("BAD ")
    assert client("NOOP") == ["OK NOOP completed."]
    kinds = [line.kind for line in lab.sessions[-1].lines if line.who == "C"]
    assert kinds == ["command", "command", "content", "command", "command"]


def test_imaplib_logs_in_and_opens_what_it_does_not_quote(network: Network) -> None:
    with (
        Lab(network=network, accounts={ANA: "pa}ss"}) as lab,
        imaplib.IMAP4(*lab.imap) as client,
    ):
        client._cmd_log_len = 0  # type: ignore[attr-defined]
        client._simple_command("LOGIN", ANA, "pa}ss")  # type: ignore[attr-defined]
        client.state = "AUTH"
        assert client.create("x}")[0] == "OK"
        assert client.select("x}") == ("OK", [b"0"])
        assert client.list('""', "x}") == ("OK", [b'(\\HasNoChildren) "/" "x}"'])
        assert client.status("x}", "(MESSAGES)") == ("OK", [b'"x}" (MESSAGES 0)'])


# -- NUL


NUL = "A string can't contain the octet NUL (RFC 3501 section 9)."


@pytest.mark.parametrize(
    "said",
    [
        "APPEND INBOX {3+}\r\na\0b",
        "APPEND INBOX (\\Seen) {1+}\r\n\0",
        "APPEND INBOX {3}\r\na\0b",
        "CREATE {3+}\r\na\0b",
        "CREATE {3}\r\na\0b",
        'CREATE "a\0b"',
        'SEARCH SUBJECT "\0"',
        "SEARCH TEXT {1}\r\n\0",
        'LIST "" "\0*"',
        'FETCH 1 BODY.PEEK[HEADER.FIELDS ("a\0")]',
    ],
)
def test_a_string_with_nul_is_refused_and_all_of_it_read(lab: Lab, said: str) -> None:
    keep(lab, HELLO)
    client = ana(lab)
    first, announced, rest = said.partition("}\r\n")
    client.say(f"t {first}{announced}".encode() + (b"" if announced else b"\r\n"))
    if announced and not first.endswith("+"):
        assert client.line() == "+ Literal string"
    if announced:
        client.say(rest.encode() + b"\r\n")
    assert client.answer() == [f"BAD {NUL}"]
    assert client("NOOP") == ["OK NOOP completed."]
    assert len(lab.inbox(ANA)) == 1


@pytest.mark.parametrize("password", ['"{}"', "{{{}+}}\r\n{}"])
def test_a_password_with_nul_is_refused_before_login(lab: Lab, password: str) -> None:
    client = connect(lab)
    client.line()
    octets = PASSWORD + "\0"
    said = password.format(octets) if '"' in password else password.format(len(octets), octets)
    client.send(f"a LOGIN {ANA} {said}\r\n".encode())
    assert client.line() == f"a BAD {NUL}\r\n".encode()


WITH_NUL = (
    b"Subject: a\0b\r\nContent-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\n\r\n"
    b"one\0\0two\r\n--x\r\nContent-Type: text/x\0y\r\n\r\n\0\r\n--x--\r\n"
)


@pytest.mark.parametrize(
    ("item", "told"),
    [
        ("BODY[]", WITH_NUL),
        ("RFC822", WITH_NUL),
        ("BODY[]<8.5>", b" a\0b\r"),
        ("BODY[HEADER]", WITH_NUL.partition(b"--x")[0]),
        ("BODY[HEADER.FIELDS (SUBJECT)]", b"Subject: a\0b\r\n\r\n"),
        ("BODY[TEXT]", WITH_NUL.partition(b"\r\n\r\n")[2]),
        ("BODY[1]", b"one\0\0two"),
        ("BODY[1]<3.2>", b"\0\0"),
        ("BODY[2]", b"\0"),
        ("BODY[2.MIME]", b"Content-Type: text/x\0y\r\n\r\n"),
    ],
)
def test_nul_that_smtp_let_in_is_told_as_another_octet(lab: Lab, item: str, told: bytes) -> None:
    deliver(lab, WITH_NUL)
    with imaplib.IMAP4(*lab.imap) as client:
        client.login(ANA, PASSWORD)
        client.select()
        ((_, octets), _) = client.fetch("1", f"({item})")[1]
        assert octets == told.replace(b"\0", b"\x80")
        assert client.fetch("1", "RFC822.SIZE")[1] == [b"1 (RFC822.SIZE %d)" % len(WITH_NUL)]
        everything = client.fetch("1", "(ENVELOPE BODYSTRUCTURE)")[1]
        assert b"\0" not in repr(everything).encode()
        client.create("kept")
        assert client.copy("1", "kept")[0] == "OK"
    for message in (*lab.inbox(ANA), *lab.mailbox(ANA, "kept")):
        assert message.octets == WITH_NUL


# -- mailbox names

EXAMPLES = settings(derandomize=True, database=None, deadline=None)


@pytest.fixture(scope="module")
def one_lab() -> Iterator[Lab]:
    """One lab for many names; on real sockets, for imapclient knows no others."""
    network = LoopbackNetwork()
    with Lab(network=network) as lab:
        yield lab
    network.close()


NAMES = [
    "&",
    "&&",
    "R&D",
    "\u00e9&",
    "&\u00e9",
    "a&&\u00e9b",
    "\u0434\u0435\u043b\u0430 & \u0441\u0447\u0435\u0442\u0430",
    "\u53f0\u5317/\u65e5\u672c\u8a9e",
    "\U0001f4ec",
    "x\U0001f468\u200d\U0001f469y",
    "/".join(["\u00e9", "&", "\U0001f4ec"]),
    "~peter/mail",
    'a "quoted" \\ name',
    "NIL",
    "nil",
    "123",
    "007",
    "a[b",
    "NILS",
    "(x)",
    "{3}",
    "x{3+}",
    "in\u00e9box",
    "\u0131nbox",
    "\u0131nbox/x",
    "+-",
    "&-",
    "&AOk-",
    "-&-",
    " leading and trailing ",
]


@pytest.mark.process
@pytest.mark.parametrize("name", NAMES)
def test_a_name_comes_back_as_it_was_given(one_lab: Lab, name: str) -> None:
    _round_trip(one_lab, name)


names = st.text(
    st.one_of(
        st.sampled_from('&-+,/ab "\\}{][~\u00e9\u53f0\U0001f4ec'),
        st.characters(codec="utf-8", exclude_categories=["C", "Z"], exclude_characters="*%"),
    ),
    min_size=1,
    max_size=20,
).filter(lambda name: all(name.split("/")) and name.split("/")[0].upper() not in ("INBOX", "KEPT"))


@pytest.mark.process
@settings(EXAMPLES, max_examples=25)
@given(name=names)
def test_any_name_comes_back_as_it_was_given(one_lab: Lab, name: str) -> None:
    _round_trip(one_lab, name)


def _round_trip(lab: Lab, name: str) -> None:
    """All commands take the name that LIST and LSUB tell, and imapclient reads it alike."""
    superiors = {name.rsplit("/", depth)[0] for depth in range(1, name.count("/") + 1)}
    with imaplib.IMAP4(*lab.imap) as client, imapclient.IMAPClient(*lab.imap, ssl=False) as other:
        client.login(ANA, PASSWORD)
        other.login(ANA, PASSWORD)
        other.create_folder(name)
        other.subscribe_folder(name)
        assert {told for _, _, told in other.list_folders()} == {"INBOX", name} | superiors
        assert name in {told for _, _, told in other.list_sub_folders()}
        (row,) = [row for row in client.list()[1] if isinstance(row, bytes) and _is(row, name)]
        said = row.partition(b' "/" ')[2].decode("ascii")
        assert [row] == client.list('""', said)[1]
        assert client.lsub('""', said)[1] == [b'() "/" ' + said.encode()]
        assert client.select(said) == ("OK", [b"0"])
        assert client.select(said, readonly=True) == ("OK", [b"0"])
        assert client.status(said, "(MESSAGES)")[1] == [said.encode() + b" (MESSAGES 0)"]
        assert client.append(said, "", "", HELLO)[0] == "OK"
        assert client.select() == ("OK", [b"0"])
        assert len(lab.mailbox(ANA, name)) == 1
        assert other.select_folder(name)[b"EXISTS"] == 1
        assert other.folder_status(name)[b"MESSAGES"] == 1
        other.select_folder("INBOX")
        assert client.unsubscribe(said)[0] == "OK"
        assert client.rename(said, "kept")[0] == "OK"
        assert client.rename("kept", said)[0] == "OK"
        assert client.delete(said)[0] == "OK"
        for superior in sorted(superiors, key=len, reverse=True):
            other.delete_folder(superior)
        assert other.list_sub_folders() == other.list_sub_folders("", "INBOX")


def _is(row: bytes, name: str) -> bool:
    said = row.partition(b' "/" ')[2]
    if said.startswith(b'"'):
        said = re.sub(rb"\\(.)", rb"\1", said[1:-1])
    return said == encoded(name)


@settings(EXAMPLES)
@given(name=st.text(st.characters(codec="utf-8")))
def test_modified_utf7_is_read_as_it_is_written(name: str) -> None:
    octets = encoded(name)
    assert all(0x20 <= octet <= 0x7E for octet in octets)
    assert decoded(octets, memoryview(b"")) == name


@settings(EXAMPLES)
@given(octets=st.text(st.sampled_from("&-+,/ABab9 ~"), max_size=12).map(str.encode))
def test_what_is_read_is_what_would_be_written(octets: bytes) -> None:
    try:
        name = decoded(octets, memoryview(b""))
    except atoms.Refused:
        return
    assert encoded(name) == octets


BROKEN = [
    "&",  # a shift without an end
    "&abc",
    "&Jjo!",  # the RFC's own examples
    "&U,BTFw-&ZeVnLIqe-",
    "&AGE-",  # `a` stands for itself
    "&ACY-",  # so does `&`, as `&-`
    "&AOl-",  # bits left over that aren't 0
    "&AOk=-",
    "&A-",
    "&2AA-",  # half a surrogate pair
    "&3gDYAA-",
    "Gr\u00fc\u00dfe",  # UTF-8
    "&AOk-&",
    "&'+,-",
]


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_no_modified_utf7_is_told_so(lab: Lab, name: str) -> None:
    client = Imap(lab)
    refusal = "BAD That mailbox name isn't modified UTF-7 (RFC 3501 section 5.1.3)."
    for command in ("CREATE", "SELECT", "DELETE", "SUBSCRIBE", 'LIST ""', "RENAME x"):
        assert client(command, f'"{name}"') == [refusal], command
    assert client("STATUS", f'"{name}"', "(MESSAGES)") == [refusal]


@pytest.mark.parametrize("name", ["a\tb", "&AAk-", "a&AAA-b", "&AH8-", "&AIU-", "&ICg-", "&IC4-"])
def test_control_characters_are_in_no_name(lab: Lab, name: str) -> None:
    client = Imap(lab)
    client("CREATE x")
    for command in ("CREATE", "RENAME x", "SUBSCRIBE"):
        assert client(command, f'"{name}"')[-1].startswith("NO [CANNOT] A mailbox's name can't ")
    assert client("SELECT", f'"{name}"')[-1].startswith("NO ")


# -- patterns


def _slowly(pattern: str, name: str) -> bool:
    """Whether a pattern fits a name, by trying everything."""
    if not pattern:
        return not name
    if pattern[0] in "*%":
        return _slowly(pattern[1:], name) or bool(
            name and (pattern[0] == "*" or name[0] != "/") and _slowly(pattern, name[1:])
        )
    return name[:1] == pattern[0] and _slowly(pattern[1:], name[1:])


@settings(EXAMPLES, max_examples=500)
@given(pattern=st.text("ab/*%", max_size=8), name=st.text("ab/", max_size=8))
def test_a_pattern_fits_what_trying_everything_finds(pattern: str, name: str) -> None:
    assert Pattern(pattern).fits(name) == _slowly(pattern, name)


def test_a_pattern_knows_inbox_in_any_case() -> None:
    assert all(Pattern(pattern).fits("INBOX") for pattern in ("inbox", "In%", "%nb*x", "INBOX"))
    assert not Pattern("in*").fits("INBOXES")
    assert not Pattern("\u00dfNBOX").fits("INBOX")


def test_a_superior_is_listed_for_what_a_pattern_does_not_reach(lab: Lab) -> None:
    client = Imap(lab)
    for name in ("a/b/c", "INBOX/x"):
        client("SUBSCRIBE", name)
    assert client('LSUB "" %') == [
        '* LSUB () "/" INBOX',
        '* LSUB (\\Noselect) "/" a',
        "OK LSUB completed.",
    ]
    assert client('LSUB "" a/%')[0] == '* LSUB (\\Noselect) "/" a/b'
    assert client('LSUB "" a/%/c')[0] == '* LSUB (\\Noselect) "/" a/b/c'


def test_a_session_in_braces_reads_as_one(lab: Lab) -> None:
    session = play(
        lab,
        "imap",
        f"""
        S: * OK ...
        C: a}} LOGIN {ANA} {PASSWORD}
        S: a}} OK ...
        C: b}} CREATE {{2+}}
        C! x}}\\r\\n
        S: b}} OK CREATE completed.
        C: c}} SELECT x}}
        S: * FLAGS ...
        S: * OK ...
        S: * 0 EXISTS
        S: * 0 RECENT
        S: * OK ...
        S: * OK ...
        S: c}} OK [READ-WRITE] SELECT completed.
        C: d}} LOGOUT
        S: * BYE Logging out.
        S: d}} OK Logout successful.
        """,
    )
    assert not any(meaning.detail.startswith("A tag is made of") for meaning in explain(session))
    assert PASSWORD not in str(session)
