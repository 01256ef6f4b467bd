"""Formats: every ticket has a unique text that can be decoded, and an invalid format spends nothing."""

import itertools
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.support.effort import DERANDOMIZED, times
from tests.support.http_server import Answer, Server
from ticketctl.cli import main
from ticketctl.errors import RefusedError, UsageError
from ticketctl.formats import MAX_FORMAT, MAX_TEXT, MAX_WIDTH, Format
from ticketctl.models import MAX_TICKET

DATE = datetime(2026, 11, 24, 7, 5, 9, tzinfo=UTC)
ALPHABET = "k3G7QAe51FCsPW92uEOyq4Bg6Sp8YzVTmnU0liwDdHXLajZrfxNhobJIRcMvKt"
NUMBERS = ["{ticket}", "{ticket:d}", "{ticket:06d}", "{base32}", "{base32:08}", "{base32check}", "{base32check:08}"]
NUMBERS += ["{sqid}", "{sqid:8}", "{sqid:64}"]
TICKETS = st.integers(0, MAX_TICKET)
NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)
HOSTILE = [
    *("", "INV", "{{ticket}}", "{date}", "{partition}-{region}"),  # no number
    *("{", "}", "{ticket", "ticket}", "{ticket!}", "{ticket!r}", "{ticket!s:06d}", "{base32!a}", "{}", "{0}", "{:06d}"),
    *("{tikcet}", "{Ticket}", "{ ticket}", "{ticket }", "{ticket.real}", "{ticket.__class__}", "{ticket[0]}"),
    *("{ticket.__class__.__mro__}", "{ticket.__init__.__globals__[os]}", "{0.__class__}", "{ticket[__class__]}"),
    *("{{{{ticket}", "{{{{{ticket}}", "{ticket:{{6}}d}", "{ticket:{ticket:{ticket}}}", "{ticket\x00}", "{\u0442icket}"),
    *("{ticket:{ticket}}", "{ticket:{base32}d}", "{ticket:{{}}}", "{date:{ticket}}{ticket}", "{ticket}{date:{region}}"),
    *("{ticket:99999999999d}", "{ticket:099999999999d}", "{ticket:065d}", "{sqid:65}", "{sqid:999999999}"),
    *("{ticket:-6d}", "{ticket:0-6d}", "{ticket:n}", "{ticket:06n}", "{ticket:_}", "{ticket:b}", "{ticket:#x}"),
    *("{ticket:99999999999999999999999999999999d}", "{ticket:09999999999999999999999999999999d}", "{ticket:0\x006d}"),
    *("{base32:065}", "{base32check:0999}", "{base32:8}", "{ticket:.3}", "{ticket:6}", "{ticket:6d}", "{ticket:<06d}"),
    *("{ticket:,}", "{ticket:c}", "{ticket:e}", "{ticket:06.2f}", "{ticket:%}", "{ticket:+d}", "{ticket:06d }"),
    *("{ticket:\u0660\u0666d}", "{base32:.3}", "{sqid:-1}", "{sqid:.3}", "{partition:.1}/{ticket}"),
    *("{region:>9}/{ticket}", "{partition!r}/{ticket}", "{partition.x}/{ticket}", "{region[0]}/{ticket}"),
    *("{ticket}{date:%}", "{ticket}{date:%c}", "{ticket}{date:%B}", "{ticket}{date:%999999999d}", "{ticket}{date:%s}"),
    *("{ticket}{date:%-d}", "{ticket}{date:%Ey}", "{ticket}{date:%Z}", "{ticket}{date!r}", "{ticket}{date.year}"),
    *("{ticket}{base32}", "{ticket} {ticket}", "{partition}{ticket}", "{ticket}{region}", "{ticket}1{partition}"),
    *("{partition}1{ticket}", "{base32}x{partition}", "{sqid}x{ticket}", "{partition}*{base32check}"),
    *("{ticket}/{partition}{base32}", "{ticket}/{partition}/{sqid}"),
    *("{partition}/{ticket}/{region}", "{ticket}\n", "\x1b[2J{ticket}", "{ticket}\x00", "\udce9{ticket}"),
    *("{ticket}\u2028", "{ticket}{date:%Y}{region}"),
    "x" * MAX_FORMAT + "{ticket}",
]  # fmt: skip


def written(form: Format, ticket: int, partition: str = "orders", region: str = "eu-west-1") -> str:
    return form.encode(ticket, partition=partition, region=region, date=DATE)


@pytest.mark.parametrize(
    ("text", "ticket", "expected"),
    [
        ("INV-{date:%Y}-{ticket:06d}", 42, "INV-2026-000042"),
        ("{ticket:03d}", 12_345, "12345"),
        ("{date} {date:%Y%m%dT%H:%M:%SZ}/{ticket}", 1, "2026-11-24 20261124T07:05:09Z/1"),
        ("{date:%j %G-W%V-%u %y}/{ticket}", 1, "328 2026-W48-2 26/1"),
        ("{base32}", 0, "0"),
        ("{base32}", 1234, "16J"),
        ("{base32:08}", 1234, "0000016J"),
        ("{base32check}", 1234, "16JD"),
        ("{base32check:08}", 1234, "000016JD"),
        ("{base32check}", 0, "00"),
        *(("{base32check}", 32 + n, f"1{n}{symbol}") for n, symbol in enumerate("*~$=U")),
        ("{base32}", MAX_TICKET, "7ZZZZZZZZZZ"),
        ("{sqid}", 1, "Uk"),
        ("{sqid:8}", 1, "UkLWZg9D"),
        ("{partition}:{region}:{ticket}", 7, "orders:eu-west-1:7"),
        ("{{{ticket}}}", 7, "{7}"),
        ("№ {ticket}\t{base32}", 32, "№ 32\t10"),
    ],
)  # fmt: skip
def test_texts(text: str, ticket: int, expected: str) -> None:
    """Each field is written as documented and can be decoded."""
    form = Format(text)
    assert (written(form, ticket), form.decode(expected)) == (expected, ticket)


def test_the_sqids_are_those_of_other_languages() -> None:
    """The test vectors of the sqids specification hold for the default alphabet; another alphabet gives other sqids."""
    assert [Format("{sqid}").encode(n) for n in (0, 1, 9)] == ["bM", "Uk", "nJ"]
    assert Format("{sqid}", sqid_alphabet=ALPHABET).encode(1) != "Uk"


@pytest.mark.parametrize("alphabet", [None, ALPHABET, "eki"])
@pytest.mark.parametrize("number", NUMBERS)
def test_every_text_is_read_again(number: str, alphabet: str | None) -> None:
    """Any ticket's text decodes to the ticket, for each field alone and with others, and any name of the counter."""
    forms = [
        Format(text.replace("#", number), sqid_alphabet=alphabet)
        for text in (
            "#",
            "A{date:%y}#{date:%m%d}",
            "{partition}/{region}/#",
            "#\u00a0{partition}",
            "#/{date:%Y}-{region}",
        )
    ]

    @settings(max_examples=times(15), derandomize=DERANDOMIZED, deadline=None, database=None)
    @given(TICKETS, NAMES)
    @example(MAX_TICKET, "1/2")
    @example(9007199254740979, "a/us-east-1/7\u00a0")
    def check(ticket: int, name: str) -> None:
        for form in forms:
            assert form.decode(written(form, ticket, name)) == ticket

    check()


@pytest.mark.parametrize("number", NUMBERS)
def test_ten_thousand_numbers_of_every_length(number: str) -> None:
    """Numbers of 1 to 53 bits go there and back, and no two have the same text."""
    draw, form = Random(20_261_128), Format(number)  # noqa: S311 - the same numbers in each run
    tickets = {draw.getrandbits(draw.randint(1, 53)) for _ in range(10_000)} | {0, MAX_TICKET}
    texts = {form.encode(ticket): ticket for ticket in tickets}
    assert len(texts) == len(tickets)
    assert all(form.decode(text) == ticket for text, ticket in texts.items())


@pytest.mark.parametrize("number", NUMBERS)
def test_two_tickets_have_two_texts(number: str) -> None:
    """Tickets that are neighbors or differ in one digit have different texts."""
    form = Format(number)

    @settings(max_examples=times(25), derandomize=DERANDOMIZED, deadline=None, database=None)
    @given(TICKETS, st.integers(0, 52))
    def check(ticket: int, bit: int) -> None:
        others = {ticket ^ (1 << bit), min(ticket + 1, MAX_TICKET), ticket // 10, ticket // 32} - {ticket}
        assert form.encode(ticket) not in map(form.encode, others)

    check()


def test_a_blocked_word_is_no_error() -> None:
    """If all sqids of a ticket contain blocked words, the ticket is still written, because it was minted."""
    for alphabet, text, ticket in (("acte", "{sqid}", 9007199254740979), ("eki", "{sqid:64}", 7)):
        form = Format(text, sqid_alphabet=alphabet)
        assert form.decode(form.encode(ticket)) == ticket


# --- decode -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["16j", "I6J", "i6j", "L6J", "l6J", "1-6-J", "-16J", "16J-", "0016J", "oO16j"])
def test_base32_is_read_as_people_write_it(text: str) -> None:
    """Lower case, O for 0, I and L for 1, hyphens and leading zeros are accepted."""
    assert Format("{base32}").decode(text) == 1234
    assert Format("{base32check}").decode(f"{text}-d") == 1234


def test_the_check_symbol_finds_every_mistyped_character() -> None:
    """A wrong character or two swapped neighbors are detected, and the error does not reveal the correct symbol."""
    form = Format("{base32check}")

    @settings(max_examples=times(20), derandomize=DERANDOMIZED, deadline=None, database=None)
    @given(TICKETS, st.data())
    def check(ticket: int, data: st.DataObject) -> None:
        text = form.encode(ticket)
        place = data.draw(st.integers(0, len(text) - 1))
        wrong = data.draw(st.sampled_from("0123456789ABCDEFGHJKMNPQRSTVWXYZ"))
        mistyped = text[:place] + wrong + text[place + 1 :]
        swapped = text[:place] + text[place : place + 2][::-1] + text[place + 2 :]
        for changed in {mistyped, swapped} - {text}:
            with pytest.raises((RefusedError, UsageError)):
                form.decode(changed)

    check()
    with pytest.raises(RefusedError, match="check symbol of '16JE' is wrong") as caught:
        form.decode("16JE")
    assert "D" not in caught.value.message + caught.value.hint


@pytest.mark.parametrize(
    ("text", "bad"),
    [
        *(("INV-{ticket:04d}", bad) for bad in ("", "INV-", "INV-x", "inv-0042", "0042", "INV-0042\n", " INV-0042")),
        *(("{ticket}", bad) for bad in ("-1", "+1", "1_0", "٣", "1.0", "0x1", str(MAX_TICKET + 1), "9" * 64, "9" * 65)),
        *(("{base32}", bad) for bad in ("U", "16J*", "-", "8000000000000", "16J D", "ß", "\u017f", "\u212a")),
        *(("{base32check}", bad) for bad in ("D", "-D", "--", "*", "1*2", "16JÜ")),
        *(("{sqid}", bad) for bad in ("", "b", "bM!", "86Rf07", "Uk" * 20, "x" * MAX_TEXT, "x" * (MAX_TEXT + 1))),
        *(("{sqid:8}", bad) for bad in ("Uk", "UkLWZg9", "UkLWZg9DD", "UkLWZg9E")),
        *(("{ticket} {base32}", bad) for bad in ("32 11", "32", "32 ", "32  10")),
        *(("{base32}/{partition}", bad) for bad in ("1-6-J/orders", "16J/", "16J")),
        *(("{date:%Y}-{ticket}", bad) for bad in ("202-1", "20261", "2026-")),
        ("{partition}/{region}/{ticket}", "/1" * (MAX_TEXT // 2)),
        ("{partition}/{region}/{ticket}", "/1" * (MAX_TEXT // 2 - 1) + "x"),
    ],
)
def test_other_texts_are_refused(text: str, bad: str) -> None:
    """A text that does not match the format is rejected quickly; a sqid must be the canonical one."""
    if text == "{partition}/{region}/{ticket}" and not bad.endswith("x"):
        assert Format(text).decode(bad) == 1
        return
    begun = time.process_time()
    with pytest.raises(UsageError, match="is not a ticket in this format"):
        Format(text).decode(bad)
    assert time.process_time() - begun < 1


@settings(max_examples=times(150), derandomize=DERANDOMIZED, deadline=None, database=None)
@given(st.sampled_from(NUMBERS), st.text(st.characters(max_codepoint=127), max_size=14) | NAMES)
def test_any_text_has_at_most_one_number(number: str, text: str) -> None:
    """A text either decodes to a valid ticket, whose own text decodes to the same ticket, or is rejected."""
    form = Format(number)
    try:
        ticket = form.decode(text)
    except (UsageError, RefusedError):
        return
    assert 0 <= ticket <= MAX_TICKET
    assert form.decode(form.encode(ticket)) == ticket
    assert "sqid" not in number or form.encode(ticket) == text


# --- formats that are refused -----------------------------------------------------------------------


@pytest.mark.parametrize("text", HOSTILE, ids=repr)
def test_a_bad_format_is_refused(text: str) -> None:
    """A format is rejected if it has other fields, or if two tickets could have the same text."""
    with pytest.raises(UsageError, match="invalid format"):
        Format(text)


PARTS = ["{", "}", "{{", "}}", "!r", ":", "%", "%Y", "0", "6", "d", ".", "ticket", "base32", "sqid", "date", "{ticket}"]
PARTS += ["{partition}", "{region}", "{base32check:08}", "{date:%d}", "/", "-", "A", "é"]


@settings(max_examples=times(300), derandomize=DERANDOMIZED, deadline=None, database=None)
@given(st.lists(st.sampled_from(PARTS), max_size=8).map("".join) | st.text(max_size=20), TICKETS, NAMES)
def test_any_format_is_refused_or_valid(text: str, ticket: int, name: str) -> None:
    """Any string is either rejected as a format, or its texts are short and can be decoded."""
    try:
        form = Format(text)
    except UsageError as error:
        assert error.message.startswith("invalid format: ")  # noqa: PT017 - the other outcome is none, too
        return
    shown = written(form, ticket, name)
    assert len(shown) <= len(text) + 4 * MAX_WIDTH + 20 + len(name)
    assert form.decode(shown) == ticket


@pytest.mark.parametrize("ticket", [-1, MAX_TICKET + 1, True, 1.0, "1", None])
def test_only_a_ticket_is_written(ticket: Any) -> None:
    """Only an integer from 0 to 2^53 - 1 can be written."""
    with pytest.raises(UsageError, match="is not a ticket"):
        Format("{ticket}").encode(ticket)


@pytest.mark.parametrize("name", ["partition", "region"])
def test_a_missing_name_is_an_error(name: str) -> None:
    """A field without a value is an error and is not written as ``None``."""
    with pytest.raises(UsageError, match=f"there is no {name}"):
        Format(f"{{{name}}}/{{ticket}}").encode(1)


def test_the_date_is_in_utc() -> None:
    """A date is converted to UTC, defaults to now, and has a year with four digits."""
    late = datetime(2026, 1, 1, 0, 30, tzinfo=timezone(timedelta(hours=2)))
    assert Format("{date}/{ticket}").encode(1, date=late) == "2025-12-31/1"
    assert Format("{date:%Y}/{ticket}").encode(1, date=datetime(33, 4, 3, tzinfo=UTC)) == "0033/1"
    assert abs(int(Format("{date:%Y}/{ticket}").encode(1)[:4]) - datetime.now(UTC).year) <= 1


@pytest.mark.parametrize("alphabet", ["", "k3", "kk3", "k3G 7", "k3Gü", "k3G\n", 123])
def test_a_bad_alphabet_is_refused_unseen(alphabet: Any) -> None:
    """An alphabet that sqids cannot use is rejected, and the error does not show it."""
    with pytest.raises(UsageError, match="invalid alphabet for sqids") as caught:
        Format("{sqid}", sqid_alphabet=alphabet)
    assert not str(alphabet) or str(alphabet) not in caught.value.message + caught.value.hint


def test_an_alphabet_separates() -> None:
    """Whether a character separates a sqid from its neighbors depends on the alphabet."""
    form = Format("{sqid}x{ticket}", sqid_alphabet="abc")
    assert form.decode(form.encode(1)) == 1
    with pytest.raises(UsageError, match="where the number ends"):
        Format("{sqid}-{ticket}", sqid_alphabet="abc-")


# --- the command line -------------------------------------------------------------------------------

Ticketctl = Callable[..., tuple[int, str, str]]


@pytest.fixture
def ticketctl(no_aws: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Ticketctl:
    """Run a command in this process; return the exit code, stdout and stderr."""
    monkeypatch.setenv("TICKETCTL_HOME", str(no_aws))

    def run(*arguments: str) -> tuple[int, str, str]:
        code = main(arguments)
        return code, *capfd.readouterr()

    return run


def block(first: int, count: int) -> Answer:
    numbers = {"first": first, "last": first + count - 1, "count": count, "increment": 1}
    return Answer(200, "application/json", json.dumps({"partition": "größe\n", **numbers}).encode())


def at(server: Server) -> list[str]:
    return ["--region", "us-east-1", "--url", server.url]


def test_next_and_fetch(ticketctl: Ticketctl, server: Server) -> None:
    """Stdout is the ticket's text; control characters are escaped."""
    server.answers = [block(41, 1), block(42, 2), block(44, 1)]
    shown = ["--format", "A{date:%Y}-{ticket:04d}"]
    year = f"{datetime.now(UTC):%Y}"
    assert ticketctl("next", *shown, *at(server)) == (0, f"A{year}-0041\n", "")
    assert ticketctl("fetch", "3", "--block", "2", *shown, *at(server)) == (
        0, f"A{year}-0042\nA{year}-0043\nA{year}-0044\n", "",
    )  # fmt: skip
    server.answers = [block(1, 1)]
    assert ticketctl("next", "--format", "{partition}/{ticket}", *at(server)) == (0, "größe\\n/1\n", "")


def test_json_has_number_and_text(ticketctl: Ticketctl, server: Server) -> None:
    """With --json, the exact numbers are kept and the texts are added."""
    server.answers = [block(MAX_TICKET - 1, 2)]
    code, stdout, stderr = ticketctl("fetch", "2", "--json", "--format", "{base32}", *at(server))
    document = json.loads(stdout)
    assert (code, stderr, document["first"], document["last"]) == (0, "", MAX_TICKET - 1, MAX_TICKET)
    assert document["formatted"] == ["7ZZZZZZZZZY", "7ZZZZZZZZZZ"]
    server.answers = [block(1, 1)]
    assert "formatted" not in json.loads(ticketctl("next", "--json", *at(server))[1])


def test_a_bad_format_spends_nothing(ticketctl: Ticketctl, server: Server) -> None:
    """Every bad format is exit code 2 before anything is sent."""
    commands = itertools.cycle((["next"], ["fetch", "3"]))
    for text, command in zip([*HOSTILE, "{region}/{ticket}"], commands, strict=False):
        code, stdout, stderr = ticketctl(*command, f"--format={text}", "--json", *at(server))
        assert (code, stdout, json.loads(stderr)["error"]["code"]) == (2, "", "usage"), text
    assert server.requests == []


def test_ranges_have_no_format(ticketctl: Ticketctl, server: Server) -> None:
    """--ranges and --format cannot be combined."""
    code, stdout, stderr = ticketctl("fetch", "3", "--ranges", "--format", "{ticket}", *at(server))
    assert (code, stdout, stderr) == (
        2, "", "error: --ranges and --format cannot be combined\nhint: remove one of them\n",
    )  # fmt: skip
    assert server.requests == []


@pytest.mark.parametrize(
    ("text", "ticket", "code", "stdout", "said"),
    [
        ("INV-{date:%Y}-{ticket:06d}", "INV-2026-000042", 0, "42\n", ""),
        ("{base32check}", "16j-d", 0, "1234\n", ""),
        ("{base32check}", "16JE", 6, "", "error: the check symbol of '16JE' is wrong"),
        ("{sqid}", "bM!", 2, "", "error: 'bM!' is not a ticket in this format"),
        ("INV", "INV", 2, "", "error: invalid format: it has no number"),
        ("{tikcet}", "1", 2, "", "error: invalid format: there is no field {tikcet}"),
    ],
)
def test_decode(ticketctl: Ticketctl, text: str, ticket: str, code: int, stdout: str, said: str) -> None:
    """``decode`` prints the number; a wrong check symbol exits 6, any other invalid text exits 2."""
    run = ticketctl("decode", "--format", text, ticket)
    assert run[:2] == (code, stdout)
    assert run[2].startswith(said) and bool(run[2]) == bool(said)  # noqa: PT018 - the beginning of what is said


def test_decode_as_json(ticketctl: Ticketctl) -> None:
    """With --json, ``decode`` prints a document, and needs no region."""
    assert ticketctl("decode", "--json", "--format", "{sqid}", "Uk") == (0, '{"ticket": 1}\n', "")


@pytest.mark.parametrize("where", ["variable", "file"])
def test_the_alphabet_is_used_and_never_shown(
    ticketctl: Ticketctl, monkeypatch: pytest.MonkeyPatch, no_aws: Path, server: Server, where: str
) -> None:
    """The alphabet comes from a variable or the file; no option, result, error or traceback shows it."""
    alphabet = ALPHABET
    file = no_aws / "config.toml"
    sources: dict[str, Callable[[str], Any]] = {
        "variable": lambda value: monkeypatch.setenv("TICKETCTL_SQID_ALPHABET", value),
        "file": lambda value: file.write_text(f'sqid-alphabet = "{value}"\n', encoding="utf-8"),
    }
    sources[where](alphabet)
    sqid = Format("{sqid}", sqid_alphabet=alphabet).encode(42)
    server.answers = [block(42, 1)]
    loud = ["--verbose", "--debug"]
    code, stdout, said = ticketctl("next", "--format", "{sqid}", *loud, *at(server))
    assert (code, stdout, "sqid-alphabet: *** (from " in said) == (0, f"{sqid}\n", True)
    decoded = ticketctl("decode", "--format", "{sqid}", sqid, *loud)
    wrong = ticketctl("decode", "--format", "{sqid}", "!!", *loud)
    assert (decoded[:2], wrong[0]) == ((0, "42\n"), 2)
    sources[where](f"{alphabet}{alphabet}")
    refused = ticketctl("next", "--format", "{sqid}", *loud, *at(server))
    assert (refused[0], "invalid alphabet for sqids (from " in refused[2]) == (2, True)
    file.write_text(f"sqid-alphabet = {alphabet}\n", encoding="utf-8")
    unquoted = ticketctl("next", "--format", "{sqid}", *loud, *at(server))
    assert (unquoted[0], "config.toml cannot be read" in unquoted[2]) == (3, True)
    assert alphabet not in said + decoded[2] + wrong[2] + refused[2] + unquoted[2]
