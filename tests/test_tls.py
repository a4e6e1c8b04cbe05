"""The lab's own certificates: who trusts them, and what happens to the files."""

from __future__ import annotations

import os
import ssl
from pathlib import Path

import pytest

from labserver.tls import Tls, available, certificates


def handshake(server: ssl.SSLContext, client: ssl.SSLContext, name: str) -> None:
    """A handshake in memory. Raises `ssl.SSLError` where either end refuses."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(to_client, to_server, server_hostname=name),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    while ends:
        for end in tuple(ends):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
            ends.remove(end)


def test_this_python_can_do_tls() -> None:
    assert available()


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "mail.lab.example"])
def test_the_clients_context_trusts_the_server(tmp_path: Path, name: str) -> None:
    made = certificates(tmp_path, "mail.lab.example")
    handshake(made.server, made.client, name)


def test_a_strict_client_accepts_the_chain(tmp_path: Path) -> None:
    made = certificates(tmp_path, "mail.lab.example")
    strict = ssl.create_default_context(cafile=str(made.ca))
    strict.verify_flags |= ssl.VERIFY_X509_STRICT
    handshake(made.server, strict, "localhost")


def test_other_names_and_other_clients_are_refused(tmp_path: Path) -> None:
    made = certificates(tmp_path, "mail.lab.example")
    with pytest.raises(ssl.SSLCertVerificationError, match="mismatch"):
        handshake(made.server, made.client, "bank.example")
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(made.server, ssl.create_default_context(), "localhost")


def test_two_labs_do_not_trust_each_other(tmp_path: Path) -> None:
    labs: list[Tls] = []
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        labs.append(certificates(folder, "lab.example"))
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(labs[0].server, labs[1].client, "localhost")


def test_the_certificates_in_a_folder_are_used_again(tmp_path: Path) -> None:
    certificates(tmp_path, "lab.example")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    again = certificates(tmp_path, "lab.example")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    handshake(again.server, again.client, "localhost")


@pytest.mark.parametrize("name", ["ca.pem", "server.pem"])
@pytest.mark.parametrize("content", [b"", b"nonsense", None])
def test_damaged_or_missing_files_are_made_anew(
    tmp_path: Path, name: str, content: bytes | None
) -> None:
    certificates(tmp_path, "lab.example")
    if content is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_bytes(content)
    again = certificates(tmp_path, "lab.example")
    handshake(again.server, again.client, "localhost")


def test_the_authoritys_private_key_is_kept_nowhere(tmp_path: Path) -> None:
    made = certificates(tmp_path, "lab.example")
    assert b"PRIVATE KEY" not in made.ca.read_bytes()
    assert (tmp_path / "server.pem").read_bytes().count(b"BEGIN") == 2  # one key, one certificate
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ca.pem", "server.pem"]


@pytest.mark.skipif(os.name != "posix", reason="other systems have no file mode")
def test_only_the_owner_can_read_the_servers_key(tmp_path: Path) -> None:
    certificates(tmp_path, "lab.example")
    assert (tmp_path / "server.pem").stat().st_mode & 0o077 == 0


def test_a_folder_that_is_missing_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        certificates(tmp_path / "missing", "lab.example")


@pytest.mark.parametrize("name", ["mx.shop.example", "lab.example.org", "xn--bcher-kva.example"])
def test_certificates_of_another_name_make_room_for_new_ones(tmp_path: Path, name: str) -> None:
    certificates(tmp_path, "lab.example")
    kept = (tmp_path / "ca.pem").read_bytes()
    made = certificates(tmp_path, name)
    handshake(made.server, made.client, name)
    assert f"they don't name {name}" in made.notice
    assert (tmp_path / "ca.pem.aside-1").read_bytes() == kept
    assert certificates(tmp_path, name).notice == ""
