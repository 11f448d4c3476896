"""Personal data: counted a document, and masked in text (Llama 3, section 3.1.1: sites with much PII are removed).

Precision comes first: documentation is full of numbers that look like something. IBANs and cards must pass their check
digits, phone numbers must be written like phone numbers, and dotted quads must not be versions. Names and addresses are out
of reach of rules.
"""

from __future__ import annotations

import ipaddress
import re
import string
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache

import numpy as np
import pyarrow as pa

from l3_platform.settings import Pii

Place = tuple[int, int, int]  # start and end of a run of digits, and how many there are in it

KINDS = ("emails", "phones", "ips", "ibans", "cards")
SIDECAR = pa.schema([("doc_id", pa.uuid()), *((kind, pa.int32()) for kind in KINDS), ("density", pa.float64())])

_MARKERS = {"emails": "[EMAIL]", "phones": "[PHONE]", "ips": "[IP]", "ibans": "[IBAN]", "cards": "[CARD]"}

_EMAIL = re.compile(
    r"(?<![\w.+%/-])[A-Za-z0-9][\w.+%-]{0,63}@(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.){1,4}[A-Za-z]{2,18}(?![\w@(-])"
)
_IBAN = re.compile(r"(?<![A-Za-z0-9])[A-Z]{2}\d{2}(?:[ ]?[A-Z0-9]{4}){2,7}(?:[ ]?[A-Z0-9]{1,3})?(?![A-Za-z0-9])")
_CARD = re.compile(r"(?<![\w.,-])(?:\d{4}([ -])\d{4}\1\d{4}\1\d{4}|3[47]\d{2}([ -])\d{6}\2\d{5}|\d{15,16})(?![\w-]|[.,]\d)")
_IP = re.compile(r"(?<![\w.:-])(?:\d{1,3}\.){3}\d{1,3}(?![\w-]|\.\d)")
# A `+` with a country code; an area code in parentheses; or groups after a word that announces a number.
_PHONE = re.compile(
    r"""(?<![\w.,+*/=<>^-])(?<!\d[ ])(?:
      \+[1-9]\d{0,2}(?:[ .-]?\(0?\d{1,4}\))?(?:[ .-]?\d{2,5}){2,5}
    | (?:1[ .-])?\(\d{3}\)[ -]?\d{3}[ .-]\d{4}
    | (?:1[.-])?[2-9]\d{2}([.-])[2-9]\d{2}\1\d{4}
    | 00[1-9]\d{1,2}[ -]\d{1,4}(?:[ -]?\d{2,4}){2,4}
    )(?![\w*/=^-]|[.,]\d)""",
    re.VERBOSE,
)
_CALLED = re.compile(
    r"""\b(?:tel|telephone|phone|mobile|mob|cell|fax|call(?:\ us)?(?:\ at|\ on)?|telefon|téléphone|tél|
    teléfono|telefone|handy|whatsapp|電話)
    [.:]{0,2}[ ]{0,2}(\(?0?\d{1,5}\)?(?:[ ./-]{1,3}\d{2,8}){1,5})(?![\w-]|[.,]\d)""",
    re.IGNORECASE | re.VERBOSE,
)
_BEFORE, _BEHIND = 40, 2  # characters around digits that a pattern may look at
_CARD_DIGITS, _PHONE_DIGITS = 15, 7  # that a number has at least
_ANNOUNCERS = (
    "tel", "phone", "mobile", "mob", "cell", "fax", "call", "call us", " at", " on", "telefon", "téléphone", "tél", "teléfono",
    "telefone", "handy", "whatsapp", "電話",
)  # fmt: skip
_ANNOUNCED = 20  # characters before a number that hold the longest of them and what may stand between
_VERSION_BEFORE = re.compile(
    r"(?:\bv|\bver|version|release|build|driver|firmware|\bsection|§|rev(?:ision)?|[=<>~^]=?)[\s.:]*$", re.IGNORECASE
)
_SHORT = 1000  # characters of a text that is not worth a kernel: patterns say where to look
_AT_SIGN = re.compile("@")
_IBAN_BEGINS = re.compile(r"[A-Z]{2}\d\d")
_NUMBER = re.compile(r"\d(?:[ ./()-]{0,4}\d){5,}")
_BEYOND = re.compile("[\U00010000-\U0010ffff]")  # of whose digits the kernel knows nothing
_IBAN_LENGTHS = {
    "AD": 24, "AE": 23, "AL": 28, "AT": 20, "AZ": 28, "BA": 20, "BE": 16, "BG": 22, "BH": 22, "BR": 29, "BY": 28, "CH": 21,
    "CR": 22, "CY": 28, "CZ": 24, "DE": 22, "DK": 18, "DO": 28, "EE": 20, "EG": 29, "ES": 24, "FI": 18, "FO": 18, "FR": 27,
    "GB": 22, "GE": 22, "GI": 23, "GL": 18, "GR": 27, "GT": 28, "HR": 21, "HU": 28, "IE": 22, "IL": 23, "IS": 26, "IT": 27,
    "JO": 30, "KW": 30, "KZ": 20, "LB": 28, "LI": 21, "LT": 20, "LU": 20, "LV": 21, "MC": 27, "MD": 24, "ME": 22, "MK": 19,
    "MR": 27, "MT": 31, "MU": 30, "NL": 18, "NO": 15, "PK": 24, "PL": 28, "PS": 29, "PT": 25, "QA": 29, "RO": 24, "RS": 22,
    "SA": 24, "SE": 24, "SI": 19, "SK": 24, "SM": 27, "TN": 24, "TR": 26, "UA": 29, "VG": 24, "XK": 20,
}  # fmt: skip


def pii(documents: pa.Table, settings: Pii) -> pa.Table:
    """Matches of each kind in each document, in order, and their density: matches a white-space separated word."""
    counts: dict[str, list[int]] = {kind: [] for kind in KINDS}
    density: list[float] = []
    for text in documents.column("text").to_pylist():
        found = [kind for kind, _, _ in matches(text or "")]
        for kind in KINDS:
            counts[kind].append(found.count(kind))
        density.append(len(found) / max(1, len((text or "").split())) if found else 0.0)
    columns = [documents.column("doc_id").combine_chunks(), *(pa.array(counts[kind], pa.int32()) for kind in KINDS)]
    return pa.Table.from_arrays([*columns, pa.array(density, pa.float64())], schema=SIDECAR)


def mask(text: str) -> str:
    """The text with every match replaced by a plain marker: [EMAIL], [PHONE], [IP], [IBAN], [CARD]."""
    parts: list[str] = []
    end = 0
    for kind, start, stop in matches(text):
        parts += [text[end:start], _MARKERS[kind]]
        end = stop
    return "".join([*parts, text[end:]]) if parts else text


def matches(text: str) -> list[tuple[str, int, int]]:
    """(kind, start, end) of each match, in order of position, none overlapping; of two that overlap the stricter kind wins."""
    emails, ibans, numbers = _places(text)
    taken: list[tuple[str, int, int]] = []
    if not (emails or ibans or numbers):
        return taken
    _add(taken, "emails", (m.span() for m in _emails(text, emails) if _is_email(m.group())))
    starts = (m for at in ibans if (m := _IBAN.match(text, at)))
    _add(taken, "ibans", ((m.start(), m.start() + size) for m in starts if (size := _iban_chars(m.group()))))
    cards = [place for place in numbers if place[2] >= _CARD_DIGITS]
    _add(taken, "cards", (m.span() for m in _near(_CARD, text, cards) if _is_card(m.group())))
    dotted = [place for place in numbers if text.count(".", place[0], place[1]) >= 3]
    ips = (m for m in _near(_IP, text, dotted) if _is_ip(m.group(), text[max(0, m.start() - 16) : m.start()]))
    _add(taken, "ips", (m.span() for m in ips))
    phones = [place for place in numbers if _like_a_phone(text, *place)]
    _add(taken, "phones", (m.span() for m in _near(_PHONE, text, phones) if _is_phone(m.group())))
    called = [place for place in numbers if place[2] >= _PHONE_DIGITS and _is_announced(text, place[0])]
    _add(taken, "phones", (m.span(1) for m in _near(_CALLED, text, called) if _is_phone(m.group(1))))
    return sorted(taken, key=lambda match: match[1])


def _places(text: str) -> tuple[list[int], list[int], list[Place]]:
    """Where at signs stand, where IBANs could begin, and the runs of digits that could be a number."""
    if len(text) <= _SHORT:
        return places_by_patterns(text)
    from l3_platform.curate import pii_kernels as kernels

    data = np.frombuffer(text.encode("utf-8", "replace") or b" ", np.uint8)
    found = np.empty((len(data) // 2 + 1, 4), np.int32)
    rows = found[: kernels.places(data, _marks(), found)].tolist()
    emails = [start for kind, start, _, _ in rows if kind == kernels.EMAIL]
    ibans = [start for kind, start, _, _ in rows if kind == kernels.IBAN]
    return emails, ibans, [(start, end, digits) for kind, start, end, digits in rows if kind == kernels.NUMBER]


def places_by_patterns(text: str) -> tuple[list[int], list[int], list[Place]]:
    """What the kernel says, without it: a process that draws cards reads excerpts only, and to load numba takes a second."""
    text = _BEYOND.sub("?", text)
    emails, ibans = ([m.start() for m in pattern.finditer(text)] for pattern in (_AT_SIGN, _IBAN_BEGINS))
    return emails, ibans, [(*m.span(), sum(map(str.isdecimal, m.group()))) for m in _NUMBER.finditer(text)]


@lru_cache(maxsize=1)
def _marks() -> np.ndarray:
    """What the kernel wants to know of each code point of the Basic Multilingual Plane."""
    from l3_platform.curate import pii_kernels as kernels

    marks = np.zeros(65536, np.uint8)
    marks[[point for point in range(65536) if chr(point).isdecimal()]] = kernels.DIGIT
    marks[[ord(char) for char in " ./-()"]] = kernels.JOINS
    marks[[ord(char) for char in string.ascii_uppercase]] = kernels.CAPITAL
    marks[ord("@")] = kernels.AT
    return marks


def _emails(text: str, places: Sequence[int]) -> Iterator[re.Match[str]]:
    """Each address around an at sign, which has at most 64 characters before it and 274 behind."""
    end = 0
    for at in places:
        if at < end or not (text[at + 1 : at + 2].isalnum() and at):
            continue
        match = _EMAIL.search(text, max(end, at - 65), at + 300)
        while match and match.end() <= at:
            match = _EMAIL.search(text, match.end(), at + 300)
        if match and match.start() < at:
            end = match.end()
            yield match


def _like_a_phone(text: str, start: int, end: int, digits: int) -> bool:
    """Whether _PHONE can match in a run of digits: it wants a sign before it, or more digits than a date has."""
    if digits < _PHONE_DIGITS:
        return False
    return digits >= 10 or text.startswith(("+", "("), max(0, start - 1)) or "(" in text[start:end] or "00" in text[start:end]


def _is_announced(text: str, start: int) -> bool:
    """Whether a word stands before a run of digits that _CALLED knows: of the words only their ends are looked at."""
    before = text[max(0, start - _ANNOUNCED) : start].removesuffix("0").removesuffix("(").rstrip(" ").rstrip(".:")
    return before.lower().endswith(_ANNOUNCERS)


def _near(pattern: re.Pattern[str], text: str, places: Sequence[Place]) -> Iterator[re.Match[str]]:
    """Matches that end with a run of digits: with room for a word before it, and for what the pattern looks at behind it."""
    for start, end, _ in places:
        yield from (m for m in pattern.finditer(text, max(0, start - _BEFORE), end + _BEHIND) if m.end() > start)


def _add(taken: list[tuple[str, int, int]], kind: str, spans: Iterable[tuple[int, int]]) -> None:
    for start, end in list(spans):
        if all(end <= other[1] or start >= other[2] for other in taken):
            taken.append((kind, start, end))


_FILES = re.compile(r"\.(?:png|jpe?g|gif|webp|svg|js|css|py|html?|json|pdf)$", re.IGNORECASE)


def _is_email(text: str) -> bool:
    """Not a file such as `icon@2x.png`, nor the user of a repository's address."""
    return not _FILES.search(text) and not text.startswith("git@")


def _iban_chars(text: str) -> int:
    """Length of the IBAN at the start of the text, spaces included; 0 where country, length or check digits are wrong."""
    want = _IBAN_LENGTHS.get(text[:2], 0)
    places = [i for i, char in enumerate(text, start=1) if char != " "]
    end = places[want - 1] if 0 < want <= len(places) else len(text)
    digits = text[:end].replace(" ", "")
    if not want or len(digits) != want or (end < len(text) and text[end] != " "):
        return 0
    number = "".join(str(int(char, 36)) for char in digits[4:] + digits[:4])
    return end if int(number) % 97 == 1 else 0


def _is_card(text: str) -> bool:
    """Luhn's check digit, and a first digit that a card network uses."""
    digits = [int(char) for char in text if char.isdigit()]
    if len(set(digits)) < 2 or not _network(digits):
        return False
    doubled = (digit if i % 2 == 0 else sum(divmod(2 * digit, 10)) for i, digit in enumerate(reversed(digits)))
    return sum(doubled) % 10 == 0


def _network(digits: list[int]) -> bool:
    first, two, four = digits[0], digits[0] * 10 + digits[1], int("".join(map(str, digits[:4])))
    if len(digits) == 15:
        return two in (34, 37)
    return first == 4 or 51 <= two <= 55 or 2221 <= four <= 2720 or four == 6011 or two in (62, 65) or 3528 <= four <= 3589


def _is_ip(text: str, before: str) -> bool:
    """A public IPv4 address of a host: private, local and documentation ranges identify nobody, versions are announced as such."""
    if not text.isascii():
        return False
    parts = text.split(".")
    if any(int(part) > 255 or (len(part) > 1 and part[0] == "0") for part in parts) or _VERSION_BEFORE.search(before):
        return False
    # Versions have small parts: 1.10.2.0 is a release, hosts of 1.0.0.0/8 to 9.0.0.0/8 with small parts are rare.
    if sum(int(part) < 25 for part in parts) >= 3 or int(parts[0]) == 0:
        return False
    address = ipaddress.IPv4Address(text)
    return address.is_global and not address.is_multicast


def _is_phone(text: str) -> bool:
    """Seven to fifteen digits (ITU-T E.164) that are no date and not one digit repeated."""
    digits = "".join(char for char in text if char.isdigit())
    if not 7 <= len(digits) <= 15 or len(set(digits)) < 3:
        return False
    if text.startswith("+") and text[1:].isdigit() and len(digits) < 11:
        return False  # a signed integer, such as +2147483647
    return not re.fullmatch(r"\(?(?:19|20)\d\d\)?[-./ ]\d{1,2}[-./ ]\d{1,2}|\d{1,2}[-./]\d{1,2}[-./](?:19|20)\d\d", text)
