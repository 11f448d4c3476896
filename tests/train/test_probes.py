"""Multiple choice at the end of a run: the nats of each choice, whatever the padding and the number of ranks."""

from pathlib import Path

import pytest
import torch

from l3_platform.model import Llama, ModelConfig
from l3_platform.model.init import initialize
from l3_platform.train.loop import train
from l3_platform.train.probes import Probe, choice_nats, read_probes, write_probes
from l3_platform.train.ranks import Ranks
from tests.train.test_loop import BOS, job_in

PROBES = [Probe(16, (BOS, 1, 2, 3), ((4,), (5, 6), (7,))), Probe(8, (BOS, 9), ((1,), (2,)))]


def nats_by_hand(model: Llama, context: tuple[int, ...], choice: tuple[int, ...]) -> float:
    ids = torch.tensor([[*context, *choice]])
    with torch.no_grad():
        log_p = torch.log_softmax(model(ids[:, :-1], bos_id=BOS), dim=-1)[0]
    return -sum(float(log_p[len(context) - 1 + i, token]) for i, token in enumerate(choice))


@pytest.fixture(scope="module")
def model() -> Llama:
    made = Llama(ModelConfig(vocab_size=64, d_model=32, layers=2, heads=2, kv_heads=1, ffn=96))
    initialize(made, 1)
    return made.eval()


def test_the_nats_of_a_choice_are_those_of_its_tokens_after_the_context(model: Llama) -> None:
    found = choice_nats(model, PROBES, BOS, Ranks(0, 1, torch.device("cpu")))
    expected = [tuple(nats_by_hand(model, probe.context, choice) for choice in probe.choices) for probe in PROBES]
    assert [len(row) for row in found] == [3, 2]
    assert [value for row in found for value in row] == pytest.approx([value for row in expected for value in row], rel=1e-5)


def test_ranks_share_the_choices_and_their_sum_has_all(model: Llama) -> None:
    class One(Ranks):
        def sum(self, tensor: torch.Tensor) -> torch.Tensor:
            return tensor

    whole = choice_nats(model, PROBES, BOS, Ranks(0, 1, torch.device("cpu")))
    parts = [choice_nats(model, PROBES, BOS, One(rank, 2, torch.device("cpu"))) for rank in (0, 1)]
    for row, *halves in zip(whole, *parts, strict=True):
        assert row == pytest.approx([a + b for a, b in zip(*halves, strict=True)])
        assert all(min(a, b) == 0.0 for a, b in zip(*halves, strict=True))


def test_probes_survive_their_file_byte_for_byte(tmp_path: Path) -> None:
    for name in ("a.npz", "b.npz"):
        write_probes(tmp_path / name, PROBES)
    assert read_probes(tmp_path / "a.npz") == PROBES
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_a_run_answers_its_probes_and_other_probes_make_it_another_run(tmp_path: Path) -> None:
    write_probes(tmp_path / "probes.npz", PROBES)
    job = job_in(tmp_path, total_tokens=512, probes=str(tmp_path / "probes.npz"))
    before, result = job.fingerprint, train(job)
    assert [len(row) for row in result.probe_nats] == [3, 2] and min(map(min, result.probe_nats)) > 0
    write_probes(tmp_path / "probes.npz", PROBES[:1])
    assert job.fingerprint != before


def test_a_probe_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="do not fit in a sequence of 4"):
        Probe(4, (1, 2, 3, 4), ((5, 6),))
