"""Real text out of the installed packages: docstrings, READMEs, the language reference and source files.

Sources are parsed with `ast`, never imported. Files are visited in an order drawn from the seed, so that a small web spreads over
all packages, and a docstring is used only when it reads like ordinary text and repeats little of what was used before.
"""

from __future__ import annotations

import ast
import inspect
import os
import re
import sysconfig
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from l3_platform.crawl.demo.originality import Originality
from l3_platform.crawl.demo.page import Article, draw

MIN_CHARS, MAX_CHARS = 1_200, 7_000  # of a page's source text
_MAX_FILE = 900_000  # bytes; larger files are generated
_OURS = "l3-platform"
_MIN_DOCUMENTED = 0.3  # share of a file inside triple quotes
_SKIPPED = frozenset(
    [
        *("test", "tests", "testing", "benchmarks", "migrations", "db_migrations", "_vendor", "vendored", "externals"),
        *("site-packages", "dist-packages", "idlelib", "lib2to3", "turtledemo", "encodings"),
    ]
)
_UNFILLED = re.compile(r"%\(\w+\)s|(?<![\w}^_\]|'\"])\{[a-z_]{3,}\}")  # docstrings that are templates for others


@dataclass(frozen=True)
class Collection:
    """Text of one kind from one distribution; `weight` is its share of the pages, in parts."""

    name: str
    distribution: str  # empty: the standard library
    package: str
    kind: str  # docstrings, topics, readmes or code
    weight: int


COLLECTIONS = (
    Collection("numpy", "numpy", "numpy", "docstrings", 5),
    Collection("scipy", "scipy", "scipy", "docstrings", 11),
    Collection("scikit-learn", "scikit-learn", "sklearn", "docstrings", 7),
    Collection("pandas", "pandas", "pandas", "docstrings", 6),
    Collection("networkx", "networkx", "networkx", "docstrings", 6),
    Collection("sympy", "sympy", "sympy", "docstrings", 14),
    Collection("torch", "torch", "torch", "docstrings", 10),
    Collection("matplotlib", "matplotlib", "matplotlib", "docstrings", 4),
    Collection("sqlalchemy", "SQLAlchemy", "sqlalchemy", "docstrings", 7),
    Collection("mlflow", "mlflow", "mlflow", "docstrings", 4),
    Collection("dagster", "dagster", "dagster", "docstrings", 1),
    Collection("mpmath", "mpmath", "mpmath", "docstrings", 1),
    Collection("hub", "huggingface_hub", "huggingface_hub", "docstrings", 2),
    Collection("library", "", ".", "docstrings", 5),
    Collection("reference", "", "pydoc_data", "topics", 3),
    Collection("readmes", "", "", "readmes", 6),
    Collection("code-library", "", ".", "code", 1),
    Collection("code-mlflow", "mlflow", "mlflow", "code", 5),
    Collection("code-torch", "torch", "torch", "code", 6),
    Collection("code-sympy", "sympy", "sympy", "code", 2),
)


def articles(seed: int) -> Iterator[Article]:
    """Articles of all collections, mixed by weight, until every collection is exhausted."""
    seen = Originality()
    queues = {c.name: _of_collection(c, seed, seen) for c in COLLECTIONS}
    # Stride scheduling: collection c comes up at (i + 1/2) / weight, so any prefix holds the weights.
    turns = sorted(((i + 0.5) / c.weight, c.name) for c in COLLECTIONS for i in range(c.weight))
    while queues:
        for _, name in turns:
            if name not in queues:
                continue
            article = next(queues[name], None)
            if article is None:
                del queues[name]
            else:
                yield article


def provenance() -> tuple[str, ...]:
    """Name and version of every distribution that text may come from, sorted; part of the crawl's identity."""
    return tuple(sorted({f"{name}=={dist.version}" for name, dist in _distributions().items()}))


def _of_collection(collection: Collection, seed: int, seen: Originality) -> Iterator[Article]:
    if collection.kind == "docstrings":
        return _docstring_articles(collection, seed, seen)
    whole = {"topics": _topics, "readmes": _readmes, "code": _code}[collection.kind](collection, seed)
    return (article for article in whole if seen.accept(article.text, code=article.markup == "code"))


def _files(collection: Collection, seed: int) -> Iterator[tuple[str, str]]:
    """(dotted module name, source) of a collection's files in drawn order."""
    root = _root(collection)
    if root is None:
        return
    base = root.parent if collection.distribution else root
    paths = _python_files(root, base)
    for path in sorted(paths, key=lambda p: (draw(seed, collection.name, p), p)):
        if 600 < (base / path).stat().st_size < _MAX_FILE:
            source = (base / path).read_text(encoding="utf-8", errors="replace")
            yield path.removesuffix(".py").removesuffix("/__init__").replace("/", "."), source


def _python_files(root: Path, base: Path) -> list[str]:
    """Paths below `root`, relative to `base`, without tests and bundled copies of other packages."""
    paths = []
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if name not in _SKIPPED]
        inside = Path(folder).relative_to(base).as_posix()
        paths += [f"{inside}/{name}".removeprefix("./") for name in names if name.endswith(".py")]
    return paths


def _root(collection: Collection) -> Path | None:
    if not collection.distribution:
        return Path(sysconfig.get_path("stdlib")) / collection.package
    if collection.distribution not in _distributions():
        return None
    return Path(str(_distributions()[collection.distribution].locate_file(collection.package)))


@cache
def _distributions() -> dict[str, metadata.Distribution]:
    """Installed distributions by name, without this one: its README changes more often than its version."""
    found = {name: dist for dist in metadata.distributions() if (name := dist.metadata["Name"]) and name != _OURS}
    return {name: found[name] for name in sorted(found)}


def _docstring_articles(collection: Collection, seed: int, seen: Originality) -> Iterator[Article]:
    """Pages of a module: a class with its methods, or functions that follow each other, of 1.2 to 7 kB."""
    for module, source in _documented_first(_files(collection, seed)):
        entries = [(name, text) for name, text in _entries(source) if seen.accept(text)]
        target = 2_600 + int(3_400 * draw(seed, module))
        page: list[tuple[str, str]] = []
        size = 0
        for i, (name, text) in enumerate(entries):
            page.append((name, text))
            size += len(text)
            owner_ends = i + 1 == len(entries) or _owner(entries[i + 1][0]) != _owner(name)
            if size >= target or (owner_ends and size >= MIN_CHARS) or i + 1 == len(entries):
                if MIN_CHARS <= size <= MAX_CHARS:
                    yield _article(collection, module, page)
                page, size = [], 0


def _documented_first(files: Iterator[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """The files that are documentation for a good part, then the others, which cost much parsing for little text."""
    sparse = []
    for module, source in files:
        share = sum(map(len, source.split('"""')[1::2])) / len(source)
        if share >= _MIN_DOCUMENTED:
            yield module, source
        elif share > 0.05:
            sparse.append((module, source))
    yield from sparse


def _owner(name: str) -> str:
    """The class that a qualified name belongs to; empty for functions."""
    head = name.partition(".")[0]
    return head if head[:1].isupper() else ""


def _article(collection: Collection, module: str, page: list[tuple[str, str]]) -> Article:
    name = f"{module}.{page[0][0]}" if page[0][0] else module
    sections = (("", page[0][1]), *page[1:])
    return Article(collection.name, name, "rst", sections)


def _entries(source: str) -> Iterator[tuple[str, str]]:
    """(qualified name, cleaned docstring) in source order; also strings given to `add_newdoc`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)  # invalid escapes in other people's docstrings
        try:
            tree = ast.parse(source)
        except SyntaxError:  # a file for another Python, such as a template
            return
    yield from _walk(tree, "")


def _walk(node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef, name: str) -> Iterator[tuple[str, str]]:
    if _usable(text := ast.get_docstring(node)):
        yield name, text or ""
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        return
    for child in node.body:
        if isinstance(child, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            if not child.name.startswith("_"):
                yield from _walk(child, f"{name}.{child.name}".lstrip("."))
        elif isinstance(child, ast.Expr) and isinstance(child.value, ast.Call):
            yield from _new_doc(child.value)


def _new_doc(call: ast.Call) -> Iterator[tuple[str, str]]:
    """The documentation of a C function: `add_newdoc(place, name, text)` in numpy, `add_newdoc(name, text)` in scipy."""
    if not isinstance(call.func, ast.Name) or not call.func.id.startswith("add_newdoc"):
        return
    strings = [n.value for arg in call.args for n in ast.walk(arg) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
    names = [string for string in strings[:-1] if string.isidentifier()]
    if names and _usable(text := inspect.cleandoc(strings[-1])):
        yield names[-1], text


def _usable(text: str | None) -> bool:
    return text is not None and 200 <= len(text) <= MAX_CHARS and not _UNFILLED.search(text)


def _topics(collection: Collection, seed: int) -> Iterator[Article]:
    """Chapters of the Python language reference, as `pydoc_data` keeps them for `help()`."""
    root = _root(collection)
    path = root / "topics.py" if root else None
    if path is None or not path.exists():
        return
    assigned = ast.parse(path.read_text(encoding="utf-8")).body[-1]
    topics = ast.literal_eval(assigned.value) if isinstance(assigned, (ast.Assign, ast.AnnAssign)) and assigned.value else {}
    for name in sorted(topics, key=lambda topic: draw(seed, topic)):
        for number, text in enumerate(_cut(topics[name])):
            yield Article(collection.name, f"reference.{name}" + (f".{number + 1}" if number else ""), "rst", (("", text),))


def _readmes(collection: Collection, seed: int) -> Iterator[Article]:
    """Long descriptions of the installed distributions."""
    for name in sorted(_distributions(), key=lambda dist: draw(seed, dist)):
        info: Any = _distributions()[name].metadata  # an email message, which importlib.metadata types as less
        payload = info.get_payload()
        text = payload if isinstance(payload, str) and payload.strip() else info.get("Description") or ""
        markup = "markdown" if "markdown" in str(info.get("Description-Content-Type") or "") else "rst"
        for number, part in enumerate(_cut(text.replace("\r\n", "\n"))):
            yield Article(collection.name, f"{name}.{number + 1}", markup, (("", part),))


def _cut(text: str) -> Iterator[str]:
    """Pieces of 1.2 to 7 kB, cut at blank lines before unindented text outside fences."""
    piece: list[str] = []
    size, fenced = 0, False
    for block in re.split(r"\n\n+(?=\S)", text.strip()):
        if size > 4_000 and not fenced:
            yield "\n\n".join(piece)
            piece, size = [], 0
        fenced ^= block.count("```") % 2 == 1
        piece.append(block)
        size += len(block)
    if MIN_CHARS <= size <= MAX_CHARS:
        yield "\n\n".join(piece)


def _code(collection: Collection, seed: int) -> Iterator[Article]:
    """Whole source files of 1.2 to 7 kB, without those that docstring pages could be made of."""
    for module, source in _files(collection, seed):
        if MIN_CHARS <= len(source) <= MAX_CHARS and source.count('"""') < 4:
            yield Article(collection.name, module, "code", (("", source.strip("\n")),))
