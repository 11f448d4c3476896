"""A transformer encoder as a learner, through `transformers` (Llama 3, section 3.1.1: DistilRoBERTa on Llama 2's labels).

Weights are read and written as safetensors only, and no code of a model's folder is run. torch and transformers take
seconds to import and are imported where they are used: in the workers.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from l3_platform import settings
from l3_platform.quality.learners import LearnerError
from l3_platform.quality.questions import Question
from l3_platform.store import files

FOLDER = "encoder"  # of the files: `AutoModelForSequenceClassification.from_pretrained` opens it
CONFIG, WEIGHTS, TOKENIZER = "config.json", "model.safetensors", "tokenizer.json"
CHARS_A_TOKEN = 8  # more of a text is never tokenized
BATCH = 32  # texts a forward pass when scoring


@dataclass(frozen=True)
class Encoder:
    """Fine-tunes all weights by AdamW, the learning rate warmed up over a tenth of the steps, then falling to zero."""

    question: Question
    settings: settings.Encoder

    @property
    def name(self) -> str:
        own = self.settings
        if own.path:
            return f"encoder from {Path(own.path).name}"
        return f"encoder from random weights (layers {own.layers}, width {own.width})"

    def prepared(self, text: str) -> str:
        return text[: CHARS_A_TOKEN * self.settings.max_tokens].strip()

    def train(self, texts: Sequence[str], labels: Sequence[bool]) -> dict[str, bytes]:
        import torch

        from l3_platform.quality.encoder_start import start

        own = self.settings
        with _repeatable(own.threads, own.seed), _quiet():
            model, tokenizer = start(own, texts, self.question.positive)
            model.to(own.device).train()
            optimizer = torch.optim.AdamW(model.parameters(), lr=own.learning_rate, weight_decay=0.01)
            batches = [
                batch for epoch in range(own.epochs) for batch in _shuffled(len(texts), own.batch_documents, own.seed + epoch)
            ]
            schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, len(batches)))
            truth = torch.tensor(np.array(labels, np.int64))
            loss = torch.zeros(())
            for rows in batches:
                encoded = [encoding.ids for encoding in tokenizer.encode_batch([texts[row] for row in rows])]
                inputs = _padded(encoded, model.config.pad_token_id or 0, own.device)
                loss = torch.nn.functional.cross_entropy(model(**inputs).logits.float(), truth[rows].to(own.device))
                loss.backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                schedule.step()
                optimizer.zero_grad()
            if not torch.isfinite(loss):
                raise LearnerError(
                    f"{self.question.name}_classifier: the encoder's loss is {loss.item()}; lower encoder.learning_rate "
                    f"(now {own.learning_rate:g}; 2e-5 to 5e-5 suits a pre-trained encoder)"
                )
            return _packed(model.eval(), tokenizer)

    def given(self, path: str) -> dict[str, bytes]:
        from tokenizers import Tokenizer

        content = {name: files.read(files.join(path, name)) for name in (CONFIG, WEIGHTS, TOKENIZER)}
        try:
            tokenizer = Tokenizer.from_str(content[TOKENIZER].decode())
        except Exception as error:  # tokenizers raises no kind of its own
            raise LearnerError(f"{self.question.name}.model: {path}/{TOKENIZER} is no tokenizer ({error})") from None
        tokenizer.enable_truncation(self.settings.max_tokens)
        content[TOKENIZER] = tokenizer.to_str().encode()
        return {f"{FOLDER}/{name}": data for name, data in content.items()}

    def load(self, content: Mapping[str, bytes]) -> EncoderModel:
        from l3_platform.quality.encoder_start import open_folder

        with tempfile.TemporaryDirectory() as folder, _quiet():
            for name in (CONFIG, WEIGHTS, TOKENIZER):
                Path(folder, name).write_bytes(content[f"{FOLDER}/{name}"])
            model, tokenizer = open_folder(folder, f"{self.question.name}.model")
        if model.config.num_labels != 2:
            raise LearnerError(f"the {self.question.name} model tells {model.config.num_labels} classes apart; it needs 2")
        return EncoderModel(model.to(self.settings.device).eval(), tokenizer, self.settings)


@dataclass(frozen=True)
class EncoderModel:
    model: Any
    tokenizer: Any
    settings: settings.Encoder

    def probabilities(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Of class 1, which is the question's positive. Texts of like length share a batch, in an order of their own."""
        import torch

        encoded = [encoding.ids for encoding in self.tokenizer.encode_batch(list(texts))]
        order = sorted(range(len(texts)), key=lambda row: (len(encoded[row]), row))
        scores = np.zeros(len(texts), np.float32)
        with torch.inference_mode(), _repeatable(self.settings.threads, self.settings.seed):
            for first in range(0, len(order), BATCH):
                rows = order[first : first + BATCH]
                inputs = _padded([encoded[row] for row in rows], self.model.config.pad_token_id or 0, self.settings.device)
                scores[rows] = self.model(**inputs).logits.float().softmax(-1)[:, 1].cpu().numpy()
        return scores


def _rate(step: int, steps: int) -> float:
    warmup = max(1, steps // 10)
    return (step + 1) / warmup if step < warmup else max(0.0, (steps - step) / max(1, steps - warmup))


def _shuffled(documents: int, batch: int, seed: int) -> list[list[int]]:
    order = np.random.default_rng(seed).permutation(documents).tolist()
    return [order[first : first + batch] for first in range(0, documents, batch)]


def _padded(ids: Sequence[Sequence[int]], pad: int, device: str) -> dict[str, Any]:
    """input_ids and attention_mask, int64 [batch, longest]."""
    import torch

    longest = max(1, max(len(row) for row in ids))
    rows = torch.full((len(ids), longest), pad)
    mask = torch.zeros((len(ids), longest), dtype=torch.int64)
    for number, row in enumerate(ids):
        rows[number, : len(row)] = torch.tensor(row)
        mask[number, : len(row)] = 1
    return {"input_ids": rows.to(device), "attention_mask": mask.to(device)}


def _packed(model: Any, tokenizer: Any) -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        model.to("cpu").save_pretrained(folder, safe_serialization=True)
        content = {name: Path(folder, name).read_bytes() for name in (CONFIG, WEIGHTS)}
    content[TOKENIZER] = tokenizer.to_str().encode()
    return {f"{FOLDER}/{name}": data for name, data in content.items()}


@contextlib.contextmanager
def _repeatable(threads: int, seed: int) -> Iterator[None]:
    """torch with its own number of threads and random state, both given back: sums are then added in one order."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """transformers tells of new heads and draws bars; a worker has no one to tell."""
    from transformers.utils import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        logging.enable_progress_bar()
