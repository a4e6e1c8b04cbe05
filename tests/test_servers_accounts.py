"""Whose mail a lab keeps, and who may log in."""

from __future__ import annotations

import asyncio

import pytest

from labserver import Lab, Limits
from labserver.network.inline import InlineLoop
from labserver.servers.accounts import Accounts, Guesses

ACCOUNTS = Accounts({"Ana@Lab.example": "s3cret", "josé@lab.example": "pässwörd"})


def test_letter_case_of_addresses_does_not_matter() -> None:
    assert ACCOUNTS.has("ana@lab.EXAMPLE")
    assert ACCOUNTS.has("JOSÉ@lab.example")
    assert ACCOUNTS.log_in("ANA@lab.example", "s3cret") == "ana@lab.example"


def test_letter_case_of_passwords_matters() -> None:
    assert ACCOUNTS.log_in("ana@lab.example", "S3cret") is None


def test_passwords_may_be_of_any_script() -> None:
    assert ACCOUNTS.log_in("josé@lab.example", "pässwörd") == "josé@lab.example"


@pytest.mark.parametrize(
    "password",
    ["", "s3cre", "s3cret ", "s3cret\0", "\udcff", "ana@lab.example"],
)
def test_a_wrong_password_lets_nobody_in(password: str) -> None:
    assert ACCOUNTS.log_in("ana@lab.example", password) is None


@pytest.mark.parametrize("name", ["", "ana", "ana@", "@lab.example", "ben@lab.example", "\udcff@x"])
def test_an_unknown_name_lets_nobody_in(name: str) -> None:
    assert ACCOUNTS.log_in(name, "s3cret") is None
    assert not ACCOUNTS.has(name)


def test_local_domains_are_those_of_the_accounts() -> None:
    assert ACCOUNTS.is_local("LAB.example")
    assert not ACCOUNTS.is_local("else.example")
    assert not ACCOUNTS.is_local("")


def test_catch_all_has_everybody_with_the_address_as_password() -> None:
    anybody = Accounts({"ana@lab.example": "s3cret"}, catch_all=True)
    assert anybody.has("Zoe@else.example")
    assert anybody.log_in("Zoe@else.example", "zoe@else.example") == "zoe@else.example"
    assert anybody.log_in("Zoe@else.example", "else") is None
    assert anybody.log_in("zoe", "zoe") is None


def test_catch_all_leaves_the_accounts_their_passwords() -> None:
    anybody = Accounts({"ana@lab.example": "s3cret"}, catch_all=True)
    assert anybody.log_in("ana@lab.example", "s3cret") == "ana@lab.example"
    assert anybody.log_in("ana@lab.example", "ana@lab.example") is None


@pytest.mark.parametrize(
    "passwords",
    [
        {"ana": "x"},
        {"ana@": "x"},
        {"@lab.example": "x"},
        {"ana @lab.example": "x"},
        {"ana@lab.example\n": "x"},
        {"<ana@lab.example>": "x"},
        {"ana\0@lab.example": "x"},
        {"ana\udcff@lab.example": "x"},
        {"ana@lab.example,ben@lab.example": "x"},
        {"ana@lab.example": ""},
        {"ana@lab.example": None},
        {"ana@lab.example": 5},
        {"ana@lab.example": "\udcff"},
        {5: "x"},
        {"ana@lab.example": "x", "Ana@lab.example": "y"},
    ],
)
def test_accounts_that_make_no_sense_are_refused_in_one_sentence(passwords: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"\A[A-Z'\"5<@][^\n]*\.\Z"):
        Accounts(passwords)


def test_passwords_are_not_in_the_repr() -> None:
    assert "s3cret" not in repr(ACCOUNTS)


def test_wrong_passwords_are_counted_for_each_name_until_a_right_one() -> None:
    async def count() -> None:
        guesses = Guesses(Limits(login_failures=2, login_delay=1.0))
        waits = []
        for _ in range(8):
            waits.append(guesses.wait("ana@lab.example"))
            guesses.checked("ANA@lab.example", right=False)
        assert waits == [0, 0, 4, 8, 16, 30, 30, 30]
        assert guesses.wait("ben@lab.example") == 0
        guesses.checked("ana@lab.example", right=True)
        assert guesses.wait("ana@lab.example") == 0

    asyncio.run(count())


def test_wrong_passwords_are_forgotten_after_five_minutes_without_any() -> None:
    loop = InlineLoop()

    async def count() -> None:
        guesses = Guesses(Limits(login_failures=1))
        guesses.checked("ana@lab.example", right=False)
        await asyncio.sleep(299)
        assert guesses.wait("ana@lab.example") > 0
        await asyncio.sleep(1)
        assert guesses.wait("ana@lab.example") == 0

    with loop._entered():
        task = loop.create_task(count())
    loop.pump_until(task.done, None)
    loop.close()
    assert task.exception() is None


def test_of_made_up_names_only_so_many_are_remembered() -> None:
    async def count() -> None:
        guesses = Guesses(Limits(login_failures=1))
        for number in range(2000):
            guesses.checked(f"{number}{'x' * 5000}", right=False)
        assert len(guesses._wrong) == 1000
        assert max(map(len, guesses._wrong)) == 1000
        assert guesses.wait(f"1999{'x' * 5000}") > 0

    asyncio.run(count())


# -- one address, several spellings

IDN = Accounts({"ana@bücher.example": "s3cret", "ben@xn--fa-hia.example": "s3cret"})
SPELLINGS = [
    ("ana@bücher.example", "ana@bücher.example"),
    ("ana@bücher.example", "ana@xn--bcher-kva.example"),
    ("ana@bücher.example", "ANA@XN--BCHER-KVA.example"),
    ("ana@bücher.example", "ana@BU\u0308CHER.example"),
    ("ben@xn--fa-hia.example", "ben@xn--fa-hia.example"),
    ("ben@xn--fa-hia.example", "Ben@Faß.example"),
]


@pytest.mark.parametrize(("account", "spelled"), SPELLINGS)
def test_an_account_is_known_however_its_address_is_spelled(account: str, spelled: str) -> None:
    assert IDN.of(spelled) == account
    assert IDN.log_in(spelled, "s3cret") == account
    assert IDN.log_in(spelled, "wrong") is None
    assert IDN.is_local(spelled.partition("@")[2])


def test_the_postmaster_of_a_domain_in_its_other_form() -> None:
    assert IDN.of("postmaster@xn--bcher-kva.example") == "ana@bücher.example"
    assert IDN.of("postmaster@bucher.example") is None


def test_catch_all_makes_one_mailbox_of_all_spellings() -> None:
    anybody = Accounts({"ana@lab.example": "s3cret"}, catch_all=True)
    one, other = "zoe@bücher.example", "Zoe@xn--bcher-kva.example"
    assert anybody.of(one) == anybody.of(other)
    for name in (one, other):
        for password in (one, other):
            assert anybody.log_in(name, password) == anybody.of(one)
    assert anybody.log_in(one, "zoe@bucher.example") is None


@pytest.mark.parametrize(
    "other", ["ana@xn--bcher-kva.example", "ANA@BÜCHER.example", "ana@bu\u0308cher.example"]
)
def test_one_account_in_two_spellings_is_there_twice(other: str) -> None:
    with pytest.raises(ValueError, match=r"is there twice\.\Z"):
        Accounts({"ana@bücher.example": "x", other: "y"})


def test_wrong_passwords_count_for_all_spellings_of_a_name() -> None:
    async def count() -> None:
        guesses = Guesses(Limits(login_failures=2))
        guesses.checked("ana@bücher.example", right=False)
        guesses.checked("ana@xn--bcher-kva.example", right=False)
        assert guesses.wait("ANA@BÜCHER.example") > 0

    asyncio.run(count())


@pytest.mark.process
def test_a_labs_inbox_is_found_by_all_spellings() -> None:
    with Lab({"ana@bücher.example": "s3cret"}) as lab:
        assert lab.hostname == "xn--bcher-kva.example"
        assert lab.mailboxes("ana@xn--bcher-kva.example") == {"INBOX": 0}
        assert lab.inbox("Ana@BÜCHER.example") == lab.inbox("ana@bücher.example")
