"""A pre-trained model of a few thousand parameters with all that the stages after it read, as finished datasets."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from l3_platform.engine import Output
from l3_platform.lineage import Catalog
from l3_platform.long_context import build_long_context
from l3_platform.mix.data_mix import data_mix
from l3_platform.model.config import parameters, shape_for
from l3_platform.pretrain import Launch, Tracked, build_pretrained
from l3_platform.scaling.build import PLAN
from l3_platform.scaling.plan import TrainingPlan
from l3_platform.settings import Settings, Stage, Tokenizer, load
from l3_platform.store import Dataset, Writer
from l3_platform.tokens.build import TOKENIZER
from l3_platform.tokens.tokenizer import encode_texts, load_tokenizer, train_tokenizer
from l3_platform.train.loop import train

INPUTS = ("pretrained", "training_plan", "token_shards", "data_mix", "tokenizer")
SENTENCES = [f"The secret number of town {i} is {i * i}; nobody in town {i % 7} knows that number." for i in range(400)]
STAGES = [{"seq_len": 128, "tokens": 1024, "batch_tokens": 256}, {"seq_len": 256, "tokens": 1024, "batch_tokens": 512}]
RECIPE = ("train.warmup_tokens=512", "train.checkpoint_every_tokens=512", f"long_context.stages={json.dumps(STAGES)}")


def settings(*overrides: str) -> Settings:
    return load("demo", [*RECIPE, "long_context.needle_trials=1", "long_context.short_loss_tolerance=0.1", *overrides])


def catalog(chosen: Settings) -> Catalog:
    """With `pretrained` and all before it; a home that has them already is left as it is."""
    made = Catalog(chosen, ["s1"], lambda snapshot: snapshot)
    for stage, output in _upstream().items():
        made._fingerprints[stage, "all"] = stage  # nothing before these exists
        if made.find(stage) is None:
            writer = Writer(made.folder(stage), asset=stage, partition="all", code_version="1", settings={}, inputs={})
            writer.put("part-00000", output)
            writer.commit(["part-00000"])
    if made.find("pretrained") is None:
        writer = made.writer("pretrained")
        inputs = {name: [made.dataset(name)] for name in INPUTS[1:]}
        names, metrics = build_pretrained(**inputs, out=writer, settings=chosen, launch=train, tracked=Tracked())
        writer.commit(names, metrics)
    return made


def long_context(made: Catalog, launch: Launch = train, tracked: list[str] | None = None) -> Dataset:
    """Built in this process; `launch` trains a slice, names of tracked runs go to `tracked`."""

    @contextlib.contextmanager
    def track(name: str) -> Iterator[Tracked]:
        if tracked is not None:
            tracked.append(name)
        yield Tracked()

    writer = made.writer("long_context")
    built: Any = build_long_context(**made.inputs("long_context"), out=writer, settings=made.settings, launch=launch, track=track)
    return writer.commit(*built)


def _upstream() -> dict[str, Output]:
    content = train_tokenizer(SENTENCES, Tokenizer(vocab_size=640))
    words = load_tokenizer(content)
    begin, end = (words.token_to_id(name) for name in ("<|begin_of_text|>", "<|end_of_text|>"))
    ids = [[begin, *one, end] for one in encode_texts(words, SENTENCES)]
    streams = {"train": ids[:350], "held_out": ids[350:]}
    shards = {f"{split}-general-part-00000.bin": np.concatenate(part).astype("<u4").tobytes() for split, part in streams.items()}
    model = shape_for(layers=1, aspect=16, head_dim=8, kv_group=1, vocab_size=words.get_vocab_size())
    tokens = sum(map(len, streams["train"]))
    plan = TrainingPlan(
        budget=1.0, law="none", optimal_tokens=1.0, optimal_parameters=1.0, model=model, parameters=parameters(model),
        total_tokens=4096, flops=1.0, epochs=1.0, learning_rate=1e-2, warmup_tokens=512,
        ramp=(Stage(batch_tokens=256, seq_len=64),), predicted_loss=None,
    )  # fmt: skip
    row = pa.table({"x": [1]})
    return {
        "tokenizer": _with(row, {TOKENIZER: content}),
        "token_shards": _with(row, shards),
        "data_mix": Output.annotated(data_mix({"general": tokens}, load().mix, 4096, 1024)),
        "training_plan": _with(row, {PLAN: plan.model_dump_json().encode()}),
    }


def _with(table: pa.Table, files: dict[str, bytes]) -> Output:
    return Output(table, Output.annotated(table).counts, files=files)
