"""``table``: what is read from a table, and the largest integer of a stream, above which a counter can start."""

import io
from collections.abc import Mapping
from typing import Any

import pytest

from tests.support.counter_items import item, number, offered, regions
from tests.support.model_table import Fate, ModelTable
from ticketctl.counters.lanes import Lane
from ticketctl.counters.table import Counters, largest_integer
from ticketctl.errors import CounterInvalidError, RefusedError


def refusal(text: str, column: str | None = None) -> str:
    with pytest.raises(CounterInvalidError) as caught:
        largest_integer(io.StringIO(text, newline=""), column)
    return caught.value.message


@pytest.mark.parametrize(
    ("text", "largest"),
    [
        ("7\n", 7),
        ("7", 7),
        ("7\n41\n12\n", 41),
        ("\n\n7\n\n  \n3\n\n", 7),
        ("  7  \n\t41\t\n", 41),
        ("7\r\n41\r\n", 41),
        ("7\r41\r", 41),
        ("0\n", 0),
        ("-5\n", -5),
        ("-5\n-3\n-9\n", -3),
        ("-5\n0\n", 0),
        ("007\n", 7),
        (f"{2**53 - 1}\n", 2**53 - 1),
        ("9" * 20, 10**20 - 1),
    ],
)
def test_a_number_a_line(text: str, largest: int) -> None:
    """The result is the largest number, with one per line in any order; blank lines are skipped."""
    assert largest_integer(io.StringIO(text, newline="")) == largest


@pytest.mark.parametrize(
    ("text", "column", "largest"),
    [
        ("id,name\n7,a\n41,b\n12,c\n", "id", 41),
        ("name,id\na,7\nb,41\n", "id", 41),
        ('name,order id\n"a, ""b""",7\n"two\nlines",41\n', "order id", 41),
        ("id\r\n7\r\n41\r\n", "id", 41),
        ("id,name\n7,a\n,b\n\n", "id", 7),
        ("name,id\na,7\nb\n", "id", 7),
        ("id\n-5\n", "id", -5),
    ],
)
def test_a_column(text: str, column: str, largest: int) -> None:
    """In a CSV file only the column with that heading counts; empty cells are skipped."""
    assert largest_integer(io.StringIO(text, newline=""), column) == largest


@pytest.mark.parametrize(
    "cell",
    [
        "seven",
        "7.0",
        "7e3",
        "+7",
        "1_000",
        "1,000",
        "7 8",
        "0x7",
        "-",
        "--7",
        "7-",
        "- 7",
        "\u0667",
        "\uff17",
        "\u00b2",
        "\ufeff7",
        "7\x00",
        "inf",
        "9" * 21,
        "9" * 10_000,
    ],
)
def test_not_a_whole_number(cell: str) -> None:
    """A line that is not an integer is an error that names its line number."""
    assert refusal(f"41\n\n{cell}\n") == f"line 3 is not a whole number: {cell[:50]!r}; nothing was changed"


def test_not_a_whole_number_in_a_column() -> None:
    """In a CSV file, a cell that is not an integer is an error that names its line number."""
    assert "'seven'; nothing was changed" in refusal("id\n7\nseven\n", "id")


@pytest.mark.parametrize(("text", "column"), [("", None), ("\n \n", None), ("id\n", "id"), ("id\n\n", "id")])
def test_no_number(text: str, column: str | None) -> None:
    """Input without a number is an error."""
    assert refusal(text, column) == "the input has no number; nothing was changed"


@pytest.mark.parametrize(
    ("text", "known"), [("id,name\n7,a\n", "id, name"), ("ID\n7\n", "ID"), ("7\n41\n", "7"), ("", "")]
)
def test_no_such_column(text: str, known: str) -> None:
    """An unknown column is an error that lists the columns."""
    assert refusal(text, "order") == f"there is no column 'order'; the columns are: {known}"


def test_two_columns_of_one_heading() -> None:
    """If two columns have the heading, nobody can know which one is meant."""
    assert refusal("id,name,id\n50,a,9\n", "id") == "there are 2 columns 'id'; the columns are: id, name, id"


def test_a_broken_csv() -> None:
    """A CSV file that cannot be parsed is an error."""
    assert "nothing was changed" in refusal("id,name\n7," + "x" * 200_000 + "\n", "id")


# --- reading a table -------------------------------------------------------------------------------

REGISTER: dict[str, Any] = {"k0": {"B": b"0123456789abcde"}, "l0": number(40), "kf": {"B": b"-"}, "lf": number(0)}
STATE: dict[str, Any] = {"ceiling": number(99), "minted_at": number(7), "frozen": {"BOOL": True}}


def scanned(model: ModelTable) -> tuple[Counters, list[Mapping[str, Any]]]:
    """The counters of a table, and the pages that DynamoDB returns for a scan, item by item."""
    answers: list[Mapping[str, Any]] = []
    scan = model.perform

    def perform(operation: str, request: Mapping[str, Any]) -> dict[str, Any]:
        answer = scan(operation, request)
        answers.extend(answer.get("Items", []))
        return answer

    model.perform = perform  # type: ignore[method-assign]
    return Counters(model, "Tickets", region="east"), answers


def test_a_list_of_counters_transfers_only_what_it_shows() -> None:
    """``status`` does not request the register of keys or the attributes of hand-overs."""
    more: dict[str, Any] = {
        **REGISTER,
        **STATE,
        **offered("west", Lane(41, 2)),
        **regions("east", "west"),
        "note": {"S": "ours"},
    }
    rows = {name: item(name, 40, 2, **more) for name in ("east", "orders", "users", "visits")}
    table, answers = scanned(ModelTable(rows=rows))
    counters = list(table.all())
    assert [(c.partition, c.last, c.increment, c.ceiling, c.minted_at, c.frozen) for c in counters] == [
        (name, 40, 2, 99, 7, True) for name in rows
    ]
    assert answers == [item(name, 40, 2, **STATE) for name in rows]


def test_a_list_of_counters_is_one_scan() -> None:
    """Reading every counter sends one request per page."""
    requests: list[str] = []

    def note(operation: str, request: Mapping[str, Any]) -> Fate:  # noqa: ARG001
        requests.append(operation)
        return Fate.ANSWERED

    model = ModelTable(before_call=note, rows={name: item(name, 40) for name in ("east", "orders")})
    assert len(list(Counters(model, "Tickets", region="east").all())) == 2
    assert requests == ["Scan"]


def test_a_survey_reads_whole_items() -> None:
    """A survey requests whole items, because hand-overs have attributes named after regions and keep unknown ones."""
    rows = {"east": item("east", 40, **REGISTER, **offered("west", Lane(41, 2)), note={"S": "ours"})}
    table, answers = scanned(ModelTable(rows=rows))
    assert list(table.items()) == answers == [rows["east"]]


@pytest.mark.parametrize("damaged", [{"id": {"S": "a"}}, {"partition": {"N": "7"}, "hand_crafted_int": number(1)}])
def test_a_table_of_another_key_is_refused(damaged: dict[str, Any]) -> None:
    """Items with another key belong to an unrelated table: that is an error, not a bug."""
    table, _ = scanned(ModelTable(rows={"a": damaged}))
    for read in (table.all, table.items):
        with pytest.raises(RefusedError, match="the table Tickets in east is not a ticket server's"):
            list(read())
