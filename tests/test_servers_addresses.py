"""What an address looks like; the dialogues about it are in test_servers_smtp.py."""

from __future__ import annotations

import pytest

from labserver.servers.addresses import Path, ascii_domain, is_address, one_spelling, read_path


@pytest.mark.parametrize(
    "text",
    [
        "ana@lab.example",
        "o'b+tag=1/2@lab.example",
        '"o b"@lab.example',
        '"a@b"@lab.example',
        "ana@[192.0.2.1]",
        "josé@bücher.example",
        "आना@उदाहरण.example",
    ],
)
def test_addresses(text: str) -> None:
    assert is_address(text)
    assert read_path(f"<{text}>") == Path(text, "")
    assert read_path(f"<{text}> SIZE=1 BODY=7BIT") == Path(text, "SIZE=1 BODY=7BIT")


@pytest.mark.parametrize(
    "text",
    [
        *("", "ana", "@", "ana@", "@lab.example", "a b@lab.example", "ana@lab example"),
        *("ana@lab..example", ".ana@lab.example", "ana.@lab.example", "ana@lab.example."),
        *('"ana@lab.example', 'a"n"a@lab.example', "ana@[lab", "ana@lab.example,ben@lab.example"),
        *("ana@lab.example\n", "ana@lab.example\r", "a\0@lab.example", "\udcff@lab.example"),
        *('"a\rb"@lab.example', '"a\\\nb"@lab.example', "ana@lab\udcff.example", "<a@lab.example>"),
        "ana@lab.example\u2028",
    ],
)
def test_what_is_no_address(text: str) -> None:
    assert not is_address(text)


def test_the_null_reverse_path() -> None:
    assert read_path("<>") == Path("", "")
    assert read_path("<> SIZE=1") == Path("", "SIZE=1")
    assert read_path("") is None


def test_a_source_route_is_overread() -> None:
    assert read_path("<@a.example,@b.example:ana@lab.example>") == Path("ana@lab.example", "")


def test_postmaster_needs_no_domain() -> None:
    assert read_path("<Postmaster>") == Path("Postmaster", "")


def test_quotes_that_are_not_needed_are_taken_away() -> None:
    assert read_path('<"a\\na"@lab.example>') == Path("ana@lab.example", "")
    assert read_path('<"a\\ na"@lab.example>') == Path('"a\\ na"@lab.example', "")
    assert read_path('<""@lab.example>') == Path('""@lab.example', "")


@pytest.mark.parametrize(
    "text",
    ["<" + "a." * 5000, '<"' + "\\a" * 5000, "<" + "@a," * 5000, "<a@" + "b." * 5000, " " * 9999],
)
def test_hostile_input_is_refused_without_ado(text: str) -> None:
    # An expression that tries all ways again and again would not come to an end.
    assert read_path(text) is None
    assert not is_address(text)


ONE_ADDRESS = [
    ("ana@bücher.example", "ana@xn--bcher-kva.example"),
    ("ana@bücher.example", "Ana@BÜCHER.Example"),
    ("ana@bücher.example", "ANA@XN--BCHER-KVA.EXAMPLE"),
    ("ana@bücher.example", "ana@bu\u0308cher.example"),
    ("ana@bücher.example", "ana@bücher\u3002example"),
    ("ana@bücher.example", "ana@ｂüｃｈｅｒ.example"),
    ("ana@a.bücher.例え", "ana@a.xn--bcher-kva.xn--r8jz45g"),
    ("ana@faß.example", "ana@xn--fa-hia.example"),
    ("ana@βόλος.example", "ana@xn--nxasmm1c.example"),
    ("ana@💩.example", "ana@xn--ls8h.example"),
    ("ana@उदाहरण.example", "ana@xn--p1b6ci4b4b3a.example"),
    ("josé@lab.example", "JOSE\u0301@LAB.example"),
    ("josé@bücher.example", "JOSÉ@xn--BCHER-kva.example"),
]


@pytest.mark.parametrize(("one", "other"), ONE_ADDRESS)
def test_one_address_in_two_spellings(one: str, other: str) -> None:
    assert one_spelling(one) == one_spelling(other)
    assert one_spelling(one_spelling(other)) == one_spelling(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("ana@bücher.example", "ana@buecher.example"),
        ("ana@bücher.example", "ana@bucher.example"),
        ("ana@faß.example", "ana@fass.example"),
        ("ana@xn--fa-hia.example", "ana@fass.example"),
        ("xn--bcher-kva@lab.example", "bücher@lab.example"),  # a local part is no domain
        ("ana@xn--bcher-kva.example", "ana@xn--bcher-kvb.example"),
        # What only looks like the ASCII form is another domain, whatever it would decode to.
        ("ana@xn--BCHER-k0a.example", "ana@bücher.example"),
        ("ana@bücher.example", f"ana@xn--{'BÜCHER'.encode('punycode').decode()}.example"),
        ("ana@lab.example", "ana@xn--lab-.example"),
    ],
)
def test_other_addresses(one: str, other: str) -> None:
    assert one_spelling(one) != one_spelling(other)


@pytest.mark.parametrize(
    "label",
    [
        *("xn--", "xn---", "xn--a", "xn--\xfc", "xn--bcher-kv", "xn--99999999999999", "xn--a-"),
        *("xn--0", "xn--zzzzzzzz", "xn--" + "9" * 59, "xn--" + "a" * 5000, "xn--xn---epa"),
        *("xn--\udcff", "\udcff", "xn--ab-\x00"),
    ],
)
def test_a_broken_label_stays_what_it_is(label: str) -> None:
    address = f"ana@{label}.example"
    assert one_spelling(address) == address.lower()
    assert one_spelling(label) == label


def test_a_domain_as_dns_knows_it() -> None:
    assert ascii_domain("Lab.example") == "Lab.example"
    assert ascii_domain("BÜCHER.example") == "xn--bcher-kva.example"
    assert ascii_domain("xn--bcher-kva.example") == "xn--bcher-kva.example"
    assert ascii_domain("例え\u3002テスト") == "xn--r8jz45g.xn--zckzah"
