"""What a run was fed, as `pretrained` keeps it."""

from pathlib import Path

from l3_platform.pretrain import consumed
from l3_platform.train import ledger
from l3_platform.train.interleave import Mixture
from l3_platform.train.loop import train
from tests.train.test_loop import job_in


def test_what_was_fed_is_each_mixture_s_shares_and_every_token(tmp_path: Path) -> None:
    later = Mixture(from_tokens=5000, shares={"general": 0.2, "code": 0.8})
    job = job_in(tmp_path, mix_changes=(later, Mixture(from_tokens=99_999, shares={"code": 1.0})))
    train(job)
    legs = consumed(job)
    assert [leg["from_tokens"] for leg in legs] == [0, 4608]  # the step that the change falls into; the last is never reached
    assert sum(sum(leg["tokens"].values()) for leg in legs) == 8192
    for leg, shares in zip(legs, (job.shares, later.shares), strict=True):
        total = sum(leg["tokens"].values())
        assert all(abs(leg["tokens"][domain] - share * total) <= leg["slack"] < total / 5 for domain, share in shares.items())


def test_two_changes_in_one_step_leave_the_first_without_tokens(tmp_path: Path) -> None:
    changes = tuple(
        Mixture(from_tokens=start, shares={"code": share, "general": 1.0}) for start, share in ((5000, 0.5), (5010, 1.0))
    )
    job = job_in(tmp_path, mix_changes=changes)
    train(job)
    assert [sum(leg["tokens"].values()) for leg in consumed(job)] == [4608, 0, 8192 - 4608]


def test_a_token_that_no_rank_recorded_is_missed(tmp_path: Path) -> None:
    job = job_in(tmp_path)
    train(job)
    ledger.rewind(job.folder, 20)
    (leg,) = consumed(job)
    assert sum(leg["tokens"].values()) == 8192 - 4 * 512
