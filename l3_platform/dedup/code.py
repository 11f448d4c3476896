"""Which lines of a text read as code: line deduplication leaves them alone, and no classifier of prose judges them."""

from __future__ import annotations

import functools
import re

import numpy as np
import numpy.typing as npt
import pyarrow as pa

CODE_SHARE = 0.4  # of its characters: from there on a page is code
MAX_CHARS = 20_000  # read of a text to tell its share

# How a line of code may begin without any other sign of it: `line_kernels` asks `is_code` of no other line that lacks one.
KEYWORDS = ("import", "from", "package", "using", "use", "namespace", "return", "raise", "throw", "const", "let", "var",
            "public", "private", "static", "void", "local", "require")  # fmt: skip
# The same for lines that end with a colon.
OPENERS = ("async", "export", "public", "private", "static", "def", "class", "if", "elif", "else", "for", "while", "with", "try",
           "except", "finally", "func", "fn")  # fmt: skip

_BEGINS_AS_CODE = re.compile(
    r"^(?:\s{2,}\S|\t|>>>|\.\.\.(?:\s|$)|In \[|\$ |#include|#!/|# |//|/\*|\"\"\"|@\w+|[{}])"  # indentation is kept in <pre> only
    r"|^(?:import [\w.]+(?: as \w+)?(?:, .*)?|from [\w.]+ import .*)$"
    r"|^(?:async |export |public |private |static )*(?:def|class|if|elif|else|for|while|with|try|except|finally|func|fn)\b.*[:{]$"
    r"|^(?:package|using|use|namespace|return|raise|throw|const|let|var|public|private|static|void|local|require)\b.*[\w;)}\"']$"
    r"|^[\w.\[\]]+(?:: [\w\[\], .|]+)? [+*/-]?= \S|^[\w.]+\(.*\)$"
)


def is_code(line: str) -> bool:
    """True for a line that is indented, follows a prompt or has the syntax of a program."""
    return line.rstrip().endswith((";", "{", "}")) or _BEGINS_AS_CODE.match(line) is not None


def code_shares(texts: pa.Array | pa.ChunkedArray) -> npt.NDArray[np.float64]:
    """`code_share` of each text, [texts], 0 for a null: a kernel settles most lines, and only the others are asked about."""
    from l3_platform.dedup import line_kernels
    from l3_platform.dedup.shingles import utf8

    data, offsets = utf8(texts)
    most = int(np.count_nonzero(data[offsets[0] : offsets[-1]] == ord("\n"))) + len(texts)
    code, total = np.zeros((2, len(texts)), np.int64)
    document, start, end, chars = fields = np.empty((4, most), np.int64)
    keywords, openers = first_words()
    asked = line_kernels.weigh_code(data, offsets, MAX_CHARS, keywords, openers, code, total, document, start, end, chars)
    for document, start, end, chars in fields[:, :asked].T.tolist():
        if is_code(data[start:end].tobytes().decode(errors="replace")):
            code[document] += chars
    return code / np.maximum(total, 1)


@functools.lru_cache(maxsize=1)
def first_words() -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
    """KEYWORDS and OPENERS as `line_kernels` looks them up."""
    from l3_platform.dedup import line_kernels

    def spelled(words: tuple[str, ...]) -> npt.NDArray[np.uint64]:
        letters = [line_kernels.first_letters(np.frombuffer(word.encode(), np.uint8), 0, len(word)) for word in words]
        return np.unique(np.array(letters, np.uint64))

    return spelled(KEYWORDS), spelled(OPENERS)


def code_share(text: str) -> float:
    """Share of the characters that stand in lines of code, white space left out."""
    code = total = 0
    for line in text[:MAX_CHARS].split("\n"):
        chars = len(line) - line.count(" ")
        total += chars
        code += chars if chars and is_code(line) else 0
    return code / total if total else 0.0
