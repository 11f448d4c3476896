"""Weights, configs, tokenizer and generations against transformers', both ways; what is no Llama 3 is refused in words."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from l3_platform.model import Llama, ModelConfig, RopeScaling, export_model, generate, load_exported, presets, read_config
from l3_platform.model.init import initialize
from l3_platform.settings import Tokenizer
from l3_platform.tokens.hugging_face import tokenizer_files
from l3_platform.tokens.tokenizer import BEGIN_OF_TEXT, END_OF_TEXT, encode_texts, load_tokenizer, train_tokenizer

# A context of 64 keeps, bends and stretches wavelengths of this head dimension at a length that a test can run.
STRETCHED = RopeScaling(factor=4.0, original_seq_len=64)
PLAIN = ModelConfig(vocab_size=320, d_model=64, layers=2, heads=8, kv_heads=2, ffn=160)
KINDS = [
    pytest.param(
        dataclasses.replace(PLAIN, tied=tied, kv_heads=kv_heads, rope_scaling=scaling), id=f"{name}-{kv_heads}kv-tied{tied:d}"
    )
    for tied in (False, True)
    for kv_heads in (1, 2, 8)
    for name, scaling in (("rope", None), ("stretched", STRETCHED))
]
TOKENS = torch.randint(0, 320, (2, 200), generator=torch.Generator().manual_seed(3))


@pytest.fixture(scope="module")
def transformers():
    return pytest.importorskip("transformers")


def ours(config: ModelConfig) -> Llama:
    model = Llama(config)
    initialize(model, 5)
    return model


def theirs(transformers, config: ModelConfig):
    rope = {"rope_type": "default", "rope_theta": config.rope_theta}
    if scaling := config.rope_scaling:
        rope = {
            "rope_type": "llama3", "rope_theta": config.rope_theta, "factor": scaling.factor,
            "low_freq_factor": scaling.low_freq_factor, "high_freq_factor": scaling.high_freq_factor,
            "original_max_position_embeddings": scaling.original_seq_len,
        }  # fmt: skip
    torch.manual_seed(11)
    made = transformers.LlamaConfig(
        vocab_size=config.vocab_size, hidden_size=config.d_model, intermediate_size=config.ffn, num_hidden_layers=config.layers,
        num_attention_heads=config.heads, num_key_value_heads=config.kv_heads, rms_norm_eps=config.norm_eps,
        tie_word_embeddings=config.tied, max_position_embeddings=256, rope_parameters=rope,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(made).eval()


def exported(model: Llama, folder: Path, **options) -> Path:
    export_model(model, folder, bos_id=1, eos_id=2, max_seq_len=256, **options)
    return folder


@pytest.mark.parametrize("config", KINDS)
def test_transformers_computes_the_logits_of_our_export(config: ModelConfig, transformers, tmp_path: Path) -> None:
    model = ours(config)
    opened = transformers.LlamaForCausalLM.from_pretrained(exported(model, tmp_path / "m"))
    torch.testing.assert_close(opened(TOKENS).logits, model(TOKENS), atol=1e-5, rtol=0)


@pytest.mark.parametrize("config", KINDS)
def test_we_compute_the_logits_of_what_transformers_saved(config: ModelConfig, transformers, tmp_path: Path) -> None:
    model = theirs(transformers, config)
    model.save_pretrained(tmp_path)
    opened = load_exported(tmp_path)
    assert opened.config == config
    torch.testing.assert_close(opened(TOKENS), model(TOKENS).logits, atol=1e-5, rtol=0)


def test_rope_scaling_changes_the_logits(transformers) -> None:
    plain, stretched = ours(PLAIN), ours(dataclasses.replace(PLAIN, rope_scaling=STRETCHED))
    assert (plain(TOKENS) - stretched(TOKENS)).abs().max() > 1e-3


def test_frequencies_of_llama_3_1_are_those_of_transformers_at_full_head_dimension(transformers) -> None:
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    from l3_platform.model.llama import rotary_table

    config = dataclasses.replace(presets["8b"], rope_scaling=RopeScaling())
    with torch.device("meta"):
        asked = theirs(transformers, dataclasses.replace(config, layers=1)).config
    expected, _ = ROPE_INIT_FUNCTIONS["llama3"](asked)
    angles = torch.arange(2.0)[:, None] * expected
    table = rotary_table(2, 128, config.rope_theta, torch.device("cpu"), config.rope_scaling)
    torch.testing.assert_close(table, torch.stack((angles.cos(), angles.sin())), atol=1e-7, rtol=1e-6)


@pytest.mark.parametrize("config", [KINDS[2], KINDS[9]])
def test_greedy_generations_equal_transformers(config: ModelConfig, transformers, tmp_path: Path) -> None:
    model = theirs(transformers, config)
    with torch.no_grad():  # random weights choose by hairs: larger ones give a model with opinions
        for parameter in model.parameters():
            parameter.mul_(8.0) if parameter.dim() > 1 else None
    model.save_pretrained(tmp_path)
    prompt = TOKENS[:1, :20]
    options = {"attention_mask": torch.ones_like(prompt), "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    expected = model.generate(prompt, max_new_tokens=48, **options)[0, 20:]
    assert generate(load_exported(tmp_path), prompt.tolist(), 48) == [expected.tolist()]
    assert len(set(expected.tolist())) > 10


def test_a_sharded_checkpoint_of_transformers_loads(transformers, tmp_path: Path) -> None:
    model = theirs(transformers, PLAIN)
    model.save_pretrained(tmp_path, max_shard_size="100KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    torch.testing.assert_close(load_exported(tmp_path)(TOKENS), model(TOKENS).logits, atol=1e-5, rtol=0)


def test_a_checkpoint_in_bf16_loads_as_fp32(transformers, tmp_path: Path) -> None:
    model = theirs(transformers, PLAIN).to(torch.bfloat16)
    model.save_pretrained(tmp_path)
    opened = load_exported(tmp_path)
    assert opened.norm.weight.dtype == torch.float32
    torch.testing.assert_close(opened(TOKENS), model.float()(TOKENS).logits, atol=1e-5, rtol=0)


def test_a_shard_that_the_index_names_and_is_missing_is_named(transformers, tmp_path: Path) -> None:
    exported(ours(PLAIN), tmp_path / "m", file_bytes=100_000)
    lost = sorted((tmp_path / "m").glob("*.safetensors"))[1]
    lost.unlink()
    with pytest.raises(FileNotFoundError, match=rf"names {lost.name}, which is not there"):
        load_exported(tmp_path / "m")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"model_type": "qwen2"}, "only llama can be loaded"),
        ({"attention_bias": True}, "attention_bias is True; attention without biases"),
        ({"mlp_bias": True}, "mlp_bias is True"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'; the activation must be silu"),
        ({"head_dim": 16}, "8 heads of 16 are not hidden_size 64"),
        ({"quantization_config": {"bits": 4}}, "quantized weights cannot be trained on"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "RoPE of type 'linear' is not known"),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 2.0, "rope_theta": 1e4}}, "RoPE of type 'yarn' is not known"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "RoPE of type llama3 lacks low_freq_factor"),
        ({"partial_rotary_factor": 0.5}, "rotates only a part of each head"),
        ({"hidden_size": None}, "hidden_size is missing"),
        ({"num_key_value_heads": 3}, "8 heads cannot share 3 KV heads"),
    ],
)
def test_what_is_no_llama_3_is_refused_in_one_sentence(change: dict, says: str, tmp_path: Path) -> None:
    folder = exported(ours(PLAIN), tmp_path / "m")
    config = json.loads((folder / "config.json").read_text()) | change
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=says) as refusal:
        read_config(folder)
    assert "\n" not in str(refusal.value)


def test_biases_that_the_config_does_not_tell_of_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = exported(ours(PLAIN), tmp_path / "m")
    weights = load_file(folder / "model.safetensors") | {"model.layers.0.self_attn.q_proj.bias": torch.zeros(64)}
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(ValueError, match=r"q_proj\.bias has no place in a Llama 3 model"):
        load_exported(folder)


def test_old_configs_without_kv_heads_or_theta_get_transformers_defaults(tmp_path: Path) -> None:
    folder = exported(ours(dataclasses.replace(PLAIN, kv_heads=8)), tmp_path / "m")
    config = json.loads((folder / "config.json").read_text())
    for key in ("num_key_value_heads", "rope_theta", "rope_scaling", "tie_word_embeddings", "head_dim", "rms_norm_eps"):
        del config[key]
    (folder / "config.json").write_text(json.dumps(config))
    assert read_config(folder) == dataclasses.replace(PLAIN, kv_heads=8, rope_theta=10_000.0, norm_eps=1e-6)


def test_auto_tokenizer_opens_the_folder_and_cuts_texts_as_we_do(transformers, tmp_path: Path) -> None:
    texts = [
        "Ein Seil von 30 Metern, it's 1234567 long.\n\n  Two  spaces",
        "数学は美しい, naïve café ∑x²",
        "def f(x):\n\treturn x**2\n",
    ]
    content = train_tokenizer(texts * 40, Tokenizer(vocab_size=600))
    folder = exported(ours(dataclasses.replace(PLAIN, vocab_size=600)), tmp_path / "m", extra_files=tokenizer_files(content))
    opened = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer = load_tokenizer(content)
    begin = tokenizer.token_to_id(BEGIN_OF_TEXT)
    assert opened(texts)["input_ids"] == [[begin, *ids] for ids in encode_texts(tokenizer, texts)]
    assert [opened.decode(ids, skip_special_tokens=True) for ids in opened(texts)["input_ids"]] == texts
    assert (opened.bos_token, opened.eos_token) == (BEGIN_OF_TEXT, END_OF_TEXT)
    assert transformers.AutoModelForCausalLM.from_pretrained(folder).config.vocab_size == 600
