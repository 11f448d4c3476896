"""`evaluation` as a dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from l3_platform.engine import Counts, Output
from l3_platform.evaluate.held_out import evaluate_models
from l3_platform.evaluate.unigram import mixture_counts
from l3_platform.pretrain import model_folder, tokens_seen
from l3_platform.settings import Settings
from l3_platform.store import Dataset, Writer
from l3_platform.tokens.build import tokens_by_domain, vocabulary
from l3_platform.train.streams import local_streams

INDEX_COLUMNS = ["doc_id", "domain_group", "split", "file", "start", "tokens", "bytes"]


def build_evaluation(
    pretrained: Sequence[Dataset],
    long_context: Sequence[Dataset],
    annealed: Sequence[Dataset],
    token_shards: Sequence[Dataset],
    tokenizer: Sequence[Dataset],
    *,
    out: Writer,
    settings: Settings,
) -> tuple[Sequence[str], Mapping[str, Any]]:
    """Held-out loss and bits per byte of each domain after each phase of training, beside a unigram model's."""
    words, available = vocabulary(tokenizer[0]), tokens_by_domain(token_shards[0])
    epochs = {domain: seen / available[domain] for domain, seen in tokens_seen(pretrained[0]).items() if available[domain]}
    table = evaluate_models(
        {
            "pretrained": model_folder(pretrained[0]),
            "long_context": model_folder(long_context[0]),
            "annealed": model_folder(annealed[0]),
        },
        local_streams(token_shards[0], "held_out"),
        token_shards[0].read(INDEX_COLUMNS),
        mixture_counts(local_streams(token_shards[0], "train"), epochs, words.size),
        words.bos_id,
        settings,
    )
    out.put("part-00000", Output(table, Counts.annotated(table.num_rows)))
    overall = {row["model"]: row for row in table.to_pylist() if row["domain_group"] == "all"}
    metrics = {f"{model} held-out loss": row["loss"] for model, row in overall.items()}
    return ["part-00000"], metrics | {"unigram held-out loss": overall["annealed"]["unigram_loss"]}
