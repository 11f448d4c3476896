"""Context parallelism's chunks and mask, without processes."""

import pytest
import torch

from l3_platform.model.attention import Sdpa, document_numbers
from l3_platform.parallel.context import places, positions

SEQ = 24


@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
def test_ranks_hold_every_position_once_with_the_same_work(ranks: int) -> None:
    held = [positions(SEQ, rank, ranks) for rank in range(ranks)]
    assert torch.cat(held).sort().values.tolist() == list(range(SEQ))
    # Causal attention costs a query as many keys as lie before it: head and tail chunks make that equal.
    assert len({int((where + 1).sum()) for where in held}) == 1


def test_rank_i_holds_chunks_i_and_its_mirror() -> None:
    assert positions(8, 0, 2).tolist() == [0, 1, 6, 7] and positions(8, 1, 2).tolist() == [2, 3, 4, 5]


@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_the_masks_of_all_ranks_are_the_whole_mask_with_its_rows_and_columns_moved(ranks: int) -> None:
    random = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, 3, (5, SEQ), generator=random)  # documents of about three tokens
    tokens[0] = 1  # and one that never ends
    document = document_numbers(tokens, bos_id=0)
    whole = Sdpa().mask(document)
    keys = torch.cat([positions(SEQ, rank, ranks) for rank in range(ranks)])
    for rank in range(ranks):
        mine = Sdpa().mask(document, places(SEQ, rank, ranks, torch.device("cpu")))
        assert whole is not None and mine is not None
        assert torch.equal(mine, whole[:, :, positions(SEQ, rank, ranks)][..., keys])
        assert mine.any(-1).all(), "a query that sees nothing"


def test_a_query_that_may_look_nowhere_gives_zero_and_no_nan() -> None:
    q, k, v = (torch.randn(2, 2, 4, 8, requires_grad=True) for _ in range(3))
    mask = torch.ones(2, 1, 4, 4, dtype=torch.bool).tril()
    mask[0] = False
    mask[1, :, 2] = False
    mixed = Sdpa().attend(q, k, v, mask)
    mixed.sum().backward()
    assert not mixed[0].any() and not mixed[1, :, 2].any() and mixed[1, :, 3].all()
    assert all(t.grad is not None and t.grad.isfinite().all() for t in (q, k, v))
