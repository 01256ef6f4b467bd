"""Tickets as text, and back: ``INV-2026-000042``, Crockford's base 32, sqids.

A format is a text with fields, as in Python's ``str.format``, but only the fields below exist. Each format has a field
with the number, and is checked so that two tickets never have the same text, and each text has only one number.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from string import Formatter
from typing import TYPE_CHECKING, Protocol

from ticketctl.errors import RefusedError, UsageError
from ticketctl.models import MAX_TICKET
from ticketctl.settings import check_sqid_alphabet

if TYPE_CHECKING:
    from sqids import Sqids

MAX_FORMAT = 255
MAX_TEXT = 1_000
MAX_WIDTH = 64
_FIELDS = "{ticket}, {base32}, {base32check}, {sqid}, {partition}, {region}, {date}"
_BASE32 = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford's: without I, L, O and U
_CHECK = f"{_BASE32}*~$=U"
_READ_AS = str.maketrans("OIL", "011", "-")
_DATE_DIGITS = {"Y": 4, "y": 2, "m": 2, "d": 2, "H": 2, "M": 2, "S": 2, "j": 3, "G": 4, "V": 2, "u": 1}


class Number(Protocol):
    """A way to write the number; ``alphabet`` has every character that its text may have."""

    alphabet: str

    def encode(self, ticket: int) -> str:
        """Return the text."""
        ...

    def decode(self, text: str) -> int:
        """Return the number of a text of the alphabet; ``ValueError`` if it is not one."""
        ...


class Decimal:
    """Decimal digits, filled up with zeros."""

    alphabet = "0123456789"

    def __init__(self, width: int) -> None:
        self._width = width

    def encode(self, ticket: int) -> str:
        """Return the digits."""
        return str(ticket).zfill(self._width)

    def decode(self, text: str) -> int:
        """Return the number, whatever its zeros."""
        return int(text)


class Base32:
    """Crockford's base 32, filled up with zeros; ``has_check`` appends his check symbol (modulo 37)."""

    def __init__(self, width: int, *, has_check: bool) -> None:
        self.alphabet = _BASE32 + "ILOU" + (_BASE32 + "ILOU").lower()[10:] + "*~$=" * has_check
        self._width = width
        self._has_check = has_check

    def encode(self, ticket: int) -> str:
        """Return the capital letters and digits. The width includes the check symbol."""
        digits, rest = "", ticket
        while rest or not digits:
            rest, digit = divmod(rest, 32)
            digits = _BASE32[digit] + digits
        return f"{digits}{_CHECK[ticket % 37] * self._has_check}".zfill(self._width)

    def decode(self, text: str) -> int:
        """Return the number: small letters are capitals, O is 0, I and L are 1, hyphens are ignored."""
        symbols = text.upper().translate(_READ_AS)
        digits = symbols[:-1] if self._has_check else symbols
        if not digits:
            raise ValueError("no digit")
        number = 0
        for digit in digits:
            number = number * 32 + _BASE32.index(digit)
        if self._has_check and _CHECK[number % 37] != symbols[-1]:
            raise RefusedError(
                f"the check symbol of {text!r} is wrong: a character was mistyped", hint="compare it with the original"
            )
        return number


class Sqid:
    """A sqid (sqids.org), at least ``width`` characters long."""

    def __init__(self, width: int, alphabet: str | None) -> None:
        from sqids import Sqids
        from sqids.constants import DEFAULT_ALPHABET

        self.alphabet = alphabet or DEFAULT_ALPHABET

        def sqids(**blocked: list[str]) -> "Sqids":
            return Sqids(self.alphabet, width, **blocked)

        self._sqids, self._unfiltered = sqids(), sqids(blocklist=[])

    def encode(self, ticket: int) -> str:
        """Return the sqid."""
        try:
            return self._sqids.encode([ticket])
        except ValueError:  # with few letters, each of its sqids may contain a word of the library's blocklist
            return self._unfiltered.encode([ticket])

    def decode(self, text: str) -> int:
        """Return the number, if the text is the very sqid that ``encode`` gives."""
        numbers = self._sqids.decode(text)
        if len(numbers) != 1 or numbers[0] > MAX_TICKET or self.encode(numbers[0]) != text:
            raise ValueError("not a sqid of one number")
        return numbers[0]


@dataclass(frozen=True)
class _Values:
    """What a ticket's text is made of."""

    ticket: int
    partition: str | None
    region: str | None
    date: datetime


@dataclass(frozen=True)
class _Piece:
    """A part of a format: text (``literal``), a number, or a field that stands beside it.

    ``pattern`` matches its text. The text is ``fixed`` in length, or not.
    """

    render: Callable[[_Values], str]
    pattern: str
    fixed: bool = False
    literal: str = ""
    number: Number | None = None


class Format:
    """How tickets are written, such as ``Format("INV-{date:%Y}-{ticket:06d}")``; ``UsageError`` if it is invalid.

    ``sqid_alphabet`` is for ``{sqid}``; the default is that of the sqids library.
    """

    def __init__(self, text: str, *, sqid_alphabet: str | None = None) -> None:
        if sqid_alphabet is not None:
            check_sqid_alphabet(sqid_alphabet, "sqid_alphabet")
        self._pieces, self.fields = _parse(text, sqid_alphabet)
        _check_separation(self._pieces)
        ignores_hyphens = sum(not piece.fixed for piece in self._pieces) == 1
        self._numbers = [piece.number for piece in self._pieces if piece.number]
        self._pattern = re.compile("".join(_pattern(piece, ignores_hyphens) for piece in self._pieces), re.DOTALL)

    def encode(
        self, ticket: int, *, partition: str | None = None, region: str | None = None, date: datetime | None = None
    ) -> str:
        """Return the text of a ticket. ``{date}`` is ``date`` in UTC; default: now."""
        if type(ticket) is not int or not 0 <= ticket <= MAX_TICKET:
            raise UsageError(f"{ticket!r} is not a ticket: it must be an integer from 0 to 2^53 - 1")
        moment = datetime.now(UTC) if date is None else date.astimezone(UTC)
        values = _Values(ticket, partition, region, moment)
        return "".join([piece.render(values) for piece in self._pieces])

    def decode(self, text: str) -> int:
        """Return the number in a text; ``UsageError`` if it has none, ``RefusedError`` if a check symbol is wrong."""
        matched = self._pattern.fullmatch(text) if len(text) <= MAX_TEXT else None
        if matched is None:
            raise _not_a_ticket(text)
        try:
            numbers = [number.decode(part) for number, part in zip(self._numbers, matched.groups(), strict=True)]
        except ValueError:
            raise _not_a_ticket(text) from None
        if numbers.count(numbers[0]) != len(numbers) or numbers[0] > MAX_TICKET:
            raise _not_a_ticket(text)
        return numbers[0]


def _not_a_ticket(text: str) -> UsageError:
    shown = text if len(text) <= MAX_FORMAT else f"{text[:MAX_FORMAT]}…"
    return UsageError(f"{shown!r} is not a ticket in this format", hint="pass the --format that it was printed with")


def _invalid(reason: str, hint: str = "") -> UsageError:
    return UsageError(f"invalid format: {reason}", hint=hint)


def _parse(text: str, sqid_alphabet: str | None) -> tuple[Sequence[_Piece], Sequence[str]]:
    """Read a format into its pieces and the names of its fields."""
    if len(text) > MAX_FORMAT:
        raise _invalid(f"it is longer than {MAX_FORMAT} characters")
    if re.search("[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]", text):
        raise _invalid("it contains a control character or is not Unicode text", "use only tabs and visible characters")
    pieces: list[_Piece] = []
    names: list[str] = []
    try:
        parts = list(Formatter().parse(text))
    except ValueError as error:
        raise _invalid(str(error).lower(), "write a brace that is no field twice: {{ or }}") from None
    for literal, name, spec, conversion in parts:
        pieces += [_literal(literal)] * bool(literal)
        if name is None:
            continue
        if conversion or "{" in (spec or ""):
            raise _invalid(
                f"{{{name}}} contains {'!' if conversion else 'another field'}", "use {ticket} or {ticket:06d}"
            )
        if name in names and name != "date":
            raise _invalid(f"{{{name}}} appears twice", "use each field once")
        names.append(name)
        pieces += _field(name, spec or "", sqid_alphabet)
    if not any(piece.number for piece in pieces):
        raise _invalid("it has no number", "add {ticket}, {base32}, {base32check} or {sqid}")
    return pieces, names


def _literal(text: str) -> _Piece:
    return _Piece(lambda values: text, re.escape(text), fixed=True, literal=text)


def _field(name: str, spec: str, sqid_alphabet: str | None) -> Sequence[_Piece]:
    match name:
        case "ticket":
            return [_number(Decimal(_width("ticket", spec, "0([0-9]{1,2})d?|d?", "{ticket:06d}")))]
        case "base32" | "base32check":
            width = _width(name, spec, "0([0-9]{1,2})|", f"{{{name}:08}}")
            return [_number(Base32(width, has_check=name == "base32check"))]
        case "sqid":
            return [_number(Sqid(_width("sqid", spec, "([0-9]{1,2})|", "{sqid:8}"), sqid_alphabet))]
        case "date":
            return _date(spec or "%Y-%m-%d")
        case "partition" | "region" if not spec:
            return [_Piece(lambda values: _known(name, values), ".+")]
        case "partition" | "region":
            raise _invalid(f"{{{name}}} takes nothing after a colon", f"use {{{name}}}")
    raise _invalid(f"there is no field {{{name}}}", f"use {_FIELDS}")


def _known(name: str, values: _Values) -> str:
    value: str | None = getattr(values, name)
    if not value:
        raise UsageError(f"the format contains {{{name}}}, but there is no {name}", hint=f"remove {{{name}}}")
    return value


def _number(number: Number) -> _Piece:
    return _Piece(
        lambda values: number.encode(values.ticket), f"([{re.escape(number.alphabet)}]{{1,{MAX_WIDTH}}})", number=number
    )


def _width(name: str, spec: str, pattern: str, example: str) -> int:
    """Read a width, such as the 6 of ``06d``."""
    matched = re.fullmatch(pattern, spec)
    if matched is None or int(matched[1] or 0) > MAX_WIDTH:
        raise _invalid(f"{{{name}:{spec}}} is not possible", f"use a width of up to {MAX_WIDTH}, such as {example}")
    return int(matched[1] or 0)


def _date(spec: str) -> Sequence[_Piece]:
    """Read the directives of ``strftime`` that have a fixed number of digits in every country."""
    pieces = []
    for directive, literal in re.findall("%(.?)|([^%]+)", spec):
        if literal:
            pieces.append(_literal(literal))
        elif directive in _DATE_DIGITS:
            pieces.append(_directive(directive, _DATE_DIGITS[directive]))
        else:
            raise _invalid(f"{{date:{spec}}} has %{directive}", f"use %{', %'.join(_DATE_DIGITS)}")
    return pieces


def _directive(letter: str, digits: int) -> _Piece:
    return _Piece(lambda values: values.date.strftime(f"%{letter}").zfill(digits), f"[0-9]{{{digits}}}", fixed=True)


def _check_separation(pieces: Sequence[_Piece]) -> None:
    """Refuse a format whose texts could be read in two ways.

    Names have any length and any characters, so a number is looked for from the end of the text that has no name.
    Towards the other fields it ends at a character that it cannot contain.
    """
    kinds = "".join("n" if piece.number else "t" for piece in pieces if not piece.fixed)
    if not re.fullmatch("n+t*|t*n+", kinds):
        raise _invalid("{partition} and {region} are on both sides of a number, or between two", "put both on one side")
    ordered = pieces[::-1] if kinds.startswith("t") else pieces
    last = max(place for place, piece in enumerate(ordered) if not piece.fixed)
    for piece, after in pairwise(ordered[: last + 1]):
        edge = after.literal[-1:] if kinds.startswith("t") else after.literal[:1]
        if piece.number and (not edge or edge in piece.number.alphabet):
            raise _invalid("it does not show where the number ends", "separate the fields with a character such as /")


def _pattern(piece: _Piece, ignores_hyphens: bool) -> str:
    """The pattern of a piece. Hyphens in base 32 are ignored if they cannot be the separator of another field."""
    if ignores_hyphens and isinstance(piece.number, Base32):
        return piece.pattern.replace("([", r"([\-", 1)
    return piece.pattern
