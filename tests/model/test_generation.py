"""Generation with a cache, against the model without one."""

import pytest
import torch

from l3_platform.model import Llama, ModelConfig, RopeScaling, generate
from l3_platform.model.init import initialize

CONFIG = ModelConfig(
    vocab_size=80, d_model=32, layers=2, heads=4, kv_heads=2, ffn=64, rope_scaling=RopeScaling(original_seq_len=16)
)
PROMPTS = [[7, 3, 9, 9, 1, 40, 2], [5], [8, 8, 30]]


@pytest.fixture(scope="module")
def model() -> Llama:
    made = Llama(CONFIG)
    initialize(made, 2)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(8.0) if parameter.dim() > 1 else None
    return made.eval()


def greedily(model: Llama, prompt: list[int], count: int) -> list[int]:
    """The whole text again for each token."""
    tokens = list(prompt)
    for _ in range(count):
        tokens.append(int(model(torch.tensor([tokens]))[0, -1].argmax()))
    return tokens[len(prompt) :]


def test_prompts_of_different_lengths_continue_as_each_does_alone_without_a_cache(model: Llama) -> None:
    expected = [greedily(model, prompt, 40) for prompt in PROMPTS]
    assert generate(model, PROMPTS, 40) == expected
    assert len({token for tokens in expected for token in tokens}) > 10


def test_generation_ends_behind_a_stop_token_and_others_go_on(model: Llama) -> None:
    whole = generate(model, PROMPTS, 20)
    stop = whole[0][4]
    stopped = generate(model, PROMPTS, 20, stop_ids={stop})
    assert stopped[0] == whole[0][: whole[0].index(stop) + 1]
    assert stopped == [w[: w.index(stop) + 1] if stop in w else w for w in whole]


def test_sampling_follows_the_seed_and_the_models_probabilities(model: Llama) -> None:
    draws = [generate(model, [PROMPTS[0]] * 4000, 1, temperature=1.0, seed=seed) for seed in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]
    expected = model(torch.tensor([PROMPTS[0]]))[0, -1].softmax(-1)
    seen = torch.bincount(torch.tensor(draws[0])[:, 0], minlength=80) / 4000
    assert (seen - expected).abs().max() < 4 * 0.5 / 4000**0.5


def test_an_empty_prompt_is_refused(model: Llama) -> None:
    with pytest.raises(ValueError, match="a prompt is empty"):
        generate(model, [[1], []], 3)
