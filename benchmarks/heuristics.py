"""`python -m benchmarks.heuristics`: the statistics of Rae et al. 2021 beside datatrove's Gopher filters, same process, in turn.

From words that are given, the same for both, cut at white space. From text, each with its own way of cutting words, where spaCy is
there, which datatrove asks for. Both compute every number: datatrove stops at the first threshold that a document fails, so all
of them are set where none fails.
"""

from __future__ import annotations

import argparse
import ast
import importlib.util
import sys
import sysconfig
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pyarrow as pa

from benchmarks import ratios
from l3_platform.curate.given_words import quality, repetition
from l3_platform.curate.heuristics import text_heuristics

ROUNDS = 5
NEVER = 1e9  # a share that no document exceeds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=int, default=1000)
    parser.add_argument(
        "--text", help="a file of prose, cut into documents of 800 words; without it docstrings of what is installed"
    )
    options = parser.parse_args()
    try:
        lines = compare(documents(options.text, options.documents))
    except ModuleNotFoundError as error:
        sys.exit(f"{error}: pip install datatrove into the environment that this runs in")
    for line in lines:
        print(line)


def documents(file: str | None, most: int) -> list[str]:
    """Texts of about 800 words."""
    if file:
        words = Path(file).read_text(encoding="utf-8").split(" ")
        return [text for i in range(0, len(words), 800) if (text := " ".join(words[i : i + 800]).strip())][:most]
    texts = []
    for path in sorted(Path(sysconfig.get_paths()["purelib"]).glob("n*/**/*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
        text = "\n\n".join(found for node in ast.walk(tree) if isinstance(node, kinds) and (found := ast.get_docstring(node)))
        if len(text) > 1000:
            texts.append(text[:5000])
        if len(texts) == most:
            break
    return texts


def compare(texts: list[str]) -> list[str]:
    """A line a comparison: microseconds a document of both, and how many times as fast ours is."""
    from datatrove.data import Document
    from datatrove.pipeline.filters import GopherQualityFilter, GopherRepetitionFilter
    from datatrove.pipeline.filters import gopher_quality_filter as their_quality
    from datatrove.pipeline.filters import gopher_repetition_filter as their_repetition

    repetition_filter = GopherRepetitionFilter(
        dup_line_frac=NEVER,
        dup_para_frac=NEVER,
        dup_line_char_frac=NEVER,
        dup_para_char_frac=NEVER,
        top_n_grams=tuple((n, NEVER) for n in (2, 3, 4)),
        dup_n_grams=tuple((n, NEVER) for n in range(5, 11)),
    )
    quality_filter = GopherQualityFilter(
        min_doc_words=-1,
        max_doc_words=10**9,
        min_avg_word_length=-1,
        max_avg_word_length=10**9,
        max_symbol_word_ratio=NEVER,
        max_bullet_lines_ratio=NEVER,
        max_ellipsis_lines_ratio=NEVER,
        max_non_alpha_words_ratio=-1,
        min_stop_words=-1,
    )
    pages = [Document(text=text, id=str(i)) for i, text in enumerate(texts)]
    given = {text: text.split() for text in texts}
    column, words = pa.array(texts), pa.array(list(map(str.split, texts)), pa.list_(pa.string()))
    cut = their_repetition.split_into_words

    def theirs(*filters: GopherRepetitionFilter | GopherQualityFilter) -> None:
        for page in pages:
            for one in filters:
                assert one.filter(page) is True

    def of_words(module: object) -> Callable[[], None]:
        return lambda: setattr(module, "split_into_words", lambda text, language: given[text])

    of_words(their_repetition)()
    of_words(their_quality)()
    both = (repetition_filter, quality_filter)
    lines = [
        row(
            "Rae statistics, same words",
            lambda: (repetition(column, words), quality(column, words)),
            lambda: theirs(*both),
            len(texts),
        ),
        row("Rae repetition, same words", lambda: repetition(column, words), lambda: theirs(repetition_filter), len(texts)),
        row("Rae quality, same words", lambda: quality(column, words), lambda: theirs(quality_filter), len(texts)),
    ]
    their_repetition.split_into_words = their_quality.split_into_words = cut
    if importlib.util.find_spec("spacy") is None:
        return lines
    return [*lines, row("Rae statistics, from text", lambda: text_heuristics(column), lambda: theirs(*both), len(texts), rounds=2)]


def row(name: str, ours: Callable[[], object], theirs: Callable[[], object], documents: int, rounds: int = ROUNDS) -> str:
    """Fastest of some rounds in turn, in processor time, after one that counts for nothing."""
    seconds: tuple[list[float], list[float]] = ([], [])
    ours()
    for _ in range(rounds):
        for taken, way in zip(seconds, (ours, theirs), strict=True):
            started = time.process_time()
            way()
            taken.append(time.process_time() - started)
    mine, peer = (1e6 * min(taken) / documents for taken in seconds)
    ratios.note(f"{name} beside datatrove {metadata.version('datatrove')}", peer / mine, bar=50.0)
    return f"{name:<28} l3 {mine:9,.1f} µs a document   datatrove {peer:10,.1f} µs   {peer / mine:6.1f} times as fast"


if __name__ == "__main__":
    main()
