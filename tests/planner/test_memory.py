"""The planner's bytes against those of training steps that were run."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from l3_platform.model import ModelConfig
from l3_platform.planner.layout import Layout, Step
from l3_platform.planner.memory import LOGITS_A_CHUNK, Memory, memory

WIDE = {"vocab_size": 4096, "d_model": 256, "layers": 4, "heads": 8, "kv_heads": 2, "ffn": 768}
NARROW = {"vocab_size": 32_768, "d_model": 128, "layers": 3, "heads": 4, "kv_heads": 4, "ffn": 352}
ONE = {"rows": 4, "seq_len": 512, "micro_batches": 1}
CASES = {
    "one micro-batch": {"model": WIDE, "saving": "eager", "precision": "fp32", "rows": 2, "seq_len": 512, "micro_batches": 1},
    "two micro-batches": {"model": WIDE, "saving": "eager", "precision": "fp32", "rows": 2, "seq_len": 512, "micro_batches": 2},
    "full": {"model": WIDE, "saving": "full", "precision": "fp32", "rows": 4, "seq_len": 512, "micro_batches": 2},
    "loss in chunks": {"model": NARROW, "saving": "eager", "precision": "fp32", "rows": 6, "seq_len": 512, "micro_batches": 1},
    "bf16 under FSDP2": {"model": WIDE, "saving": "eager", "precision": "bf16", "rows": 2, "seq_len": 512, "micro_batches": 2},
    "compiled": {"model": WIDE, "saving": "compiled", "precision": "bf16", "rows": 2, "seq_len": 512, "micro_batches": 1},
    "full, compiled": {"model": WIDE, "saving": "full", "compiled": True, "precision": "bf16"} | ONE,
    "selective, compiled": {"model": WIDE, "saving": "selective", "compiled": True, "precision": "bf16"} | ONE,
    "selective": {"model": WIDE, "saving": "selective", "precision": "fp32", "rows": 4, "seq_len": 512, "micro_batches": 2},
}


@pytest.fixture(scope="module")
def measured() -> dict[str, dict[str, int]]:
    program = [sys.executable, str(Path(__file__).with_name("train_step.py")), json.dumps(list(CASES.values()))]
    done = subprocess.run(program, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return dict(zip(CASES, json.loads(done.stdout.splitlines()[-1]), strict=True))


def planned(case: dict) -> Memory:
    tokens = case["rows"] * case["seq_len"]
    layout = Layout(rows=case["rows"], saving=case["saving"])
    return memory(ModelConfig(**case["model"]), layout, Step(case["seq_len"], tokens * case["micro_batches"]), case["precision"])


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", [name for name in CASES if name != "selective"])  # its cache is no hook's
def test_activations_are_those_that_the_forward_pass_saved(name: str, measured: dict) -> None:
    case = CASES[name]
    logits = case["rows"] * case["seq_len"] * case["model"]["vocab_size"]
    log_probabilities = 0 if logits > LOGITS_A_CHUNK else 4 * logits
    # torch.compile computes some dear things again, too, where it costs little: 8 % less is kept than was asked for.
    tolerance = 0.10 if name == "selective, compiled" else 0.01
    assert planned(case).activations + log_probabilities == pytest.approx(measured[name]["saved"], rel=tolerance)


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", [name for name in CASES if "compiled" not in name])
def test_the_peak_is_that_of_a_step_that_was_run(name: str, measured: dict) -> None:
    assert planned(CASES[name]).peak == pytest.approx(measured[name]["peak"], rel=0.10)
