"""The listeners stand in one table, and whoever knows them reads it."""

from __future__ import annotations

from labserver import LISTENERS, Lab
from labserver.listeners import TABLE, Listener, spoken_on
from labserver.network import Network


def test_each_listener_has_its_usual_port_and_role() -> None:
    assert {name: (one.protocol, one.port) for name, one in TABLE.items()} == {
        "smtp": ("SMTP", 25),
        "submission": ("SMTP", 587),
        "submissions": ("SMTP", 465),
        "pop3": ("POP3", 110),
        "pop3s": ("POP3", 995),
        "imap": ("IMAP", 143),
        "imaps": ("IMAP", 993),
    }
    assert [name for name, one in TABLE.items() if one.implicit] == [
        "submissions",
        "pop3s",
        "imaps",
    ]
    assert [name for name, one in TABLE.items() if one.submission] == ["submission", "submissions"]
    assert Listener("x", "SMTP", 1) == Listener("x", "SMTP", 1, implicit=False, submission=False)


def test_a_protocol_is_spoken_first_where_it_is_plainest() -> None:
    assert spoken_on("SMTP") == ("smtp", "submission", "submissions")
    assert spoken_on("POP3") == ("pop3", "pop3s")
    assert spoken_on("IMAP") == ("imap", "imaps")


def test_a_lab_listens_on_what_the_table_names(network: Network) -> None:
    with Lab(network=network) as lab:
        assert tuple(lab.listeners) == LISTENERS == tuple(TABLE)
