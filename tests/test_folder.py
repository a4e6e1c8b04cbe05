"""The lab's folder: who can read it, what is planted in it, and what stays as it is."""

from __future__ import annotations

import os
import shutil
import socket
import sqlite3
import ssl
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trustme

from labserver import Lab, StoreError
from labserver.folder import FolderError, write
from labserver.tls import certificates

pytestmark = pytest.mark.process

POSIX = pytest.mark.skipif(os.name != "posix", reason="other systems have no modes and no links")
FILES = ("ca.pem", "server.pem", "mail.sqlite", "mail.sqlite-wal", "mail.sqlite-shm")
PRECIOUS = b"Somebody else's only copy.\n"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


@contextmanager
def umask(number: int) -> Iterator[None]:
    before = os.umask(number)
    try:
        yield
    finally:
        os.umask(before)


@contextmanager
def nobody() -> Iterator[None]:
    """Where the tests run as root, whom no mode stops, do it as somebody else."""
    if os.name != "posix" or os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def works(lab: Lab) -> bool:
    """Whether a client that trusts the lab's own authority gets its greeting."""
    with socket.create_connection(lab.submissions, timeout=10) as plain:
        context = ssl.create_default_context(cafile=lab.ca)
        with context.wrap_socket(plain, server_hostname="localhost") as client:
            return client.recv(100).startswith(b"220 ")


# -- who can read it


@POSIX
def test_what_the_lab_makes_is_its_owner_s_alone(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "mail"
    with umask(0), Lab(data=folder) as lab:
        assert mode(folder) == 0o700
        found = {path.name: mode(path) for path in folder.iterdir()}
        assert lab.notice == ""
    assert set(found) >= {"ca.pem", "server.pem", "mail.sqlite", "mail.sqlite-wal"}
    assert set(found.values()) == {0o600}


@POSIX
@pytest.mark.parametrize("given", [0o755, 0o750, 0o700])
def test_a_folder_that_was_there_keeps_its_mode(tmp_path: Path, given: int) -> None:
    folder = tmp_path / "mail"
    folder.mkdir()
    folder.chmod(given)
    with Lab(data=folder):
        found = {mode(path) for path in folder.iterdir()}
    assert mode(folder) == given
    assert found == {0o600}
    assert not (folder / ".gitignore").exists()


@POSIX
def test_a_store_that_others_could_read_is_closed_to_them_and_kept(tmp_path: Path) -> None:
    with Lab(data=tmp_path):
        pass
    before = (tmp_path / "mail.sqlite").read_bytes()
    (tmp_path / "mail.sqlite").chmod(0o666)
    with Lab(data=tmp_path) as lab:
        assert {mode(path) for path in tmp_path.glob("mail.sqlite*")} == {0o600}
        assert lab.notice == ""
    assert (tmp_path / "mail.sqlite").read_bytes() == before


# -- what is there already


def test_the_lab_s_own_files_are_used_again(tmp_path: Path) -> None:
    with Lab(data=tmp_path / "mail") as lab:
        before = lab.ca.read_bytes(), (tmp_path / "mail" / "server.pem").read_bytes()
    names = sorted(path.name for path in (tmp_path / "mail").iterdir())
    with Lab(data=tmp_path / "mail") as lab:
        assert (lab.ca.read_bytes(), (tmp_path / "mail" / "server.pem").read_bytes()) == before
        assert (lab.notice, works(lab)) == ("", True)
    assert sorted(path.name for path in (tmp_path / "mail").iterdir()) == names


@POSIX
@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("target", ["file", "folder", "nothing", "a device"])
def test_a_link_is_set_aside_and_what_it_leads_to_stays(
    tmp_path: Path, name: str, target: str
) -> None:
    outside, folder = tmp_path / "outside", tmp_path / "lab-mail"
    outside.mkdir()
    folder.mkdir()
    led_to = {"folder": outside, "a device": Path(os.devnull)}.get(target, outside / target)
    if target == "file":
        led_to.write_bytes(PRECIOUS)
        led_to.chmod(0o644)
    (folder / name).symlink_to(led_to)
    before = {path: (path.read_bytes(), mode(path)) for path in outside.iterdir()}
    with Lab(data=folder) as lab:
        assert works(lab)
        assert f"{name}.aside-1" in lab.notice
        assert lab.notice.endswith(".")
        assert "\n" not in lab.notice
        assert (folder / f"{name}.aside-1").readlink() == led_to
        assert not any((folder / own).is_symlink() for own in FILES)
    assert {path: (path.read_bytes(), mode(path)) for path in outside.iterdir()} == before
    with Lab(data=folder) as lab:
        assert lab.notice == ""


@POSIX
def test_a_link_to_a_lab_s_own_store_and_certificates_is_a_link(tmp_path: Path) -> None:
    with Lab(data=tmp_path / "other"):
        pass
    before = {path: path.read_bytes() for path in (tmp_path / "other").iterdir()}
    folder = tmp_path / "lab-mail"
    folder.mkdir()
    for name in ("ca.pem", "server.pem", "mail.sqlite"):
        (folder / name).symlink_to(tmp_path / "other" / name)
    with Lab(data=folder) as lab:
        assert lab.ca.read_bytes() != before[tmp_path / "other" / "ca.pem"]
        assert "mail.sqlite.aside-1" in lab.notice
        assert "ca.pem.aside-1 and server.pem.aside-1" in lab.notice
    assert {path: path.read_bytes() for path in (tmp_path / "other").iterdir()} == before


@POSIX
@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kind", ["directory", "pipe", "socket"])
def test_what_is_no_file_is_set_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, kind: str
) -> None:
    if kind == "directory":
        (tmp_path / name).mkdir()
        (tmp_path / name / "precious").write_bytes(PRECIOUS)
    elif kind == "pipe":
        os.mkfifo(tmp_path / name)
    else:
        monkeypatch.chdir(tmp_path)  # the name of a socket is short
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(name)
    before = stat.S_IFMT((tmp_path / name).lstat().st_mode)
    with Lab(data=tmp_path) as lab:
        assert works(lab)
        assert f"{name}.aside-1" in lab.notice
    assert stat.S_IFMT((tmp_path / f"{name}.aside-1").lstat().st_mode) == before
    if kind == "directory":
        assert (tmp_path / f"{name}.aside-1" / "precious").read_bytes() == PRECIOUS


def test_what_was_set_aside_before_is_never_replaced(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / "ca.pem").unlink(missing_ok=True)
        (tmp_path / "ca.pem").write_bytes(b"%d" % number)
        with Lab(data=tmp_path):
            pass
    kept = [(tmp_path / f"ca.pem.aside-{number}").read_bytes() for number in (1, 2, 3)]
    assert kept == [b"0", b"1", b"2"]


def foreign(folder: Path) -> None:
    """A pair of somebody's own that is as good as the lab's."""
    authority = trustme.CA(organization_name="Somebody")
    leaf = authority.issue_cert("localhost", "127.0.0.1")
    authority.cert_pem.write_to_path(folder / "ca.pem")
    leaf.private_key_and_cert_chain_pem.write_to_path(folder / "server.pem")


def of_two_labs(folder: Path) -> None:
    (folder / "one").mkdir()
    certificates(folder, "lab.example")
    certificates(folder / "one", "lab.example")
    shutil.copy(folder / "one" / "ca.pem", folder / "ca.pem")


def unreadable(folder: Path) -> None:
    (folder / "ca.pem").write_bytes(b"-----BEGIN CERTIFICATE-----\nMINE\n")
    (folder / "server.pem").write_bytes(b"-----BEGIN PRIVATE KEY-----\nMY OWN KEY\n")


def with_a_password(folder: Path) -> None:
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric import ec

    certificates(folder, "lab.example")
    key = ec.generate_private_key(ec.SECP256R1())
    locked = form.BestAvailableEncryption(b"a secret")
    pem = key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, locked)
    (folder / "server.pem").write_bytes(pem)


def several_authorities(folder: Path) -> None:
    certificates(folder, "lab.example")
    with (folder / "ca.pem").open("ab") as file:
        file.write(trustme.CA().cert_pem.bytes())


def only_the_key(folder: Path) -> None:
    certificates(folder, "lab.example")
    (folder / "ca.pem").unlink()


def open_to_all(folder: Path) -> None:
    certificates(folder, "lab.example")
    (folder / "server.pem").chmod(0o666)


def readable_by_the_group(folder: Path) -> None:
    certificates(folder, "lab.example")
    (folder / "server.pem").chmod(0o640)


def an_authority_that_others_can_replace(folder: Path) -> None:
    certificates(folder, "lab.example")
    (folder / "ca.pem").chmod(0o666)


@POSIX
@pytest.mark.parametrize(
    "plant",
    [
        foreign,
        of_two_labs,
        unreadable,
        with_a_password,
        several_authorities,
        only_the_key,
        open_to_all,
        readable_by_the_group,
        an_authority_that_others_can_replace,
    ],
)
def test_certificates_that_are_not_the_lab_s_are_set_aside_as_they_are(
    tmp_path: Path, plant: Callable[[Path], None]
) -> None:
    plant(tmp_path)
    names = [name for name in ("ca.pem", "server.pem") if (tmp_path / name).exists()]
    before = {name: ((tmp_path / name).read_bytes(), mode(tmp_path / name)) for name in names}
    with Lab(data=tmp_path) as lab:
        assert works(lab)
        assert lab.notice.count(".aside-1") == len(names)
        assert {mode(tmp_path / name) for name in ("ca.pem", "server.pem")} == {0o600}
    for name in names:
        kept = tmp_path / f"{name}.aside-1"
        assert (kept.read_bytes(), mode(kept)) == before[name]


@POSIX
def test_an_authority_that_others_can_read_is_still_the_lab_s(tmp_path: Path) -> None:
    before = certificates(tmp_path, "lab.example").ca.read_bytes()
    (tmp_path / "ca.pem").chmod(0o644)
    with Lab(data=tmp_path) as lab:
        assert (lab.notice, lab.ca.read_bytes()) == ("", before)


def test_a_journal_that_names_another_file_is_set_aside(tmp_path: Path) -> None:
    """SQLite deletes a file that a hot journal names as its super-journal."""
    folder, victim = tmp_path / "lab-mail", tmp_path / "victim"
    with Lab(data=folder):
        pass
    victim.write_bytes(PRECIOUS)
    store = folder / "mail.sqlite"
    # A commit over two files whose process died: its journal names the super-journal.
    name = os.fsencode(victim)
    page = store.read_bytes()[:4096]
    header = bytes.fromhex("d9d505f920a163d7") + (1).to_bytes(4, "big") + bytes(4)
    header += (len(store.read_bytes()) // 4096).to_bytes(4, "big")
    header += (512).to_bytes(4, "big") + (4096).to_bytes(4, "big")
    checksum = sum(page[at] for at in range(4096 - 200, 0, -200))
    record = (1).to_bytes(4, "big") + page + checksum.to_bytes(4, "big")
    end = (0x40000000 // 4096 + 1).to_bytes(4, "big") + name + len(name).to_bytes(4, "big")
    end += sum(name).to_bytes(4, "big") + bytes.fromhex("d9d505f920a163d7")
    journal = header.ljust(512, b"\0") + record + end
    folder.joinpath("mail.sqlite-journal").write_bytes(journal)
    # The journal is one that SQLite does act on.
    twin = tmp_path / "twin"
    shutil.copytree(folder, twin)
    sqlite3.connect(twin / "mail.sqlite").execute("SELECT * FROM sqlite_master").fetchall()
    assert not victim.exists()
    victim.write_bytes(PRECIOUS)
    with Lab(data=folder) as lab:
        assert "mail.sqlite-journal.aside-1" in lab.notice
    assert victim.read_bytes() == PRECIOUS


@pytest.mark.parametrize("stored", [True, False])
@pytest.mark.parametrize(
    "octets", [b"mine", PRECIOUS, bytes.fromhex("d9d505f920a163d6"), b"\0" * 600]
)
def test_a_journal_that_is_none_is_set_aside(tmp_path: Path, octets: bytes, stored: bool) -> None:
    """SQLite deletes a journal that it can't use."""
    folder = tmp_path / "lab-mail"
    if stored:
        with Lab(data=folder):
            pass
    folder.mkdir(exist_ok=True)
    folder.joinpath("mail.sqlite-journal").write_bytes(octets)
    with Lab(data=folder) as lab:
        assert "mail.sqlite-journal.aside-1" in lab.notice
    assert folder.joinpath("mail.sqlite-journal.aside-1").read_bytes() == octets


# -- what can't be used


@POSIX
def test_a_folder_that_is_a_link_is_refused(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    for name, target in (("a", outside), ("b", tmp_path / "nothing")):
        (tmp_path / name).symlink_to(target)
        with pytest.raises(
            FolderError, match=r"\AThe folder .* can't be used: it is a link;.*\.\Z"
        ):
            Lab(data=tmp_path / name)
    assert list(outside.iterdir()) == []
    assert not (tmp_path / "nothing").exists()


def not_there(tmp_path: Path) -> Path:
    (tmp_path / "file").write_bytes(PRECIOUS)
    return tmp_path / "file"


@pytest.mark.parametrize(
    "named",
    [
        not_there,
        lambda folder: not_there(folder) / "below",
        lambda folder: not_there(folder) / "below" / "that",
        lambda folder: folder / ("x" * 300),
        lambda folder: f"{folder}/a\0b",
        pytest.param(lambda folder: "/proc/x", marks=POSIX),
        pytest.param(lambda folder: "/proc/self/mail", marks=POSIX),
    ],
)
def test_a_folder_that_can_not_be_used_is_refused_in_one_sentence(
    tmp_path: Path, named: Callable[[Path], str | Path]
) -> None:
    with pytest.raises(
        FolderError, match=r"\AThe folder [^\n\0]* can't be used: [^\n\0]*\.\Z"
    ) as e:
        Lab(data=named(tmp_path))
    assert "Errno" not in str(e.value)
    assert [path.read_bytes() for path in tmp_path.iterdir()] in ([], [PRECIOUS])


@POSIX
def test_a_folder_that_can_not_be_written_is_refused_in_one_sentence(tmp_path: Path) -> None:
    folder = tmp_path / "mail"
    folder.mkdir()
    folder.chmod(0o555)
    for part in (*tmp_path.parents, tmp_path):
        if not mode(part) & 0o001 and not os.geteuid():
            part.chmod(0o711)  # pytest's own folders, for the other user to get here
    with nobody(), pytest.raises(FolderError, match=r"\AThe folder .*Permission denied\.\Z"):
        Lab(data=folder)
    with nobody(), pytest.raises(FolderError, match=r"\AThe folder .*Permission denied\.\Z"):
        Lab(data=folder / "new")
    assert list(folder.iterdir()) == []


@POSIX
@pytest.mark.parametrize("name", ["server.pem", "mail.sqlite"])
def test_what_can_not_be_set_aside_is_refused_in_one_sentence(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / name).symlink_to(tmp_path / "victim")

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises((FolderError, StoreError), match=r"\AThe [^\n]*Permission denied[^\n]*\.\Z"):
        Lab(data=tmp_path)
    assert not (tmp_path / "victim").exists()


def test_a_file_that_can_not_be_finished_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "full").write_bytes(PRECIOUS)
    with pytest.raises(OSError, match="there"):
        write(tmp_path / "there", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


# -- the project around it


def test_git_leaves_the_folder_alone(tmp_path: Path) -> None:
    if shutil.which("git") is None:
        pytest.skip("git is not installed")

    def git(*command: str) -> str:
        quiet = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
        said = subprocess.run(
            ["git", *command], cwd=tmp_path, env=os.environ | quiet, capture_output=True, check=True
        )
        return said.stdout.decode()

    git("init", "-q")
    code = "from labserver import Lab; Lab(data='lab-mail').close()"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    assert (tmp_path / "lab-mail" / "mail.sqlite").exists()
    assert git("status", "--porcelain", "--untracked-files=all") == ""
    assert git("add", "--all", "--dry-run") == ""
