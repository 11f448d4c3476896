import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from l3_platform.settings import Tokenizer
from l3_platform.tokens.tokenizer import (
    SPECIAL_TOKENS,
    SPLIT_PATTERN,
    efficiency,
    encode_texts,
    load_tokenizer,
    train_tokenizer,
)

REPOSITORY = Path(__file__).parents[2]
TEXTS = [path.read_text() for path in sorted((REPOSITORY / "l3_platform").glob("*.py"))]
SMALL = Tokenizer(vocab_size=1024)


@pytest.fixture(scope="module")
def content() -> bytes:
    return train_tokenizer(TEXTS, SMALL)


@pytest.fixture(scope="module")
def tokenizer(content):
    return load_tokenizer(content)


def test_the_vocabulary_has_exactly_the_size_asked_for(tokenizer):
    assert tokenizer.get_vocab_size() == 1024


def test_special_tokens_follow_the_bpe_vocabulary_in_the_order_of_llama_3_1(tokenizer):
    assert [tokenizer.id_to_token(768 + i) for i in range(256)] == list(SPECIAL_TOKENS)


def test_special_tokens_have_llama_3_1_s_offsets():
    offsets = {SPECIAL_TOKENS[i]: 128_000 + i for i in (0, 1, 2, 4, 5, 6, 7, 8, 9, 10, 11, 255)}
    assert offsets == {
        "<|begin_of_text|>": 128_000,
        "<|end_of_text|>": 128_001,
        "<|reserved_special_token_0|>": 128_002,
        "<|finetune_right_pad_id|>": 128_004,
        "<|reserved_special_token_2|>": 128_005,
        "<|start_header_id|>": 128_006,
        "<|end_header_id|>": 128_007,
        "<|eom_id|>": 128_008,
        "<|eot_id|>": 128_009,
        "<|python_tag|>": 128_010,
        "<|reserved_special_token_3|>": 128_011,
        "<|reserved_special_token_247|>": 128_255,
    }


def test_every_byte_is_in_the_alphabet_even_if_never_seen():
    tiny = json.loads(train_tokenizer(["aaaa"], Tokenizer(vocab_size=512)))
    assert sum(len(token) == 1 for token in tiny["model"]["vocab"]) == 256


def test_a_text_too_small_gives_a_smaller_vocabulary_not_a_failure():
    assert load_tokenizer(train_tokenizer(["ab ab ab"], SMALL)).get_vocab_size() < 1024


@pytest.mark.parametrize(
    "text",
    [
        "plain words, and  two  spaces \t\n\r\n end ",
        "Grüße, 你好世界, مرحبا, नमस्ते, 👩‍👩‍👧‍👦 e\u0301 \u200b\ufeff",
        "\x00\x01\x7f\u2028 \U0010ffff",
        "<|begin_of_text|> inside <|eot_id|><|end_of_text|>",
        " ",
        "",
    ],
)
def test_any_text_comes_back_unchanged(tokenizer, text):
    (ids,) = encode_texts(tokenizer, [text])
    assert tokenizer.decode(ids, skip_special_tokens=False) == text


def test_special_token_strings_in_a_text_are_ordinary_text(tokenizer):
    (ids,) = encode_texts(tokenizer, ["a <|end_of_text|> b " + "".join(SPECIAL_TOKENS)])
    assert max(ids) < 768


def test_digits_are_grouped_by_up_to_three(tokenizer):
    pieces = [piece for piece, _ in tokenizer.pre_tokenizer.pre_tokenize_str("1234567 x12")]
    assert pieces == ["123", "456", "7", "Ġx", "12"]


def test_the_split_pattern_is_the_one_in_the_file(content):
    assert json.loads(content)["pre_tokenizer"]["pretokenizers"][0]["pattern"] == {"Regex": SPLIT_PATTERN}


def test_only_the_first_sample_bytes_are_learned_from():
    settings = Tokenizer(vocab_size=600, sample_bytes=1000)
    assert train_tokenizer(["abc " * 250, "xyz " * 250], settings) == train_tokenizer(["abc " * 250], settings)


def test_the_same_bytes_for_any_number_of_threads_and_hash_seed(content):
    script = (
        "import sys; from pathlib import Path; from l3_platform.settings import Tokenizer;"
        "from l3_platform.tokens.tokenizer import train_tokenizer;"
        "texts = [p.read_text() for p in sorted(Path('l3_platform').glob('*.py'))];"
        "sys.stdout.buffer.write(train_tokenizer(texts, Tokenizer(vocab_size=1024)))"
    )
    for threads, parallel, seed in (("1", "false", "1"), ("4", "true", "2")):
        environment = os.environ | {
            "RAYON_NUM_THREADS": threads,
            "TOKENIZERS_PARALLELISM": parallel,
            "PYTHONHASHSEED": seed,
        }
        process = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, env=environment, capture_output=True, check=True)
        assert process.stdout == content


def test_a_vocabulary_without_room_for_bytes_and_special_tokens_is_refused():
    with pytest.raises(ValueError, match=r"tokenizer\.vocab_size 300 is too small"):
        train_tokenizer(["a"], Tokenizer.model_construct(vocab_size=300))


def test_no_text_is_refused_in_words():
    with pytest.raises(ValueError, match="there is no text to train on"):
        train_tokenizer([""], SMALL)


def test_efficiency_counts_characters_bytes_and_words_a_token(tokenizer):
    report = efficiency(tokenizer, {"code": TEXTS[:1], "multilingual": ["你好"], "math": []}).to_pylist()
    chinese = report[1]
    assert (chinese["chars"], chinese["bytes"], chinese["tokens"]) == (2, 6, 6)
    assert report[0]["chars_per_token"] > chinese["chars_per_token"]
    assert report[2]["fertility"] is None
    assert report[-1]["tokens"] == sum(row["tokens"] for row in report[:-1])


def test_the_trained_vocabulary_beats_bytes_on_real_prose(shared_data):
    prose = (shared_data / "quality" / "wikitext-2-valid.txt").read_text()
    half = len(prose) // 2
    trained = load_tokenizer(train_tokenizer([prose[:half]], Tokenizer(vocab_size=4096)))
    assert efficiency(trained, {"general": [prose[half:]]})["chars_per_token"][0].as_py() > 3.0
