"""Training in one process: it learns, resumes bit for bit, stops on request and writes a model that loads."""

import json
import shutil
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from l3_platform.model import Llama, ModelConfig, load_exported, presets
from l3_platform.settings import SettingsError, Stage
from l3_platform.settings import Train as TrainSettings
from l3_platform.train import TrainingError, TrainingStopped, TrainJob, TrainResult, loop
from l3_platform.train import checkpoint as checkpoint_module
from l3_platform.train import metrics as metrics_module
from l3_platform.train.branch import complete
from l3_platform.train.held_out import held_out_losses
from l3_platform.train.loop import train
from l3_platform.train.probes import Probe, write_probes
from l3_platform.train.schedule import learning_rate
from tests.parallel.ranks import in_processes

TINY = ModelConfig(vocab_size=64, d_model=32, layers=2, heads=2, kv_heads=1, ffn=96)
BOS, EOS = 62, 63


def token_file(path: Path, tokens: int, seed: int) -> str:
    """Documents of a language that can be learned: each token is the one before it plus a step of the document."""
    random = np.random.default_rng(seed)
    stream: list[int] = []
    while len(stream) < tokens:
        start, stride, length = random.integers(0, 60), random.integers(1, 4), random.integers(10, 60)
        stream += [BOS, *((start + stride * np.arange(length)) % 60), EOS]
    np.array(stream[:tokens], dtype="<u4").tofile(path)
    return str(path)


def job_in(folder: Path, **changes: Any) -> TrainJob:
    folder.mkdir(exist_ok=True, parents=True)
    data = {name: (token_file(folder / f"{name}.bin", 5000, i),) for i, name in enumerate(("code", "general"))}
    return TrainJob(**({
        "folder": str(folder / "run"), "output": str(folder / "model"), "model": TINY, "data": data,
        "held_out": {"general": (token_file(folder / "held.bin", 1000, 9),)},
        "shares": {"general": 0.7, "code": 0.3}, "bos_id": BOS, "eos_id": EOS, "total_tokens": 8192,
        "ramp": (Stage(batch_tokens=256, seq_len=32), Stage(from_tokens=4096, batch_tokens=512, seq_len=64)),
        "learning_rate": 1e-2, "warmup_tokens": 1024, "checkpoint_every_tokens": 2048,
    } | changes))  # fmt: skip


class StopAfter:
    """A request to stop that comes while step `step` runs."""

    def __init__(self, step: int) -> None:
        self.left = step

    def __call__(self) -> float | None:
        self.left -= 1
        return 0.0 if self.left <= 0 else None


def losses(job: TrainJob) -> dict[int, float]:
    return {int(row["step"]): row["loss"] for row in metrics_module.read(job.folder)}


def test_training_learns_the_held_out_language(tmp_path: Path) -> None:
    result = train(job_in(tmp_path, total_tokens=32_768))
    assert result.held_out_loss < 2.0 < np.log(64) - 1 and result.tokens == 32_768


def test_a_run_stopped_and_resumed_has_the_losses_of_an_undisturbed_one_bit_for_bit(tmp_path: Path) -> None:
    whole, broken = job_in(tmp_path / "whole"), job_in(tmp_path / "broken")
    expected = train(whole)
    for step in (7, 9):
        with pytest.raises(TrainingStopped, match="run again to resume"):
            train(broken, stop_requested=StopAfter(step))
    assert train(broken) == expected
    assert losses(broken) == losses(whole)


def test_a_crash_loses_only_what_came_after_the_newest_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, broken = job_in(tmp_path / "whole"), job_in(tmp_path / "broken")
    expected = train(whole)
    digest = checkpoint_module._digest

    def slow_digest(path: Path) -> str:
        time.sleep(0.2)  # the crash comes while the checkpoint of step 8 is still being written
        return digest(path)

    monkeypatch.setattr(checkpoint_module, "_digest", slow_digest)

    def crash(row: dict[str, float]) -> None:
        if row["step"] == 13:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(broken, crash)
    seen: list[float] = []
    assert train(broken, lambda row: seen.append(row["step"])) == expected
    assert seen[0] == 9 and losses(broken) == losses(whole)


def test_two_runs_of_one_job_export_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        train(job_in(tmp_path / name))
    files = [sorted((tmp_path / name / "model").iterdir()) for name in ("a", "b")]
    assert [(p.name, p.read_bytes()) for p in files[0]] == [(p.name, p.read_bytes()) for p in files[1]]


def test_ranks_that_add_up_another_last_bit_cut_by_the_same_norm(tmp_path: Path) -> None:
    """Groups of ranks may sum in different orders; replicas of a weight would drift apart, and decisions about spikes, too."""
    assert in_processes(2, tmp_path, norms_cut_by, job_in(tmp_path, total_tokens=1024, gradient_clip=1e-3))


def norms_cut_by(rank: int, job: TrainJob) -> bool:
    norms, right, cut = [], loop.gradient_norm, loop.scale_gradients
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "gradient_norm", lambda *arguments: right(*arguments) * (1 + 1e-6 * rank))
        patch.setattr(loop, "scale_gradients", lambda *arguments: (norms.append(arguments[2]), cut(*arguments)))
        train(job)
    everyones: list[Any] = [None, None]
    torch.distributed.all_gather_object(everyones, norms)
    return len(norms) == 4 and everyones[0] == everyones[1]


def test_each_sequence_length_of_a_ramp_is_compiled_for_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch would compile the second one for any length, and so all that comes behind it."""
    symbolic, right = [], torch.compile

    def backend(graph: torch.fx.GraphModule, inputs: list[Any]) -> Callable[..., Any]:
        symbolic.append(any(isinstance(one, torch.SymInt) for one in inputs))
        return graph.forward

    monkeypatch.setattr(torch, "compile", lambda function: right(function, backend=backend))
    ramp = (Stage(batch_tokens=128, seq_len=32), Stage(from_tokens=512, batch_tokens=128, seq_len=64))
    train(job_in(tmp_path, compile=True, total_tokens=1024, ramp=ramp, held_out_seq_len=64))
    assert symbolic and not any(symbolic)


def test_micro_batches_change_the_loss_by_rounding_alone(tmp_path: Path) -> None:
    whole = train(job_in(tmp_path / "a"))
    small = train(job_in(tmp_path / "b", micro_batch_tokens=64))
    assert small.loss == pytest.approx(whole.loss, rel=1e-3)


def test_a_run_says_what_auto_came_to(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"), pytest.raises(TrainingStopped):
        train(job_in(tmp_path), stop_requested=StopAfter(3))
    job = job_in(tmp_path, attention="sdpa")
    with caplog.at_level("INFO"):
        train(job)
    begun = [record.getMessage() for record in caplog.records if "parameters" in record.getMessage()]
    assert begun == [
        "28,832 parameters in fp32, attention by native, 1 x cpu, from step 0",
        "28,832 parameters in fp32, attention by sdpa, 1 x cpu, from step 3",
    ]


def warnings_of(rank: int, job: TrainJob) -> list[str]:
    said: list[str] = []
    loop.log.warning = lambda text, *values: said.append(text % values)  # type: ignore[method-assign]
    train(job)
    return said


def test_ranks_without_a_sequence_are_told_of(tmp_path: Path) -> None:
    ramp = (Stage(batch_tokens=32, seq_len=32), Stage(from_tokens=128, batch_tokens=64, seq_len=32))
    said = in_processes(2, tmp_path, warnings_of, job_in(tmp_path, ramp=ramp, total_tokens=256))
    assert len(said) == 1 and "batches of 32 tokens are 1 sequences for 2 data ranks" in said[0]


def test_a_horizon_is_another_job_and_none_the_same_as_ever(tmp_path: Path) -> None:
    jobs = [job_in(tmp_path, horizon_tokens=horizon) for horizon in (0, 8192, 9000)]
    assert len({job.fingerprint for job in jobs}) == 3
    assert jobs[0].fingerprint == "e715ffc5add219f7209777bd774cc9e1"  # of such a job before there was a horizon


def test_what_is_asked_at_the_end_must_suit_the_mesh_before_the_start(tmp_path: Path) -> None:
    probes = tmp_path / "probes.npz"
    write_probes(probes, [Probe(34, (1, 2), ((3,),))])
    for fields in ({"held_out_seq_len": 34}, {"probes": str(probes)}):
        with pytest.raises(ValueError, match=r"sequences of 34 tokens cannot be cut into 4 chunks"):
            job_in(tmp_path, context_parallel=2, **fields).mesh(2)


def test_a_damaged_newest_checkpoint_is_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    job = job_in(tmp_path)
    expected = train(job)
    shutil.rmtree(job.output)
    damaged = next(complete(job.folder)[0].glob("*.distcp"))
    damaged.write_bytes(damaged.read_bytes()[:-100] + bytes(100))
    assert train(job) == expected
    assert "has changed since it was written; falling back" in caplog.text


def test_only_the_newest_checkpoints_are_kept(tmp_path: Path) -> None:
    job = job_in(tmp_path, keep_checkpoints=2)
    train(job)
    assert [path.name for path in complete(job.folder)] == ["step-00000024", "step-00000020"]


def test_what_an_interrupted_save_left_is_no_checkpoint_and_is_cleared(tmp_path: Path) -> None:
    job = job_in(tmp_path)
    partial = Path(job.folder) / "step-00000099.partial"
    partial.mkdir(parents=True)
    train(job)
    assert not partial.exists()


def test_checkpoints_of_another_job_are_refused(tmp_path: Path) -> None:
    train(job_in(tmp_path))
    with pytest.raises(TrainingError, match="belongs to another job"):
        train(job_in(tmp_path, learning_rate=2e-2))


def test_a_finished_job_returns_its_result_at_once(tmp_path: Path) -> None:
    job = job_in(tmp_path)
    first = train(job)
    steps: list[float] = []
    assert train(job, lambda row: steps.append(row["step"])) == first == TrainResult.read(job.output)
    assert steps == []


def test_annealing_averages_its_checkpoints_and_starts_from_the_weights(tmp_path: Path) -> None:
    base = job_in(tmp_path / "base")
    train(base)
    job = job_in(
        tmp_path / "anneal", init_from=base.output, schedule="linear_to_zero", warmup_tokens=0, learning_rate=1e-3,
        total_tokens=1536, ramp=(Stage(batch_tokens=256, seq_len=32),), checkpoint_every_tokens=512, average_last=3,
        keep_checkpoints=1,
    )  # fmt: skip
    first: list[float] = []
    result = train(job, lambda row: first.append(row["loss"]))
    assert first[0] < 3.0 and result.averaged == 3  # fresh weights would begin at log 64 = 4.2
    mean = weights_of_checkpoints(job, 3)
    final = dict(load_exported(job.output).named_parameters())
    torch.testing.assert_close(final["layers.0.attention.wq.weight"].detach(), mean)


def averaging_job(folder: Path) -> TrainJob:
    return job_in(
        folder, total_tokens=2048, ramp=(Stage(batch_tokens=256, seq_len=32),), checkpoint_every_tokens=512, average_last=3,
        keep_checkpoints=1,
    )  # fmt: skip


def test_a_stopped_run_averages_the_checkpoints_of_an_undisturbed_one(tmp_path: Path) -> None:
    whole, broken = averaging_job(tmp_path / "whole"), averaging_job(tmp_path / "broken")
    expected = train(whole)
    for step in (5, 2):  # behind steps 5 and 7, between the checkpoints of 4, 6 and 8
        with pytest.raises(TrainingStopped):
            train(broken, stop_requested=StopAfter(step))
    assert train(broken) == expected and expected.averaged == 3
    name = "model.safetensors"
    assert (Path(broken.output) / name).read_bytes() == (Path(whole.output) / name).read_bytes()


def test_a_checkpoint_that_has_rotted_is_no_part_of_the_average(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    job = averaging_job(tmp_path)
    train(job)
    expected = weights_of_checkpoints(job, 3)
    shutil.rmtree(job.output)
    rotten = next(complete(job.folder)[1].glob("*.distcp"))
    content = rotten.read_bytes()
    rotten.write_bytes(content[:5000] + bytes(64) + content[5064:])
    assert train(job).averaged == 2
    assert "has changed since it was written" in caplog.text and "only 2 of 3 checkpoints are left" in caplog.text
    got = dict(load_exported(job.output).named_parameters())["layers.0.attention.wq.weight"].detach()
    assert not torch.allclose(got, expected)


def weights_of_checkpoints(job: TrainJob, count: int) -> torch.Tensor:
    from torch.distributed.checkpoint.state_dict_loader import load

    found = []
    for folder in complete(job.folder)[:count]:
        state = {"model": {"layers.0.attention.wq.weight": torch.empty(32, 32)}}
        load(state, checkpoint_id=str(folder), no_dist=True)
        found.append(state["model"]["layers.0.attention.wq.weight"])
    assert not torch.equal(found[0], found[1])
    return torch.stack(found).mean(0)


def test_a_loss_that_is_not_finite_stops_training_and_says_where(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"step 2 \(tokens 256 to 512\): loss .*, gradient norm nan at"):
        train(job_in(tmp_path, learning_rate=1e30, warmup_tokens=0))


def test_held_out_loss_predicts_every_token_but_the_first_once(tmp_path: Path) -> None:
    job = job_in(tmp_path)
    train(job)
    model = load_exported(job.output)
    nats, tokens = held_out_losses(model, job.held_out, seq_len=48, bos_id=BOS)["general"]
    stream = torch.from_numpy(np.fromfile(job.held_out["general"][0], dtype="<u4").astype(np.int64))
    by_hand = 0.0
    for start in range(0, len(stream) - 1, 48):
        window = stream[start : start + 49]
        by_hand += model(window[None, :-1], window[None, 1:], BOS).item()
    assert tokens == 999 and nats == pytest.approx(by_hand, rel=1e-5)


def test_held_out_loss_is_computed_in_micro_batches_where_steps_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[int] = []
    monkeypatch.setattr(loop, "held_out_losses", lambda *_, batch_sequences, **__: rows.append(batch_sequences) or {})
    for number, tokens in enumerate((0, 128, 64)):
        train(
            job_in(
                tmp_path / str(number), total_tokens=1024, ramp=(Stage(batch_tokens=256, seq_len=32),), micro_batch_tokens=tokens
            )
        )
    assert rows == [8, 4, 2]


def test_held_out_tokens_limits_each_domain(tmp_path: Path) -> None:
    result = train(job_in(tmp_path, held_out_tokens=101, total_tokens=512))
    assert result.held_out["general"][1] == 100


def test_one_process_in_bf16_learns_too(tmp_path: Path) -> None:
    result = train(job_in(tmp_path, precision="bf16", total_tokens=16_384))
    assert result.held_out_loss < 3.0
    assert isinstance(load_exported(tmp_path / "model"), Llama)


def test_the_learning_rate_warms_up_falls_and_ends_at_its_floor() -> None:
    recipe = {"schedule": "cosine", "peak": 1.0, "min_ratio": 0.1, "warmup_tokens": 100, "total_tokens": 1000}
    rates = [learning_rate(t, 2, **recipe) for t in range(0, 1000, 2)]  # type: ignore[arg-type]
    assert rates[0] == 0.01 and max(rates) == pytest.approx(1.0, abs=1e-3)
    assert all(a > b for a, b in pairwise(rates[50:])) and rates[-1] == pytest.approx(0.1, abs=1e-4)


@pytest.mark.parametrize("batch", [10, 50, 250])
def test_a_linear_schedule_spends_the_same_area_whatever_the_batch(batch: int) -> None:
    recipe = {"schedule": "linear_to_zero", "peak": 1.0, "min_ratio": 0.0, "warmup_tokens": 0, "total_tokens": 1000}
    area = sum(batch * learning_rate(t, batch, **recipe) for t in range(0, 1000, batch))  # type: ignore[arg-type]
    assert area == pytest.approx(500)


def test_a_job_survives_its_json_file_and_takes_the_recipe_of_the_settings(tmp_path: Path) -> None:
    job = job_in(tmp_path)
    job.write(tmp_path / "job.json")
    assert TrainJob.read(tmp_path / "job.json") == job
    kept = {"folder", "output", "model", "data", "shares", "bos_id", "eos_id", "total_tokens"}
    made = TrainJob.from_settings(TrainSettings(), **{name: getattr(job, name) for name in kept})
    assert made.warmup_tokens == TrainSettings().warmup_tokens and made.ramp == TrainSettings().ramp


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shares": {"web": 1.0}}, "domain 'web' has weight 1.0 but no token files"),
        ({"ramp": (Stage(batch_tokens=100, seq_len=32),)}, "must be a multiple of the longest seq_len, 32"),
        ({"total_tokens": 10}, "less than one sequence of 64 tokens"),
        ({"average_last": 2, "checkpoint_every_tokens": 0}, "checkpoint_every_tokens must be set too"),
        ({"horizon_tokens": 8191}, "horizon_tokens 8191 is below total_tokens 8192"),
    ],
)
def test_an_impossible_job_is_refused_in_words(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        job_in(tmp_path, **changes)


def test_a_recipe_that_no_job_can_have_is_refused_by_the_name_of_its_setting() -> None:
    unchecked = TrainSettings.model_construct(**(TrainSettings().model_dump() | {"threads": 0}))
    with pytest.raises(SettingsError, match=r"^setting train\.threads: input should be greater than or equal to 1 \(got 0\)$"):
        TrainJob.from_settings(
            unchecked, folder="", output="", model=presets["tiny"], data={"general": ("a",)}, shares={"general": 1.0},
            bos_id=0, eos_id=1, total_tokens=4096,
        )  # fmt: skip


def test_a_start_from_other_weights_is_another_job(tmp_path: Path) -> None:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(b"x")
    ours = job_in(tmp_path / "ours")
    train(ours)
    moved = shutil.copytree(ours.output, tmp_path / "moved")
    starts = ["", str(tmp_path / "one"), str(tmp_path / "other"), ours.output]
    prints = [job_in(tmp_path / "next", init_from=start).fingerprint for start in starts]
    assert len(set(prints)) == 4 and prints[3] == job_in(tmp_path / "next", init_from=str(moved)).fingerprint


def test_result_holds_no_wall_clock(tmp_path: Path) -> None:
    job = job_in(tmp_path, total_tokens=512)
    train(job)
    assert set(json.loads((Path(job.output) / "result.json").read_text())) == set(TrainResult.model_fields)
