"""The order of training data."""

from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from l3_platform.settings import Stage
from l3_platform.train.data_order import DataOrder, Segment, TokenStream, permute, segments_of, steps

RAMP = (Stage(from_tokens=0, batch_tokens=64, seq_len=8), Stage(from_tokens=100, batch_tokens=96, seq_len=16))


def write(folder: Path, name: str, tokens: np.ndarray) -> str:
    path = folder / name
    tokens.astype("<u4").tofile(path)
    return str(path)


def order_of(folder: Path, sizes: dict[str, list[int]], shares: dict[str, float], unit: int = 16) -> DataOrder:
    return DataOrder(streams_of(folder, sizes), [Segment(0, unit, shares)], seed=3)


def streams_of(folder: Path, sizes: dict[str, list[int]]) -> dict[str, TokenStream]:
    """Domains whose tokens are all different: domain index in millions, then a running number."""
    streams = {}
    for number, (domain, lengths) in enumerate(sizes.items(), start=1):
        bounds = np.cumsum([0, *lengths])
        files = [
            write(folder, f"{domain}-{i}.bin", np.arange(a, b) + number * 1_000_000) for i, (a, b) in enumerate(pairwise(bounds))
        ]
        streams[domain] = TokenStream(files)
    return streams


@pytest.mark.parametrize("size", [1, 2, 3, 17, 64, 1000])
def test_the_permutation_of_windows_visits_each_once_and_shuffles(size: int) -> None:
    visited = [permute(i, size, key=9) for i in range(size)]
    assert sorted(visited) == list(range(size))
    assert size < 17 or sum(i == v for i, v in enumerate(visited)) < size / 4


def test_an_epoch_of_a_domain_sees_each_token_once(tmp_path: Path) -> None:
    order = order_of(tmp_path, {"web": [37, 0, 91]}, {"web": 1.0})
    seen = Counter(int(t) for p in range(0, 128, 16) for t in order.sequence(p, 16)[:-1])
    assert len(seen) == 128 and set(seen.values()) == {1}


def test_the_rest_of_an_epoch_begins_the_next_so_no_token_is_lost(tmp_path: Path) -> None:
    order = order_of(tmp_path, {"web": [50, 61]}, {"web": 1.0})  # 111 tokens: six windows of 16 and 15 tokens
    seen = Counter(int(t) for p in range(0, 12 * 16, 16) for t in order.sequence(p, 16)[:-1])
    assert len(seen) == 111 and set(seen.values()) <= {1, 2}


def test_every_target_is_the_next_token_of_the_stream(tmp_path: Path) -> None:
    order = order_of(tmp_path, {"web": [37, 40]}, {"web": 1.0})
    for position in range(0, 64, 8):
        tokens = order.sequence(position, 8).astype(np.int64) - 1_000_000
        assert all((b - a) % 77 == 1 for a, b in pairwise(tokens))


def test_any_prefix_of_the_run_has_the_shares(tmp_path: Path) -> None:
    shares = {"code": 0.17, "general": 0.5, "math": 0.25, "multilingual": 0.08}
    order = order_of(tmp_path, {domain: [160] for domain in shares}, shares)
    counts = Counter()
    for unit in range(5000):
        domain, number = order.place(unit)
        assert number == counts[domain]
        counts[domain] += 1
        for index, name in enumerate(order.domains):
            assert abs(counts[index] - shares[name] * (unit + 1)) < 3


def test_shares_stay_exact_at_the_token_counts_of_a_large_run(tmp_path: Path) -> None:
    order = order_of(tmp_path, {"a": [160], "b": [160]}, {"a": 0.3, "b": 0.7})
    unit = 15_600_000_000_000 // 8192
    domain, number = order.place(unit)
    assert number == pytest.approx({0: 0.3, 1: 0.7}[domain] * unit, rel=1e-9)


def test_the_sequence_length_ramp_changes_no_token_of_the_run(tmp_path: Path) -> None:
    order = order_of(tmp_path, {"a": [333], "b": [555]}, {"a": 1.0, "b": 2.0})
    long = np.concatenate([order.sequence(p, 16)[:-1] for p in range(0, 512, 16)])
    short = np.concatenate([order.sequence(p, 4)[:-1] for p in range(0, 512, 4)])
    np.testing.assert_array_equal(long, short)


def test_batch_and_sequence_length_follow_the_tokens_consumed() -> None:
    rows = [(s.start, s.tokens, s.seq_len) for s in steps(RAMP, 330)]
    assert rows == [(0, 64, 8), (64, 64, 8), (128, 96, 16), (224, 96, 16)]


def test_the_last_step_is_cut_to_the_total_in_whole_sequences() -> None:
    assert [s.tokens for s in steps(RAMP, 170)] == [64, 64, 32]


def test_a_new_mix_goes_on_in_each_domain_where_the_old_one_stopped(tmp_path: Path) -> None:
    streams = streams_of(tmp_path, {"a": [640], "b": [640]})
    first = Segment(0, 16, {"a": 0.75, "b": 0.25})
    second = Segment(320, 16, {"a": 0.2, "b": 0.8})
    orders = DataOrder(streams, [first], seed=3), DataOrder(streams, [first, second], seed=3)
    seen = Counter(
        int(token)
        for order, positions in zip(orders, (range(0, 320, 16), range(320, 960, 16)), strict=True)
        for position in positions
        for token in order.sequence(position, 16)[:-1]
    )
    assert len(seen) == 960 and set(seen.values()) == {1}  # with a fresh start, 160 tokens of b would come twice


def test_longer_sequences_begin_at_the_share_of_an_epoch_already_read(tmp_path: Path) -> None:
    streams = streams_of(tmp_path, {"a": [6400]})
    order = DataOrder(streams, [Segment(0, 16, {"a": 1.0}), Segment(3200, 64, {"a": 1.0})], seed=3)
    assert [order.place(unit) for unit in (0, 1, 49, 50)] == [(0, 50), (0, 51), (0, 99), (0, 100)]


def test_a_run_that_changes_neither_shares_nor_length_has_no_segment_of_its_own() -> None:
    parents = segments_of((), 0, 16, {"b": 0.5, "a": 0.5, "c": 0.0})
    assert segments_of(parents, 320, 16, {"a": 0.5, "b": 0.5}) == parents
    assert [one.from_tokens for one in segments_of(parents, 320, 32, {"a": 0.5, "b": 0.5})] == [0, 320]


def test_another_seed_gives_another_order(tmp_path: Path) -> None:
    order = order_of(tmp_path, {"web": [1600]}, {"web": 1.0})
    other = DataOrder({"web": order._streams[0]}, [Segment(0, 16, {"web": 1.0})], seed=4)
    assert any(not np.array_equal(order.sequence(p, 16), other.sequence(p, 16)) for p in range(0, 160, 16))


def test_a_domain_with_a_share_and_no_token_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'b' has a share of 1\.0 but its files hold no token"):
        order_of(tmp_path, {"a": [16], "b": [0]}, {"a": 1.0, "b": 1.0})


def test_a_truncated_token_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "cut.bin"
    path.write_bytes(b"12345")
    with pytest.raises(ValueError, match=r"cut.bin: 5 bytes is not a whole number"):
        TokenStream([str(path)])
