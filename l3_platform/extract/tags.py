"""What the tags and attributes of HTML mean to the scan: small tables that its kernels look words up in.

A word is found by its hash (FNV-1a, 32 bits, ASCII letters lowered) in an open-addressed table, so that no kernel compares strings.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

FNV_OFFSET = 0x811C9DC5
FNV_PRIME = 0x01000193

# Bits of the state inside an element: inherited by all that is in it, stored with each block.
SKIP, LINK, PRE, HIDDEN, NAV, ASIDE, FOOTER, HEADER, FORM, LIST, TABLE, ARTICLE, MAIN, FIGURE, QUOTE, DIALOG, NOSCRIPT, BUTTON, \
    HEADING, LABEL, STRONG, ROW, DETAILS, UNSEEN, TERMS, CELL = (1 << i for i in range(26))  # fmt: skip

# What a tag does to the walk, beside the bits that it sets.
BLOCK, VOID, RAW, BREAK, RULE, LEFT_OUT = (1 << i for i in range(32, 38))

_SETS: dict[str, int] = {
    "a": LINK,
    "b strong em i mark": STRONG,
    "label": LABEL,
    "pre listing": BLOCK | PRE,
    "nav menu search": BLOCK | NAV,
    "aside": BLOCK | ASIDE,
    "footer": BLOCK | FOOTER,
    "header": BLOCK | HEADER,
    "form": BLOCK | FORM,
    "ul ol dir": BLOCK | LIST,
    "dl": BLOCK | TERMS,
    "table": BLOCK | TABLE,
    "td th": BLOCK | CELL,
    "article": BLOCK | ARTICLE,
    "main": BLOCK | MAIN,
    "figure figcaption": BLOCK | FIGURE,
    "blockquote": BLOCK | QUOTE,
    "dialog": BLOCK | DIALOG,
    "noscript": BLOCK | NOSCRIPT,
    "button": BLOCK | BUTTON,
    "details": BLOCK | DETAILS,
    "h1 h2 h3 h4 h5 h6": BLOCK | HEADING,
    "address body caption center dd div dt fieldset hgroup html legend li p section summary tbody tfoot thead tr": BLOCK,
    "br": VOID | BREAK,
    "hr": VOID | RULE,
    "area base basefont bgsound col embed frame img input keygen link meta param source track wbr": VOID,
    "script style xmp iframe noembed noframes plaintext": RAW | LEFT_OUT,
    "head title template svg math select textarea object canvas audio video map datalist progress meter applet rp": LEFT_OUT,
}
TAGS: list[str] = ["", *(name for names in _SETS for name in names.split())]
TAG_ID = {name: i for i, name in enumerate(TAGS)}
TAG_BITS = np.array([0, *(bits for names, bits in _SETS.items() for _ in names.split())], np.int64)

# Attributes that are read, by what is done with their value.
CLASS, NAMES, STYLE, NO_SHOW, ROLE, UNSEEN_BY_READERS, KIND, SOURCE = range(1, 9)
_ATTRIBUTES = {
    "class": CLASS, "id": NAMES, "itemprop": NAMES, "itemtype": NAMES, "data-testid": NAMES, "style": STYLE, "hidden": NO_SHOW,
    "role": ROLE, "aria-hidden": UNSEEN_BY_READERS, "type": KIND, "property": KIND, "src": SOURCE, "content": SOURCE,
}  # fmt: skip
_ROLES = {
    "navigation": NAV, "banner": HEADER, "contentinfo": FOOTER, "complementary": ASIDE, "search": NAV, "menu": NAV, "menubar": NAV,
    "tablist": NAV, "dialog": DIALOG, "alertdialog": DIALOG, "alert": DIALOG, "tooltip": DIALOG, "main": MAIN, "article": ARTICLE,
    "button": BUTTON, "list": LIST, "heading": HEADING,
}  # fmt: skip


def fnv(word: str) -> int:
    value = FNV_OFFSET
    for byte in word.lower().encode():
        value = (value ^ byte) * FNV_PRIME & 0xFFFFFFFF
    return value


def table(values: Mapping[int, int], dtype: type = np.int64) -> tuple[np.ndarray, np.ndarray]:
    """Hash to value, as keys and values of an open-addressed table whose length is a power of two; key 0 is an empty place."""
    size = 1 << (2 * len(values) + 1).bit_length()
    keys, found = np.zeros(size, np.uint32), np.zeros(size, dtype)
    for key, value in values.items():
        place = key & (size - 1)
        while keys[place]:
            place = (place + 1) & (size - 1)
        keys[place], found[place] = key, value
    return keys, found


TAG_TABLE = table({fnv(name): i for i, name in enumerate(TAGS) if name})
ATTRIBUTE_TABLE = table({fnv(name): kind for name, kind in _ATTRIBUTES.items()})
ROLE_TABLE = table({fnv(name): bits for name, bits in _ROLES.items()})
