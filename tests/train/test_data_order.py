"""The order of training data, and its inverse."""

import random
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from l3_platform.settings import Stage
from l3_platform.train.branch import Position
from l3_platform.train.data_order import DataOrder, step_at, steps
from l3_platform.train.data_plan import DataPlan, Stream
from l3_platform.train.interleave import Interleave, Mixture
from l3_platform.train.permutation import permute, unpermute
from l3_platform.train.token_stream import TokenStream

RAMP = (Stage(from_tokens=0, batch_tokens=64, seq_len=8), Stage(from_tokens=100, batch_tokens=96, seq_len=16))
PAPER = {"code": 0.17, "general": 0.5, "math": 0.25, "multilingual": 0.08}


def order_of(sizes: dict[str, int], shares: dict[str, float], *changes: Mixture, unit: int = 16, seed: int = 3) -> DataOrder:
    return DataOrder(sizes, [Mixture(shares=shares), *changes], unit, seed)


def consumed(order: DataOrder, tokens: int, seq_len: int) -> dict[str, Counter[int]]:
    """How often each token of the domains' endless rings is read in the first `tokens` of a run."""
    seen = {domain: Counter() for domain in order.domains}
    for position in range(0, tokens, seq_len):
        piece = order.piece(position, seq_len)
        seen[piece.domain].update(range(piece.start, piece.start + piece.tokens))
    return seen


def random_run(case: int) -> tuple[dict[str, int], list[Mixture], int, list[int], random.Random]:
    """Sizes of domains, mixtures, unit and the sequence lengths that divide it: awkward ones, by a seeded draw."""
    draw = random.Random(case)
    unit = draw.choice([8, 12, 16, 60])
    domains = draw.sample(["a", "b", "c", "d"], draw.randint(1, 4))
    sizes = {domain: draw.choice([draw.randint(1, 3 * unit), draw.randint(1, 40 * unit), 5 * unit]) for domain in domains}
    mixtures = []
    for start in [0, *sorted(draw.sample(range(1, 60 * unit), draw.randint(0, 3)))]:
        shares = {domain: draw.choice([0.0, draw.random()]) for domain in domains}
        mixtures.append(Mixture(from_tokens=start, shares=shares | {draw.choice(domains): 0.1 + draw.random()}))
    return sizes, mixtures, unit, [length for length in range(1, unit + 1) if unit % length == 0], draw


@pytest.mark.parametrize("size", [1, 2, 3, 17, 64, 1000])
def test_the_permutation_of_windows_visits_each_once_and_shuffles(size: int) -> None:
    visited = [permute(i, size, key=9) for i in range(size)]
    assert sorted(visited) == list(range(size))
    assert size < 17 or sum(i == v for i, v in enumerate(visited)) < size / 4


@pytest.mark.parametrize("size", [1, 2, 3, 17, 64, 1000, 15_600_000_000_000 // 8192])
def test_the_permutation_has_an_inverse(size: int) -> None:
    for index in {0, size - 1, size // 2, size // 3, *range(min(size, 100))}:
        assert unpermute(permute(index, size, key=9), size, key=9) == index


@pytest.mark.parametrize("size", [128, 111, 16, 17, 15, 5, 1])
def test_an_epoch_holds_each_token_once_at_any_number_of_tokens(size: int) -> None:
    order = order_of({"web": size}, {"web": 1.0})
    whole = -(-3 * size // 16) * 16  # three epochs and the rest of a unit
    (seen,) = consumed(order, whole, 16).values()
    assert set(range(3 * size)) <= set(seen) and set(seen.values()) == {1}
    assert set(seen) == set(range(whole))  # what the last unit holds beyond is how the fourth begins


@pytest.mark.parametrize("case", range(60))
def test_no_token_is_lost_or_repeated_in_any_epoch_by_any_ramp_mixture_and_sequence_length(case: int) -> None:
    sizes, mixtures, unit, lengths, draw = random_run(case)
    order = DataOrder(sizes, mixtures, unit, seed=case)
    total = 120 * unit
    seen = consumed(order, total, draw.choice(lengths))
    assert sum(count.total() for count in seen.values()) == total
    for domain, count in seen.items():
        assert set(count.values()) <= {1}  # an epoch has places of its own on the ring: none is read twice
        finished = count.total() // sizes[domain] * sizes[domain]
        assert not set(range(finished)) - set(count)  # and all of a finished one are read


@pytest.mark.parametrize("case", range(60))
def test_every_token_is_found_where_a_scan_finds_it(case: int) -> None:
    sizes, mixtures, unit, lengths, draw = random_run(case)
    order = DataOrder(sizes, mixtures, unit, seed=case)
    total, seq_len = 120 * unit, draw.choice(lengths)
    scanned = {domain: {} for domain in order.domains}
    for position in range(0, total, seq_len):
        piece = order.piece(position, seq_len)
        for offset in range(seq_len):
            scanned[piece.domain][piece.start + offset] = position + offset
    for domain in order.domains:
        start = draw.randrange(sizes[domain])
        length = draw.randint(1, sizes[domain] - start)
        found = {}
        for piece, position in order.occurrences(domain, start, length, total):
            if position is not None:
                found |= {piece.start + offset: position + offset for offset in range(piece.tokens)}
        inside = {ring: position for ring, position in found.items() if position < total}
        assert inside == {r: p for r, p in scanned[domain].items() if start <= r % sizes[domain] < start + length}


def test_a_token_of_a_large_run_is_found_without_a_scan() -> None:
    sizes = {"code": 2_600_000_000_001, "general": 7_800_000_000_003, "math": 1_100_000_000_007, "multilingual": 900_000_000_011}
    later = Mixture(from_tokens=8_000_000_000_000, shares=PAPER | {"math": 0.4})
    order = order_of(sizes, PAPER, later, unit=8192)
    for domain, size in sizes.items():
        for start in (0, size // 3, size - 5000):
            for piece, position in order.occurrences(domain, start, 5000, 15_600_000_000_000):
                assert position is not None
                read = order.piece(position // 8192 * 8192, 8192)
                assert read.domain == domain and read.start <= piece.start and piece.start + piece.tokens <= read.start + 8192


def test_a_domain_without_a_share_is_found_nowhere() -> None:
    assert order_of({"a": 99, "b": 99}, {"a": 1.0, "b": 0.0}).occurrences("b", 3, 4, 9999) == []


def test_what_a_dropped_domain_still_had_never_comes() -> None:
    order = order_of({"a": 320, "b": 3200}, {"a": 1.0, "b": 1.0}, Mixture(from_tokens=64, shares={"b": 1.0}))
    places = [position for _, position in order.occurrences("a", 0, 320, 9600)]
    assert sum(position is not None for position in places) == 2  # half of four units
    assert places[2:] == [None] * 18


def test_any_prefix_of_the_run_has_the_shares() -> None:
    interleave = Interleave([Mixture(shares=PAPER)], 16, seed=3)
    counts = Counter()
    for unit in range(5000):
        domain, number = interleave.place(unit)
        assert number == counts[domain]
        counts[domain] += 1
        for name in interleave.domains:
            assert abs(counts[name] - PAPER[name] * (unit + 1)) < 3


def test_a_change_of_the_mixture_begins_with_its_first_whole_unit_and_each_domain_goes_on() -> None:
    later = {"code": 0.1, "general": 0.2, "math": 0.6, "multilingual": 0.1}
    interleave = Interleave([Mixture(shares=PAPER), Mixture(from_tokens=1000 * 16 - 3, shares=later)], 16, seed=3)
    counts, at_change = Counter(), Counter()
    for unit in range(3000):
        if unit == 1000:
            at_change = Counter(counts)
        domain, number = interleave.place(unit)
        assert number == counts[domain] and interleave.unit_of(domain, number) == unit
        counts[domain] += 1
    assert all(abs(at_change[name] - 1000 * share) < 3 for name, share in PAPER.items())
    assert all(abs(counts[name] - at_change[name] - 2000 * share) < 3 for name, share in later.items())


def test_a_domain_may_join_and_leave_on_the_way() -> None:
    legs = [{"a": 1.0}, {"b": 1.0}, {"a": 1.0, "c": 1.0}]
    interleave = Interleave([Mixture(from_tokens=160 * i, shares=shares) for i, shares in enumerate(legs)], 16, seed=3)
    names = [interleave.place(unit)[0] for unit in range(30)]
    assert (set(names[:10]), set(names[10:20]), set(names[20:])) == ({"a"}, {"b"}, {"a", "c"})
    assert [interleave.place(unit)[1] for unit in range(30) if names[unit] == "a"] == list(range(names.count("a")))


def test_shares_stay_exact_at_the_token_counts_of_a_large_run() -> None:
    interleave = Interleave([Mixture(shares={"a": 0.3, "b": 0.7})], 8192, seed=3)
    unit = 15_600_000_000_000 // 8192
    domain, number = interleave.place(unit)
    assert number == pytest.approx({"a": 0.3, "b": 0.7}[domain] * unit, rel=1e-9)


def test_the_sequence_length_ramp_changes_no_token_of_the_run() -> None:
    order = order_of({"a": 333, "b": 555}, {"a": 1.0, "b": 2.0})
    for position in range(0, 512, 16):
        whole = order.piece(position, 16)
        for part in range(0, 16, 4):
            assert order.piece(position + part, 4) == (whole.domain, whole.start + part, 4)


def test_batch_and_sequence_length_follow_the_tokens_consumed() -> None:
    rows = [(s.start, s.tokens, s.seq_len) for s in steps(RAMP, 330)]
    assert rows == [(0, 64, 8), (64, 64, 8), (128, 96, 16), (224, 96, 16)]


def test_the_last_step_is_cut_to_the_total_in_whole_sequences() -> None:
    assert [s.tokens for s in steps(RAMP, 170)] == [64, 64, 32]


@pytest.mark.parametrize("total", [16, 64, 170, 330, 5000])
def test_a_token_s_step_is_found_without_a_scan(total: int) -> None:
    skipped = Stage(from_tokens=110, batch_tokens=16, seq_len=16)  # over before the batch at 64 is
    ramp = (
        *RAMP,
        skipped,
        Stage(from_tokens=120, batch_tokens=160, seq_len=16),
        Stage(from_tokens=2000, batch_tokens=16, seq_len=4),
    )
    every = list(steps(ramp, total))
    assert [s.index for s in every] == list(range(len(every))) and every[-1].end == total // 16 * 16
    for position in range(0, every[-1].end, 7):
        assert step_at(ramp, total, position) == next(s for s in every if s.start <= position < s.end)
    assert step_at(ramp, total, every[-1].end) is None


def test_another_seed_gives_another_order() -> None:
    orders = [order_of({"web": 1600}, {"web": 1.0}, seed=seed) for seed in (3, 4)]
    assert any(orders[0].piece(p, 16) != orders[1].piece(p, 16) for p in range(0, 160, 16))


def test_a_domain_with_a_share_and_no_token_is_named() -> None:
    with pytest.raises(ValueError, match=r"domain 'b' has a share of the mix but its files hold no token"):
        order_of({"a": 16, "b": 0}, {"a": 1.0, "b": 1.0})


def test_a_stream_reads_across_files_and_its_end(tmp_path: Path) -> None:
    bounds = (0, 37, 37, 77)
    files = []
    for number, (start, end) in enumerate(pairwise(bounds)):
        np.arange(start, end).astype("<u4").tofile(tmp_path / f"{number}.bin")
        files.append(str(tmp_path / f"{number}.bin"))
    stream = TokenStream(files)
    for start in (0, 30, 60, 77 * 5 + 70):
        assert stream.read(start, 40).tolist() == [token % 77 for token in range(start, start + 40)]


def test_a_truncated_token_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "cut.bin"
    path.write_bytes(b"12345")
    with pytest.raises(ValueError, match=r"cut.bin: 5 bytes is not a whole number"):
        TokenStream([str(path)])


def plan(total: int, shares: dict[str, float], sizes: dict[str, int], unit: int = 16, *changes: Mixture) -> DataPlan:
    streams = {domain: Stream(tokens=tokens, digest="same") for domain, tokens in sizes.items()}
    ramp = (Stage(batch_tokens=2 * unit, seq_len=unit),)
    mixtures = (Mixture(shares=shares), *changes)
    return DataPlan(run="", schedule="wsd", seed=3, total_tokens=total, ramp=ramp, mixtures=mixtures, streams=streams)


BEFORE = Position(step=20, tokens=640)
SIZES = {"a": 500, "b": 333}


def test_a_branch_that_changes_nothing_reads_on_in_its_parent_s_order():
    parent = plan(10_000, {"a": 0.75, "b": 0.25}, SIZES, 16, Mixture(from_tokens=800, shares={"a": 1.0}))
    again = plan(5_000, {"a": 3.0, "b": 1.0}, SIZES, 16, Mixture(from_tokens=800, shares={"a": 2.0})).branched(parent, BEFORE)
    twice = plan(6_000, {"a": 2.0}, SIZES).branched(again, Position(step=30, tokens=960))
    for position in range(960, 5_000, 16):
        expected = parent.order().piece(position, 16)
        assert again.order().piece(position, 16) == twice.order().piece(position, 16) == expected
    assert again.step_at(BEFORE.tokens - 1) is None
    assert again.step_at(BEFORE.tokens).index == BEFORE.step


@pytest.mark.parametrize("unit", [16, 32])
def test_a_branch_with_another_mixture_goes_on_in_each_domain_where_its_parent_had_come_to(unit: int):
    parent = plan(BEFORE.tokens, {"a": 0.75, "b": 0.25}, SIZES)
    branch = plan(BEFORE.tokens + 1280, {"a": 0.2, "b": 0.8}, SIZES, unit).branched(parent, BEFORE)
    seen = consumed(parent.order(), BEFORE.tokens, 16)
    order = branch.order()
    for position in range(BEFORE.tokens, branch.tokens, unit):
        piece = order.piece(position, unit)
        seen[piece.domain].update(range(piece.start, piece.start + piece.tokens))
    assert {domain: sum(counts.values()) for domain, counts in seen.items()} == {
        domain: pytest.approx(tokens, abs=unit) for domain, tokens in order.read_until(branch.tokens).items()
    }
    if unit == 16:  # windows are the same: over whole epochs, each token once
        for domain, size in SIZES.items():
            whole = sum(seen[domain].values()) // size * size
            assert all(seen[domain][token] == 1 for token in range(whole))


@pytest.mark.parametrize("unit", [16, 32])
def test_the_inverse_of_a_branch_finds_what_a_scan_of_it_finds(unit: int):
    parent = plan(BEFORE.tokens, {"a": 0.75, "b": 0.25}, SIZES)
    branch = plan(BEFORE.tokens + 1920, {"a": 0.4, "b": 0.6}, SIZES, unit).branched(parent, BEFORE)
    order = branch.order()
    scan = {}
    for position in range(BEFORE.tokens, branch.tokens, unit):
        piece = order.piece(position, unit)
        for token in range(piece.tokens):
            scan.setdefault((piece.domain, (piece.start + token) % SIZES[piece.domain]), []).append(position + token)
    for domain, size in SIZES.items():
        for start in range(0, size, 37):
            found = [place for place in order.occurrences(domain, start, 1, branch.tokens) if place.position is not None]
            inside = [place.position for place in found if place.position < branch.tokens]
            assert inside == sorted(scan.get((domain, start), []))


@pytest.mark.parametrize("case", range(200))
def test_a_branch_with_another_unit_finds_every_token_of_a_tiny_domain_in_its_run_or_behind_it(case: int) -> None:
    """Its first whole window may lie epochs behind the place that its parent had come to."""
    draw = random.Random(case)
    unit, sizes = draw.choice([4, 8, 32]), {domain: draw.randint(1, 40) for domain in "ab"}
    before = {domain: draw.randint(0, 200) for domain in sizes}
    start, units = draw.randint(0, 500), draw.randint(1, 12)
    order = DataOrder(sizes, [Mixture(shares={"a": 1.0, "b": draw.choice([0.1, 1.0, 3.0])})], unit, case, start, before)
    end = start + units * unit
    scan: dict[tuple[str, int], list[int]] = {}
    for position in range(start, end + 200 * unit, unit):
        piece = order.piece(position, unit)
        for offset in range(unit):
            scan.setdefault((piece.domain, (piece.start + offset) % sizes[piece.domain]), []).append(position + offset)
    for (domain, token), expected in scan.items():
        found = [position for _, position in order.occurrences(domain, token, 1, end) if position is not None]
        assert [position for position in found if position < end] == [position for position in expected if position < end]
        assert found[0] == expected[0]
    assert len(scan) == sum(sizes.values())
