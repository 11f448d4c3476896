"""The architecture against an independent reference in float64, and the paper's parameter counts."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from l3_platform.model import Llama, ModelConfig, llama, parameters, presets, shape_for
from l3_platform.model.init import initialize

TINY = ModelConfig(vocab_size=50, d_model=32, layers=2, heads=4, kv_heads=2, ffn=64)
BOS = 49


def tiny(seed: int = 0, **changes: object) -> Llama:
    model = Llama(ModelConfig(**(TINY.__dict__ | changes)))  # type: ignore[arg-type]
    initialize(model, seed)
    return model


def reference_logits(model: Llama, tokens: np.ndarray, bos_id: int | None) -> np.ndarray:
    """One sequence, float64, loops over heads and positions: no code shared with the model."""
    c = model.config
    w = {name: p.detach().double().numpy() for name, p in model.named_parameters()}
    n, d = len(tokens), c.head_dim
    document = np.cumsum(tokens == bos_id) if bos_id is not None else np.zeros(n)

    def norm(x: np.ndarray, g: np.ndarray) -> np.ndarray:
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + c.norm_eps) * g

    def turn(x: np.ndarray) -> np.ndarray:
        out = np.empty_like(x)
        for t in range(n):
            for i in range(d // 2):
                angle = t * c.rope_theta ** (-2 * i / d)
                a, b = x[t, i], x[t, i + d // 2]
                out[t, i] = a * np.cos(angle) - b * np.sin(angle)
                out[t, i + d // 2] = b * np.cos(angle) + a * np.sin(angle)
        return out

    x = w["tok_embeddings.weight"][tokens]
    for layer in range(c.layers):
        p = f"layers.{layer}."
        h = norm(x, w[p + "attention_norm.weight"])
        q, k, v = (h @ w[f"{p}attention.{m}.weight"].T for m in ("wq", "wk", "wv"))
        heads = []
        for head in range(c.heads):
            shared = head // (c.heads // c.kv_heads)
            qh, kh = turn(q[:, head * d : head * d + d]), turn(k[:, shared * d : shared * d + d])
            out = np.zeros((n, d))
            for t in range(n):
                keys = [s for s in range(t + 1) if document[s] == document[t]]
                scores = np.array([qh[t] @ kh[s] for s in keys]) / np.sqrt(d)
                weights = np.exp(scores - scores.max())
                out[t] = (weights / weights.sum()) @ v[keys, shared * d : shared * d + d]
            heads.append(out)
        x = x + np.concatenate(heads, 1) @ w[p + "attention.wo.weight"].T
        h = norm(x, w[p + "ffn_norm.weight"])
        gate = h @ w[p + "feed_forward.w1.weight"].T
        x = x + (gate / (1 + np.exp(-gate)) * (h @ w[p + "feed_forward.w3.weight"].T)) @ w[p + "feed_forward.w2.weight"].T
    return norm(x, w["norm.weight"]) @ w.get("output.weight", w["tok_embeddings.weight"]).T


@pytest.mark.parametrize("bos_id", [None, BOS])
@pytest.mark.parametrize("tied", [False, True])
def test_logits_equal_a_reference_written_in_loops(bos_id: int | None, tied: bool) -> None:
    model = tiny(tied=tied)
    tokens = torch.tensor([[BOS, 1, 2, 3, BOS, 4, 5, 6, 7, BOS, 8]])
    expected = reference_logits(model, tokens[0].numpy(), bos_id)
    np.testing.assert_allclose(model(tokens, bos_id=bos_id)[0].detach().numpy(), expected, atol=2e-6)


@pytest.mark.parametrize(("name", "count"), [("8b", 8_030_261_248), ("70b", 70_553_706_496), ("405b", 405_853_388_800)])
def test_parameter_counts_are_the_released_models(name: str, count: int) -> None:
    with torch.device("meta"):
        model = Llama(presets[name])
    assert parameters(presets[name]) == count == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("layers", range(1, 9))
def test_small_shapes_count_exactly_and_group_their_heads(layers: int) -> None:
    config = shape_for(layers, aspect=32, head_dim=32, kv_group=2, vocab_size=300)
    assert parameters(config) == sum(p.numel() for p in Llama(config).parameters())
    assert config.ffn % 32 == 0 and config.ffn >= 8 * config.d_model / 3 and config.kv_heads >= 1
    assert config.d_model == 32 * layers


def test_another_document_cannot_change_a_token_under_the_document_mask() -> None:
    model = tiny()
    one = torch.tensor([[BOS, 1, 2, BOS, 5, 6]])
    other = torch.tensor([[BOS, 9, 8, BOS, 5, 6]])
    inside = [model(t, bos_id=BOS)[0, 3:] for t in (one, other)]
    across = [model(t)[0, 3:] for t in (one, other)]
    assert torch.equal(*inside) and not torch.allclose(*across)


def test_a_later_token_never_changes_an_earlier_prediction() -> None:
    model = tiny()
    a, b = torch.tensor([[BOS, 1, 2, 3]]), torch.tensor([[BOS, 1, 2, 4]])
    assert torch.equal(model(a)[0, :3], model(b)[0, :3])


def test_the_loss_in_chunks_has_the_loss_and_gradients_of_one_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = torch.randint(0, 50, (3, 17), generator=torch.Generator().manual_seed(1))
    results = []
    for logits in (1 << 26, 50 * 7):
        monkeypatch.setattr(llama, "LOGITS_A_CHUNK", logits)
        model = tiny()
        loss = model(tokens[:, :-1], tokens[:, 1:], bos_id=BOS)
        loss.backward()
        results.append((loss.item(), torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])))
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-6)
    torch.testing.assert_close(results[0][1], results[1][1], atol=1e-5, rtol=1e-5)


def test_a_target_of_minus_100_is_not_predicted() -> None:
    model = tiny()
    tokens, targets = torch.tensor([[1, 2, 3]]), torch.tensor([[2, -100, 4]])
    logits = model(tokens)[0].log_softmax(-1)
    assert model(tokens, targets).item() == pytest.approx(-(logits[0, 2] + logits[2, 4]).item(), rel=1e-6)


def test_first_weights_follow_the_seed_alone_and_the_residual_is_scaled() -> None:
    model, again, other = tiny(3), tiny(3), tiny(4)
    assert torch.equal(model.output.weight, again.output.weight)  # type: ignore[union-attr]
    assert not torch.equal(model.output.weight, other.output.weight)  # type: ignore[union-attr]
    block = model.layers[0]
    ratio = block.attention.wo.weight.std() / block.attention.wq.weight.std()  # type: ignore[union-attr]
    assert ratio.item() == pytest.approx(1 / (2 * 2) ** 0.5, rel=0.1)


def test_a_shape_that_cannot_be_built_is_refused_in_words() -> None:
    with pytest.raises(ValueError, match="4 heads cannot share 3 KV heads"):
        ModelConfig(vocab_size=10, d_model=32, layers=1, heads=4, kv_heads=3, ffn=32)


def test_planners_import_shapes_without_torch() -> None:
    code = "import sys; from l3_platform.model import presets, shape_for; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
