"""What an address looks like; the dialogues about it are in test_servers_smtp.py."""

from __future__ import annotations

import pytest

from labserver.servers.addresses import Path, is_address, read_path


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
