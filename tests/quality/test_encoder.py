"""The transformer encoder as a learner: small, repeatable, distilled, and open to transformers."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from l3_platform import settings
from l3_platform.quality.encoder import Encoder
from l3_platform.quality.learners import LearnerError
from l3_platform.quality.questions import CODE, REASONING
from l3_platform.settings import Classifier, Engine, Settings
from l3_platform.store import files

TINY = settings.Encoder(layers=1, width=32, vocab_size=400, max_tokens=32, epochs=3, batch_documents=8, learning_rate=5e-3)
SHOWS_CODE = ["def f(x):\n    return x + 1", "for i in range(9):\n    print(i)", "import os\nos.listdir()"]
PROSE = ["It was raining when she came home.", "The council will meet on Tuesday.", "Nobody had seen the cat for days."]


@pytest.fixture(scope="module")
def content() -> dict[str, bytes]:
    return learn(TINY)


def learn(own: settings.Encoder, count: int = 20) -> dict[str, bytes]:
    texts = [f"{text} {number}" for number in range(count) for text in (*SHOWS_CODE, *PROSE)]
    return Encoder(CODE, own).train(texts, [True, True, True, False, False, False] * count)


@pytest.fixture(scope="module")
def folder(content, tmp_path_factory) -> Path:
    made = tmp_path_factory.mktemp("encoder")
    for name, data in content.items():
        (made / name.removeprefix("encoder/")).write_bytes(data)
    return made


def test_an_encoder_learns_what_the_labels_say(content):
    scores = Encoder(CODE, TINY).load(content).probabilities([f"{text} 99" for text in (*SHOWS_CODE, *PROSE)])
    assert scores[:3].min() > 0.8 and scores[3:].max() < 0.2


def test_the_same_sample_gives_the_same_bytes_and_another_seed_others(content):
    assert learn(TINY) == content
    assert learn(TINY.model_copy(update={"seed": 2})) != content


def test_what_ran_before_in_the_process_does_not_matter(content):
    import torch

    torch.manual_seed(99)
    torch.rand(7)
    before = torch.get_rng_state(), torch.get_num_threads()
    assert learn(TINY) == content
    assert torch.equal(torch.get_rng_state(), before[0]) and torch.get_num_threads() == before[1]


def test_transformers_opens_it_and_gives_the_same_probabilities(content, folder):
    import torch
    from tokenizers import Tokenizer
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    assert model.config.id2label == {0: "other", 1: "code"}
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    texts = [*SHOWS_CODE, *PROSE, "x " * 1000]
    with torch.inference_mode():
        expected = [model(torch.tensor([tokenizer.encode(text).ids])).logits.softmax(-1)[0, 1].item() for text in texts]
    found = Encoder(CODE, TINY).load(content).probabilities(texts)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_texts_of_any_length_and_letters_are_read():
    model = Encoder(CODE, TINY).load(learn(TINY, count=2))
    scores = model.probabilities(["", "a", "x" * 100_000, "你好 مرحبا 🎉 \x00 </s><pad>", "word " * 5000])
    assert np.isfinite(scores).all() and len(scores) == 5
    assert len(model.probabilities([])) == 0


def test_white_space_reaches_the_model_since_code_is_told_by_it(content):
    model = Encoder(CODE, TINY).load(content)
    flat, indented = model.tokenizer.encode("if x: y"), model.tokenizer.encode("if x:\n    y")
    assert model.tokenizer.decode(indented.ids) == "if x:\n    y" and flat.ids != indented.ids


def test_a_pretrained_encoder_is_the_start_where_one_is_given(folder):
    own = TINY.model_copy(update={"path": str(folder), "learning_rate": 1e-9, "epochs": 1})
    scores = Encoder(CODE, own).load(learn(own, count=1)).probabilities([f"{text} 99" for text in (*SHOWS_CODE, *PROSE)])
    assert scores[:3].min() > 0.8 and scores[3:].max() < 0.2


def test_a_pretrained_encoder_without_a_head_gets_one(folder, tmp_path):
    from transformers import AutoModel

    AutoModel.from_pretrained(folder).save_pretrained(tmp_path)
    shutil.copy(folder / "tokenizer.json", tmp_path)
    own = TINY.model_copy(update={"path": str(tmp_path)})
    assert np.isfinite(Encoder(REASONING, own).load(learn(own, count=1)).probabilities(PROSE)).all()


def test_pickled_weights_are_never_read(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "bad")
    (tmp_path / "bad" / "model.safetensors").rename(tmp_path / "bad" / "pytorch_model.bin")
    with pytest.raises(LearnerError, match=r"encoder\.path: .*bad lacks model\.safetensors; give the folder"):
        learn(TINY.model_copy(update={"path": str(tmp_path / "bad")}), count=1)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_damaged_folder_is_one_sentence(folder, tmp_path, name):
    shutil.copytree(folder, tmp_path / "bad")
    (tmp_path / "bad" / name).write_bytes((folder / name).read_bytes()[:100])
    with pytest.raises(LearnerError, match=r"encoder\.path: .*bad does not open as an encoder"):
        learn(TINY.model_copy(update={"path": str(tmp_path / "bad")}), count=1)


def test_code_of_a_models_folder_is_never_run(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "bad")
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "mine", "auto_map": {"AutoConfig": "evil.Config", "AutoModelForSequenceClassification": "evil.Model"}}
    (tmp_path / "bad" / "config.json").write_text(json.dumps(config))
    (tmp_path / "bad" / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(LearnerError, match="does not open as an encoder"):
        learn(TINY.model_copy(update={"path": str(tmp_path / "bad")}), count=1)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"learning_rate": 1e30}, r"the encoder's loss is nan; lower encoder\.learning_rate"),
        ({"width": 40}, "encoder.width: 40 is no multiple of 16"),
    ],
)
def test_settings_that_cannot_work_are_one_sentence(change, says):
    with pytest.raises(LearnerError, match=says):
        learn(TINY.model_copy(update=change), count=1)


def test_more_tokens_than_the_encoder_reads_are_refused(folder):
    with pytest.raises(LearnerError, match="64 is more than the 32 tokens"):
        learn(TINY.model_copy(update={"path": str(folder), "max_tokens": 64}), count=1)


@pytest.fixture(scope="module")
def made(corpus):
    pages = [
        {"url": f"https://site.example/{number}", "text": (SHOWS_CODE if number % 2 else PROSE)[number % 3] + f" {number}"}
        for number in range(180)
    ]
    return corpus([*pages[:40], {"url": "https://empty.example", "text": ""}], pages[40:])


@pytest.fixture(scope="module")
def everything():
    return Settings(code=Classifier(kind="encoder"), encoder=TINY, engine=Engine(workers=1))


@pytest.fixture(scope="module")
def classifier(made, everything):
    return made.classifier(CODE, everything)


def test_the_family_of_classifiers_takes_an_encoder(made, everything, classifier):
    assert classifier.manifest.metrics["roc_auc"] > 0.95
    assert classifier.manifest.metrics["model"] == "encoder from random weights (layers 1, width 32)"
    table = made.scores(CODE, everything, classifier).read()
    by_url = dict(
        zip(pa.concat_tables([d.read() for d in made.documents])["url"].to_pylist(), table["score"].to_pylist(), strict=True)
    )
    assert by_url["https://site.example/1"] > 0.5 > by_url["https://site.example/2"]
    assert by_url["https://empty.example"] == 0.0


def test_a_trained_folder_can_be_given(made, everything, classifier):
    folder = files.join(classifier.folder, "files", "encoder")
    given = everything.model_copy(update={"code": Classifier(kind="encoder", model=folder)})
    first, again = (made.scores(CODE, everything, one) for one in (classifier, made.classifier(CODE, given)))
    assert first.read().equals(again.read())
