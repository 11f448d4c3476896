"""What an encoder classifier starts from: a pre-trained folder, or a small RoBERTa from random weights with its own BPE."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from l3_platform import settings
from l3_platform.quality.learners import LearnerError

BEGIN, PAD, END, UNKNOWN = "<s>", "<pad>", "</s>", "<unk>"  # ids 0 to 3, as RoBERTa has them
HEAD = 16  # width of an attention head of the small one
EMBEDDING_RANGE = 0.02


def start(own: settings.Encoder, texts: Sequence[str], positive: str) -> tuple[Any, Any]:
    """A model of two classes, in training's starting state, and its tokenizer. Raises LearnerError.

    The small one's tokenizer learns from `texts`, which are those of the fold.
    """
    labels = {0: "other", 1: positive}
    if own.path:
        model, tokenizer = open_folder(own.path, "encoder.path", labels)
    else:
        model, tokenizer = small(own, texts, labels)
    # RoBERTa's positions begin after the padding id.
    room = getattr(model.config, "max_position_embeddings", own.max_tokens + 2) - 2
    if own.max_tokens > room:
        raise LearnerError(f"encoder.max_tokens: {own.max_tokens} is more than the {room} tokens that {own.path} can read")
    tokenizer.enable_truncation(own.max_tokens)
    return model, tokenizer


def open_folder(folder: str, setting: str, labels: dict[int, str] | None = None) -> tuple[Any, Any]:
    """Model and tokenizer of a local folder; with `labels`, a new head for them. Raises LearnerError."""
    import torch
    from tokenizers import Tokenizer
    from transformers import AutoModelForSequenceClassification

    missing = [name for name in ("config.json", "model.safetensors", "tokenizer.json") if not Path(folder, name).is_file()]
    if missing:
        raise LearnerError(f"{setting}: {folder} lacks {', '.join(missing)}; give the folder of an encoder saved by transformers")
    head = {"num_labels": 2, "id2label": labels, "label2id": {label: number for number, label in labels.items()}} if labels else {}
    try:
        model = AutoModelForSequenceClassification.from_pretrained(
            folder, use_safetensors=True, local_files_only=True, trust_remote_code=False, dtype=torch.float32, **head
        )
        tokenizer = Tokenizer.from_file(str(Path(folder, "tokenizer.json")))
    except Exception as error:  # safetensors, tokenizers and transformers each raise their own kinds
        raise LearnerError(f"{setting}: {folder} does not open as an encoder ({type(error).__name__}: {error})") from error
    tokenizer.no_padding()
    return model, tokenizer


def small(own: settings.Encoder, texts: Sequence[str], labels: dict[int, str]) -> tuple[Any, Any]:
    from transformers import RobertaConfig, RobertaForSequenceClassification

    if own.width % HEAD:
        raise LearnerError(f"encoder.width: {own.width} is no multiple of {HEAD}, the width of an attention head")
    tokenizer = byte_bpe(texts, own.vocab_size)
    config = RobertaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=own.width,
        num_hidden_layers=own.layers,
        num_attention_heads=own.width // HEAD,
        intermediate_size=2 * own.width,
        max_position_embeddings=own.max_tokens + 2,
        type_vocab_size=1,
        initializer_range=own.width**-0.5,  # RoBERTa's 0.02 is for width 768: narrower, it would take long to begin
        id2label=labels,
        label2id={label: number for number, label in labels.items()},
    )
    model = RobertaForSequenceClassification(config)
    for table in (model.roberta.embeddings.word_embeddings, model.roberta.embeddings.position_embeddings):
        table.weight.data *= EMBEDDING_RANGE / config.initializer_range  # small, so that a few steps give a word its meaning
    return model, tokenizer


def byte_bpe(texts: Sequence[str], vocab_size: int) -> Any:
    """RoBERTa's tokenizer, learnt from `texts`: a byte-level BPE that keeps white space, so that code stays code."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE(unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[BEGIN, PAD, END, UNKNOWN],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.RobertaProcessing((END, 2), (BEGIN, 0), add_prefix_space=False)
    return tokenizer
