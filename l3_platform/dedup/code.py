"""Which lines of a text read as code: line deduplication leaves them alone, and no classifier of prose judges them."""

from __future__ import annotations

import re

CODE_SHARE = 0.4  # of its characters: from there on a page is code
MAX_CHARS = 20_000  # read of a text to tell its share

# How a line of code may begin without any other sign of it: `line_kernels` asks `is_code` of no other line that lacks one.
KEYWORDS = ("import", "from", "package", "using", "use", "namespace", "return", "raise", "throw", "const", "let", "var",
            "public", "private", "static", "void", "local", "require")  # fmt: skip

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


def code_share(text: str) -> float:
    """Share of the characters that stand in lines of code, white space left out."""
    code = total = 0
    for line in text[:MAX_CHARS].split("\n"):
        chars = len(line) - line.count(" ")
        total += chars
        code += chars if chars and is_code(line) else 0
    return code / total if total else 0.0
