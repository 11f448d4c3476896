"""Llama 3's tokenizer: byte-level BPE with 256 special tokens behind the vocabulary (Llama 3, section 3.2).

The content of `tokenizer.json` is what travels: Hugging Face's `tokenizers` and `transformers` read it as it is.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence

import pyarrow as pa
from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers, processors, trainers
from tokenizers import Tokenizer as BPE

from l3_platform.settings import Tokenizer
from l3_platform.store import files

# The released models' pattern: contractions, words with one sign before, digits by up to three, signs, spaces.
SPLIT_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
BEGIN_OF_TEXT, END_OF_TEXT, PADDING = "<|begin_of_text|>", "<|end_of_text|>", "<|finetune_right_pad_id|>"
_NAMED = {
    0: BEGIN_OF_TEXT,
    1: END_OF_TEXT,
    4: PADDING,
    6: "<|start_header_id|>",
    7: "<|end_header_id|>",
    8: "<|eom_id|>",
    9: "<|eot_id|>",
    10: "<|python_tag|>",
}


def _special_tokens() -> tuple[str, ...]:
    reserved = iter(range(256))
    return tuple(_NAMED.get(i) or f"<|reserved_special_token_{next(reserved)}|>" for i in range(256))


SPECIAL_TOKENS = _special_tokens()  # in the order of Llama 3.1: ids 128,000 to 128,255 there


def train_tokenizer(texts: Iterable[str], settings: Tokenizer) -> bytes:
    """The content of `tokenizer.json`, trained on the first `sample_bytes`; the same for any number of threads.

    All 256 bytes are in the alphabet, so every text has tokens. The vocabulary is smaller than `vocab_size` where the
    texts have too few pairs to merge. Raises ValueError where `vocab_size` has no room for bytes and special tokens, or
    where there is no text.
    """
    merges_room = settings.vocab_size - len(SPECIAL_TOKENS)
    if merges_room < 256:
        raise ValueError(
            f"tokenizer.vocab_size {settings.vocab_size} is too small: 256 bytes and {len(SPECIAL_TOKENS)} special "
            f"tokens need {256 + len(SPECIAL_TOKENS)}; raise it"
        )
    tokenizer = BPE(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(  # type: ignore[assignment]
        [
            pre_tokenizers.Split(Regex(SPLIT_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    trainer = trainers.BpeTrainer(
        vocab_size=merges_room,
        min_frequency=2,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        special_tokens=[],
        show_progress=False,
    )
    taken = _first_bytes(texts, settings.sample_bytes)
    first = next(taken, None)
    if first is None:
        raise ValueError("tokenizer: there is no text to train on; check that curated_documents kept any document")
    tokenizer.train_from_iterator(_chain(first, taken), trainer)
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS])
    begin = tokenizer.token_to_id(BEGIN_OF_TEXT)
    tokenizer.post_processor = processors.TemplateProcessing(  # type: ignore[assignment]
        single=f"{BEGIN_OF_TEXT} $A",
        pair=f"{BEGIN_OF_TEXT} $A {BEGIN_OF_TEXT} $B",
        special_tokens=[(BEGIN_OF_TEXT, begin)],
    )
    return tokenizer.to_str().encode()


def _first_bytes(texts: Iterable[str], limit: int) -> Iterator[str]:
    """Non-empty texts until `limit` bytes of UTF-8 are spent; the last one is whole."""
    spent = 0
    for text in texts:
        if spent >= limit:
            return
        if text:
            spent += len(text.encode())
            yield text


def _chain(first: str, rest: Iterator[str]) -> Iterator[str]:
    yield first
    yield from rest


def load_tokenizer(content: bytes) -> BPE:
    """A tokenizer that reads special-token strings in a text as ordinary text: no page may end its own document."""
    tokenizer = BPE.from_buffer(content)
    tokenizer.encode_special_tokens = True
    return tokenizer


@functools.lru_cache(maxsize=2)
def open_tokenizer(url: str) -> BPE:
    """`load_tokenizer` of a file, once a process. Raises FileNotFoundError."""
    return load_tokenizer(files.read(url))


def encode_texts(tokenizer: BPE, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of each text, without begin or end."""
    return [encoding.ids for encoding in tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]


def efficiency(tokenizer: BPE, texts: Mapping[str, Sequence[str]]) -> pa.Table:
    """How well the vocabulary fits each domain: one row a domain and one of `all`, in the order given.

    `chars_per_token` (Llama 3: 3.94 on English), `bytes_per_token`, and `fertility`: tokens a word between white space,
    which says little about scripts that are written without it. Ratios over nothing are null.
    """
    rows = [_measure(tokenizer, domain, list(items)) for domain, items in texts.items()]
    total = {"domain_group": "all"} | {name: sum(row[name] for row in rows) for name in _COUNTS}
    return pa.Table.from_pylist([_with_ratios(row) for row in (*rows, total)], schema=_EFFICIENCY)


_COUNTS = ("documents", "chars", "bytes", "words", "tokens")
_RATIOS = {
    "chars_per_token": ("chars", "tokens"),
    "bytes_per_token": ("bytes", "tokens"),
    "fertility": ("tokens", "words"),
}
_EFFICIENCY = pa.schema([("domain_group", pa.string()), *((n, pa.int64()) for n in _COUNTS), *((n, pa.float64()) for n in _RATIOS)])


def _measure(tokenizer: BPE, domain: str, texts: list[str]) -> dict:
    return {
        "domain_group": domain,
        "documents": len(texts),
        "chars": sum(map(len, texts)),
        "bytes": sum(len(text.encode()) for text in texts),
        "words": sum(len(text.split()) for text in texts),
        "tokens": sum(map(len, encode_texts(tokenizer, texts))),
    }


def _with_ratios(row: dict) -> dict:
    return row | {name: row[over] / row[under] if row[under] else None for name, (over, under) in _RATIOS.items()}
