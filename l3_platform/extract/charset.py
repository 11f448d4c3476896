"""Bytes of a page to text: what the page declares, checked against what its bytes are.

Servers and pages lie about their charset. UTF-8 is self-checking: bytes with multi-byte characters that decode as UTF-8
are UTF-8 whatever was declared, and bytes that do not are not. Everything else is decided by the first declaration that
decodes: byte order mark, HTTP header, `<meta>`, XML declaration. `charset-normalizer` guesses only where nothing is declared
and the bytes are not UTF-8: it is a hundred times slower than a decode.
"""

from __future__ import annotations

import codecs
import re

META_BYTES = 4096  # browsers look at the first 1,024; some pages put scripts first
GUESS_BYTES = 16_384

_BOMS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
_META = re.compile(rb"""<meta[^>]{0,200}?charset\s*=\s*["']?\s*([A-Za-z0-9_:.-]{2,40})""", re.IGNORECASE)
_XML = re.compile(rb"""^\s*<\?xml[^>]{0,100}encoding\s*=\s*["']([A-Za-z0-9_:.-]{2,40})""")
_HEADER = re.compile(r"""charset\s*=\s*["']?\s*([A-Za-z0-9_:.-]+)""", re.IGNORECASE)

# Labels that browsers read as a superset (WHATWG Encoding Standard, section 4.2).
_WEB_NAMES = {
    "ascii": "cp1252",
    "iso8859-1": "cp1252",
    "iso8859-9": "cp1254",
    "tis-620": "cp874",
    "iso8859-11": "cp874",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "euc_kr": "cp949",
    "shift_jis": "cp932",
    "big5": "big5hkscs",
    "utf-7": "",
}
_CONTROLS = bytes([*range(9), 11, *range(14, 32)])
_OTHERS = bytes(set(range(256)) - set(_CONTROLS))
_HIGH = re.compile(rb"[\x80-\xff]+")
_LANGUAGE = re.compile(rb"""<html[^>]{0,300}?\slang\s*=\s*["']?([A-Za-z]{2})""", re.IGNORECASE)
_CODE_PAGES = dict.fromkeys(("pl", "cs", "sk", "hu", "sl", "hr", "ro", "sq"), "cp1250") | {
    "tr": "cp1254",
    "lt": "cp1257",
    "lv": "cp1257",
}
_GUESSED = ["gb18030", "big5", "cp932", "euc_jp", "iso2022_jp", "cp949", "cp1251", "koi8_r", "cp1253", "cp1255", "cp1256", "cp874"]
_MULTIBYTE = frozenset({"gb18030", "cp949", "cp932", "big5hkscs", "euc_jp", "iso2022_jp", "utf-16", "utf-16-le", "utf-16-be"})


class Undecodable(ValueError):
    """No charset turns these bytes into text: the payload is binary."""


def decode(payload: bytes, declared: str = "") -> tuple[str, str]:
    """Text of a page and the name of the charset it was in.

    `declared` is the HTTP header's charset or its whole Content-Type. Raises Undecodable for binary payloads.
    """
    for mark, name in _BOMS:
        if payload.startswith(mark):
            return payload[len(mark) :].decode(name, "replace"), name
    names = _declared(payload, declared)
    utf8 = _as_utf8(payload)
    if utf8 is not None and (not payload.isascii() or not _MULTIBYTE.intersection(names)):
        return _refuse_binary(utf8), "utf-8"
    for name in names:
        if name == "utf-8":
            continue
        text = _strict(payload, name)
        if text is not None:
            return _refuse_binary(text), name
    if utf8 is not None:
        return _refuse_binary(utf8), "utf-8"
    return _undeclared(payload, names)


def _declared(payload: bytes, header: str) -> list[str]:
    """Codec names in order of trust, without repeats."""
    found = _HEADER.search(header)
    labels = [found.group(1) if found else header.strip()]
    head = payload[:META_BYTES]
    labels += [match.group(1).decode("ascii") for match in (_META.search(head), _XML.search(head)) if match]
    names: list[str] = []
    for label in labels:
        name = _codec(label)
        # A `<meta>` that could be read as ASCII proves that the page is not UTF-16.
        if name and name not in names and not (name.startswith("utf-16") and b"\0" not in head):
            names.append(name)
    return names


def _codec(label: str) -> str:
    """Python's name of a web label; empty where there is none."""
    if not label or len(label) > 40:
        return ""
    try:
        name = codecs.lookup(label).name
        "".encode(name)  # refuses bytes-to-bytes codecs such as `hex`
    except (LookupError, ValueError):
        return ""
    return _WEB_NAMES.get(name, name)


def _as_utf8(payload: bytes) -> str | None:
    """The text where the bytes are UTF-8, else None. A page cut inside its last character still is."""
    try:
        return payload.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start >= len(payload) - 3 and error.reason == "unexpected end of data":
            return payload[: error.start].decode("utf-8")
        return None


def _strict(payload: bytes, name: str) -> str | None:
    """The text where the bytes are in this charset, else None. Browsers define the few bytes of cp125x that Python does not."""
    try:
        return payload.decode(name)
    except UnicodeDecodeError as error:
        cut = error.start >= len(payload) - 3
        return payload.decode(name, "replace") if cut or name.startswith("cp125") else None


def _undeclared(payload: bytes, names: list[str]) -> tuple[str, str]:
    """Neither UTF-8 nor what it declares. Mostly UTF-8 with a few broken bytes, cp1252, or binary."""
    replaced = payload.decode("utf-8", "replace")
    broken = replaced.count("\ufffd")
    multibyte = sum(1 for char in replaced if char > "\x7f") - broken
    if multibyte > 4 * broken:
        return _refuse_binary(replaced), "utf-8"
    name = _by_language(payload)
    if name or _is_latin(payload):
        name = name or "cp1252"
        return _refuse_binary(payload.decode(name, "replace")), name
    name = _guess(payload) or next((name for name in names if name != "utf-8"), "cp1252")
    return _refuse_binary(payload.decode(name, "replace")), name


def _is_latin(payload: bytes) -> bool:
    """Whether the bytes over 127 stand alone between ASCII letters, as accents do; other scripts are runs of them."""
    high = _HIGH.findall(payload)
    return sum(len(run) for run in high if len(run) > 1) <= 0.3 * sum(len(run) for run in high)


def _by_language(payload: bytes) -> str:
    """Windows code page of the Central European, Baltic or Turkish language that the page names; else empty."""
    found = _LANGUAGE.search(payload[:META_BYTES])
    return _CODE_PAGES.get(found.group(1).decode("ascii").lower(), "") if found else ""


def _guess(payload: bytes) -> str:
    from charset_normalizer import from_bytes

    # The start of a page is ASCII markup: the guess needs the part that is text.
    first = next((match.start() for match in _HIGH.finditer(payload)), 0)
    best = from_bytes(payload[max(0, first - 256) : first + GUESS_BYTES], cp_isolation=_GUESSED).best()
    return best.encoding if best else ""


def _refuse_binary(text: str) -> str:
    """The text, unless more than 1 % of its first characters are controls or replacements."""
    head = text[:8192]
    controls = len(head.encode("utf-8", "replace").translate(None, _OTHERS)) + head.count("\ufffd")
    if controls > 8 and controls > 0.01 * len(head):
        raise Undecodable(f"{controls:,} control or undecodable characters in the first {len(head):,}: not text")
    return text
