"""What each code point is, as tables that kernels index: Unicode's categories, not rules of our own."""

from __future__ import annotations

import unicodedata
from functools import lru_cache

import numpy as np
import numpy.typing as npt

# What a code point does to a word of ours (`word_kernels`).
SPACE, LETTER, DIGIT, ALONE, MARK, APOSTROPHE = 0, 1, 2, 3, 4, 5

# What is true of a code point, as bits: of words that are given, and of lines.
ALPHABETIC, NO_PUNCTUATION = 1, 2
WHITE, BREAK, BULLET, TERMINAL = 1, 2, 4, 8

Table = npt.NDArray[np.uint8]

# Scripts without spaces between words: Thai, Lao, Burmese, Khmer, kana, ideographs, and their extensions.
_ALONE = ((0x0E00, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x2E80, 0x2FDF), (0x3005, 0x3007), (0x3040, 0x30FF),
          (0x31F0, 0x31FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF))  # fmt: skip
_LETTERS_END = 0x32400  # behind the last letter that Unicode assigns

# datatrove 0.10's PUNCTUATION_SET (Apache-2.0): signs of several scripts, control characters, and Unicode's Sentence_Terminal.
_SIGNS = "!/—”:％１〈&(、━\\【#%「」，】；+^]~“《„';’{|∶´[=-`*．（–？！：$～«〉,><》)?）。…@_.\"}►»"
_CONTROL = "0-8 B-1F 7F-9F"
_SENTENCE_TERMINAL = """
21 2E 3F 589 61D-61F 6D4 700-702 7F9 837 839 83D-83E 964-965 104A-104B 1362 1367-1368 166E 1735-1736 17D4-17D6 17D9-17DA
1803 1809 1944-1945 1AA8-1AAB 1B5A-1B5B 1B5E-1B5F 1B7D-1B7E 1C3B-1C3C 1C7E-1C7F 203C-203D 2047-2049 2E2E 2E3C 2E53-2E54 3002
A4FF A60E-A60F A6F3 A6F7 A876-A877 A8CE-A8CF A92F A9C8-A9C9 AA5D-AA5F AAF0-AAF1 ABEB FE52 FE56-FE57 FF01 FF0E FF1F FF61
10A56-10A57 10F55-10F59 10F86-10F89 11047-11048 110BE-110C1 11141-11143 111C5-111C6 111CD 111DE-111DF 11238-11239 1123B-1123C
112A9 1144B-1144C 115C2-115C3 115C9-115D7 11641-11642 1173C-1173E 11944 11946 11A42-11A43 11A9B-11A9C 11C41-11C42 11EF7-11EF8
11F43-11F44 16A6E-16A6F 16AF5 16B37-16B38 16B44 16E98 1BC9F 1DA88
"""


@lru_cache(maxsize=1)
def word_classes() -> tuple[Table, npt.NDArray[np.uint32]]:
    """Word class and lower case of each code point of the Basic Multilingual Plane."""
    classes = np.zeros(65536, np.uint8)
    lower = np.arange(65536, dtype=np.uint32)
    kinds = {"L": LETTER, "N": DIGIT, "M": MARK}
    for point in range(65536):
        char = chr(point)
        classes[point] = kinds.get(unicodedata.category(char)[0], SPACE)
        small = char.lower()
        if len(small) == 1:
            lower[point] = ord(small)
    for first, last in _ALONE:
        block = classes[first : last + 1]
        block[block == LETTER] = ALONE
    classes[[ord("'"), ord("’")]] = APOSTROPHE
    return classes, lower


@lru_cache(maxsize=1)
def word_marks() -> Table:
    """ALPHABETIC and NO_PUNCTUATION of each code point up to the last letter; those beyond have NO_PUNCTUATION only."""
    marks = np.full(_LETTERS_END, NO_PUNCTUATION, np.uint8)
    marks[[point for point in range(_LETTERS_END) if chr(point).isalpha()]] |= ALPHABETIC
    marks[[ord(sign) for sign in _SIGNS]] &= ~np.uint8(NO_PUNCTUATION)
    for block in (_CONTROL + _SENTENCE_TERMINAL).split():
        first, _, last = block.partition("-")
        marks[int(first, 16) : int(last or first, 16) + 1] &= ~np.uint8(NO_PUNCTUATION)
    return marks


@lru_cache(maxsize=4)
def line_signs(bullets: str, terminals: str = "") -> Table:
    """WHITE (taken away by `str.strip`), BREAK (a line ends there, as `str.splitlines` has it), BULLET and TERMINAL."""
    signs = np.zeros(65536, np.uint8)
    for point in range(65536):
        char = chr(point)
        signs[point] = WHITE * char.isspace() | BREAK * (len(f"{char}x".splitlines()) > 1)
    signs[[ord(char) for char in bullets]] |= BULLET
    signs[[ord(char) for char in terminals]] |= TERMINAL
    return signs


@lru_cache(maxsize=1)
def line_bytes() -> Table:
    """1 for each first byte of a UTF-8 character that ends a line, of full stops, ellipses and hash signs."""
    first = np.zeros(256, np.uint8)
    breaks = [chr(point) for point in range(65536) if line_signs("")[point] & BREAK]
    first[[char.encode()[0] for char in (*breaks, ".", "…", "#")]] = 1
    return first
