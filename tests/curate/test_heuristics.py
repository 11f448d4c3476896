import math
import re
import subprocess
import sys
import unicodedata

import pyarrow as pa
import pytest

from l3_platform.curate import text_heuristics
from l3_platform.curate.heuristics import phrase_hashes
from l3_platform.settings import Heuristics
from tests.curate.reference import reference_repetition

# ---------------------------------------------------------------- a plain reference, with no word of the kernels' code in it

ALONE = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u2fdf\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]"
)


def reference_words(text: str) -> list[str]:
    words: list[str] = []
    word = ""
    for i, char in enumerate(text):
        kind = unicodedata.category(char)[0] if char < "\U00010000" else "?"
        if char in "'’":
            following = text[i + 1 : i + 2]
            inner = (
                word
                and following
                and following < "\U00010000"
                and unicodedata.category(following)[0] == "L"
                and not ALONE.match(following)
            )
            kind = "M" if inner else "?"
        alone = (kind == "L" and ALONE.match(char)) or "\U00020000" <= char < "\U00040000"
        if not alone and (kind in "LN" or (kind == "M" and word)):
            word += char
            continue
        words += [word] if word else []
        word = ""
        words += [char] if alone else []
    return words + ([word] if word else [])


def lower(word: str) -> tuple[str, ...]:
    return tuple(char.lower() if len(char.lower()) == 1 else char for char in word)


def reference(text: str) -> dict[str, float]:
    words = reference_words(text)
    keys = ["".join(lower(word)) for word in words]
    lines = [line for line in (line.strip() for line in text.splitlines()) if line]
    scores: dict[str, float] = {
        "words": len(words),
        "lines": len(lines),
        "mean_word_length": sum(map(len, words)) / len(words) if words else 0.0,
        "symbol_word_ratio": (text.count("#") + text.count("...") + text.count("…")) / len(words) if words else 0.0,
        "bullet_lines": sum(line[0] in "•‣▶◀◦■□▪▫–-*·●○➢➤✓✔" for line in lines) / len(lines) if lines else 0.0,
        "ellipsis_lines": sum(line.endswith(("...", "…")) for line in lines) / len(lines) if lines else 0.0,
        "terminal_lines": sum(line[-1] in ".!?\"'”’»…。！？।؟" for line in lines) / len(lines) if lines else 0.0,
    }
    names = ("dup_para_fraction", "dup_para_char_fraction", "dup_line_fraction", "dup_line_char_fraction")
    shares = reference_repetition(text, keys)
    scores |= dict(zip(names, list(shares.values())[:4], strict=True))
    for n in range(2, 11):
        kind = "top" if n < 5 else "dup"
        scores[f"{kind}_{n}gram_char_fraction"] = shares[f"{kind}_{n}_gram"]
    return scores


TEXTS = [
    "",
    "one",
    "to be or not to be, that is the question: to be or not to be",
    "- item\n- item\n- item\n\n- item…\nread more...\n# # #",
    "Don't 'quote' the dogs' O’Neill café naïve ÀÉÎ İstanbul ẞ e\u0301",
    "这是一个测试。这是一个测试。这是一个测试。 mixed 漢字 words カタカナ",
    "สวัสดีครับ ผมชื่อ 한국어 문장 입니다 😀 𠀀𠀁 x😀y",
    "a b c d e f g h i j k l m n o p " * 12,
    "same line\nsame line \n\tsame line\r\n" * 5,
    "....... … .... #hash",
]


@pytest.mark.parametrize("text", TEXTS)
def test_the_kernels_equal_the_plain_reference_bit_for_bit(text):
    row = text_heuristics(pa.array([text])).to_pylist()[0]
    expected = reference(text)
    assert {name: row[name] for name in expected} == expected


def test_the_kernels_equal_the_reference_on_real_prose(shared_data):
    prose = (shared_data / "quality" / "wikitext-2-valid.txt").read_text()[:200_000].split("\n = ")
    rows = text_heuristics(pa.array(prose)).to_pylist()
    for text, row in zip(prose, rows, strict=True):
        expected = reference(text)
        assert {name: row[name] for name in expected} == expected


def test_word_hashes_are_fnv1a_of_lower_cased_code_points():
    value = 0xCBF29CE484222325
    for char in "straße":
        value = ((value ^ ord(char)) * 0x100000001B3) % 2**64
    assert phrase_hashes("STRAßE").tolist() == [value]


def test_slices_chunks_and_nulls_give_the_same_rows():
    whole = text_heuristics(pa.array(TEXTS))
    chunked = pa.chunked_array([pa.array(["x", *TEXTS[:4]])[1:], pa.array(TEXTS[4:])])
    assert text_heuristics(chunked).equals(whole)
    assert text_heuristics(pa.array([None], pa.string())).equals(text_heuristics(pa.array([""])))


def test_no_text_gives_no_row():
    assert text_heuristics(pa.array([], pa.string())).num_rows == 0


def test_stop_words_follow_the_language():
    row = text_heuristics(pa.array(["der Hund und die Katze", "der Hund und die Katze", "x"]), ["de", "en", "xx"])
    assert row["stop_words"].to_pylist() == [3, 0, None]


def test_dirty_words_count_phrases_of_the_language_and_of_the_built_in_list(tmp_path):
    (tmp_path / "zh.txt").write_text("龟公\n")
    (tmp_path / "de.txt").write_text("grob satz hier\n")
    lists = {"zh": str(tmp_path / "zh.txt"), "de": str(tmp_path / "de.txt")}
    texts = pa.array(["Grob Satz hier, xxx!", "他是龟公", "Grob Satz hier", "grob hier", "xxx"])
    table = text_heuristics(texts, ["de", "zh", "en", "de", None], Heuristics(dirty_word_lists=lists))
    assert table["dirty_words"].to_pylist() == [2 / 4, 1 / 4, 0.0, 0.0, 1.0]


def test_a_text_without_a_language_counts_as_english(tmp_path):
    (tmp_path / "en.txt").write_text("foul\n")
    table = text_heuristics(
        pa.array(["foul", "foul"]), ["und", "fr"], Heuristics(dirty_word_lists={"en": str(tmp_path / "en.txt")})
    )
    assert table["dirty_words"].to_pylist() == [1.0, 0.0]


@pytest.mark.parametrize("language", ["de", "en", "es", "fr", "it", "ja", "ru", "zh"])
def test_every_listed_word_of_a_real_list_counts(shared_data, language):
    path = shared_data / "wordlists" / f"ldnoobw-{language}.txt"
    words = [line for line in path.read_text().splitlines() if phrase_hashes(line).size]
    table = text_heuristics(pa.array(words), [language] * len(words), Heuristics(dirty_word_lists={language: str(path)}))
    assert all(share > 0 for share in table["dirty_words"].to_pylist())


def test_a_missing_list_is_named():
    with pytest.raises(FileNotFoundError, match=r"nowhere\.txt"):
        text_heuristics(pa.array(["x"]), settings=Heuristics(dirty_word_lists={"en": "nowhere.txt"}))


def test_a_repeated_paragraph_counts_its_characters():
    row = text_heuristics(pa.array(["aa\nbb\n\ncc\n\naa\nbb\n\ndd"])).to_pylist()[0]
    assert (row["dup_para_fraction"], row["dup_para_char_fraction"]) == (1 / 4, 5 / 20)


def test_no_score_is_nan():
    rows = text_heuristics(pa.array(TEXTS)).to_pylist()
    assert not any(isinstance(value, float) and math.isnan(value) for row in rows for value in row.values())


def test_importing_curate_loads_no_numba():
    code = "import sys, l3_platform.curate; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("lead", [0xC3, 0xE2, 0xF0])
def test_a_character_that_is_cut_short_ends_its_text_and_no_other(lead: int) -> None:
    """Arrow does not look at the bytes of a string that comes from elsewhere."""
    cut = pa.array([b"# a title" + bytes([lead]), b"# plain\n# words"], pa.large_binary()).view(pa.large_string())
    whole = text_heuristics(pa.array(["# a title", "# plain\n# words"])).to_pylist()
    assert text_heuristics(cut.slice(0, 1)).to_pylist()[0]["lines"] == 1
    assert text_heuristics(cut).to_pylist()[1] == whole[1]
