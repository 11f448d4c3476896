"""The folder that training leaves: a model and its tokenizer, as transformers opens them."""

from pathlib import Path

import numpy as np
import pytest
import torch

from l3_platform.model import ModelConfig, generate, load_exported
from l3_platform.settings import Stage, Tokenizer
from l3_platform.tokens.tokenizer import encode_texts, load_tokenizer, train_tokenizer
from l3_platform.train.job import TrainJob
from l3_platform.train.loop import train


def test_a_trained_model_and_its_tokenizer_continue_a_text_alike_in_transformers(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    texts = [f"The rope is {n} metres long and {n + 1} metres wide." for n in range(200)]
    content = train_tokenizer(texts, Tokenizer(vocab_size=600))
    (tmp_path / "tokenizer.json").write_bytes(content)
    tokenizer = load_tokenizer(content)
    size = tokenizer.get_vocab_size()
    bos_id, eos_id = size - 256, size - 255
    stream = [token for ids in encode_texts(tokenizer, texts) for token in (bos_id, *ids, eos_id)]
    np.array(stream, dtype="<u4").tofile(tmp_path / "tokens.bin")
    job = TrainJob(
        folder=str(tmp_path / "run"), output=str(tmp_path / "model"), tokenizer=str(tmp_path / "tokenizer.json"),
        model=ModelConfig(vocab_size=size, d_model=32, layers=1, heads=2, kv_heads=1, ffn=64),
        data={"general": (str(tmp_path / "tokens.bin"),)}, shares={"general": 1.0}, bos_id=bos_id, eos_id=eos_id,
        total_tokens=16_384, ramp=(Stage(batch_tokens=512, seq_len=64),), learning_rate=1e-2,
    )  # fmt: skip
    train(job)
    opened = transformers.AutoTokenizer.from_pretrained(job.output)
    model = transformers.AutoModelForCausalLM.from_pretrained(job.output)
    prompt = opened("The rope is", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        theirs = model.generate(
            prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=32, do_sample=False, pad_token_id=0, eos_token_id=None
        )[0, prompt.shape[1] :].tolist()
    assert generate(load_exported(job.output), prompt.tolist(), 32) == [theirs]
    assert opened.decode(theirs).startswith(" ") and "metres" in opened.decode(theirs)
