import pytest

from l3_platform.mix.data_mix import DOMAINS, capped_shares, data_mix
from l3_platform.settings import Mix, MixChange

PLENTY = dict.fromkeys(DOMAINS, 10**9)


def shares(phase: str, available, total=1_000_000) -> dict[str, float]:
    rows = data_mix(available, Mix(), total, total).to_pylist()
    return {row["domain_group"]: row["share"] for row in rows if row["phase"] == phase}


def test_with_plenty_of_data_the_shares_are_the_paper_s():
    expected = {"general": 0.50, "math": 0.25, "code": 0.17, "multilingual": 0.08}
    assert shares("pretrain", PLENTY) == pytest.approx(expected)


def test_annealing_has_its_own_shares():
    expected = {"general": 0.30, "math": 0.40, "code": 0.25, "multilingual": 0.05}
    assert shares("anneal", PLENTY) == pytest.approx(expected)


def test_a_scarce_domain_stops_at_max_epochs():
    rows = data_mix(PLENTY | {"math": 10_000}, Mix(), 1_000_000, 0).to_pylist()
    assert rows[1]["epochs"] == pytest.approx(4.0)


def test_what_a_scarce_domain_leaves_goes_to_the_others_in_proportion():
    got = shares("pretrain", PLENTY | {"math": 10_000})
    assert got["general"] / got["code"] == pytest.approx(0.50 / 0.17)
    assert got["general"] == pytest.approx(0.96 * 0.50 / 0.75)


def test_a_domain_pushed_over_its_cap_by_another_is_capped_too():
    available = {"general": 140_000, "math": 0, "code": 10**9, "multilingual": 10**9}
    got = shares("pretrain", available)
    assert got["general"] == pytest.approx(0.56)
    assert got["code"] / got["multilingual"] == pytest.approx(0.17 / 0.08)


def test_a_domain_without_tokens_gets_nothing():
    assert shares("pretrain", PLENTY | {"code": 0})["code"] == 0.0


@pytest.mark.parametrize("scale", [1, 1000, 10**5, 10**7])
def test_shares_sum_to_one_and_tokens_to_the_phase(scale):
    available = {"general": 7 * scale, "math": scale, "code": 3 * scale, "multilingual": 0}
    rows = data_mix(available, Mix(), 1_234_567, 98_765).to_pylist()
    for phase, total in (("pretrain", 1_234_567), ("anneal", 98_765)):
        own = [row for row in rows if row["phase"] == phase]
        assert sum(row["share"] for row in own) == pytest.approx(1.0, abs=1e-12)
        assert sum(row["tokens"] for row in own) == total


def test_too_little_of_everything_is_repeated_equally():
    available = {"general": 1000, "math": 3000, "code": 10, "multilingual": 0}
    rows = data_mix(available, Mix(), 1_000_000, 0).to_pylist()
    assert [row["epochs"] for row in rows[:2]] == pytest.approx([249.4] * 2, rel=1e-3)


def test_no_cap_binds_when_a_phase_has_no_tokens():
    assert shares("anneal", PLENTY, total=0)["math"] == pytest.approx(0.40)


def test_nothing_available_is_an_error_that_says_where_to_look():
    with pytest.raises(ValueError, match=r"no domain with a share has any training tokens .* check token_shards"):
        data_mix({}, Mix(), 1000, 100)


def test_an_unknown_domain_is_named():
    with pytest.raises(ValueError, match="'poetry' is none of"):
        data_mix({"poetry": 5}, Mix(), 1000, 100)


def test_a_negative_share_is_refused_by_its_setting():
    with pytest.raises(ValueError, match=r"mix\.anneal_code"):
        data_mix(PLENTY, Mix(anneal_code=-0.1), 1000, 100)


def test_no_share_exceeds_its_ceiling_while_another_could_take_it():
    targets = {"a": 0.4, "b": 0.3, "c": 0.2, "d": 0.1}
    available = {"a": 10, "b": 5, "c": 50, "d": 500}
    (got,) = capped_shares([targets], available, 2.0, [100])
    assert got == pytest.approx({"a": 0.2, "b": 0.1, "c": 0.7 * 2 / 3, "d": 0.7 / 3})


MORE_MATHS = Mix(changes=(MixChange(from_tokens=600_000, multilingual=0.12), MixChange(from_tokens=900_000, math=0.5)))


def mixtures(available, mix=MORE_MATHS, total=1_000_000) -> dict[int, dict[str, dict]]:
    """Rows of pre-training by first token and domain."""
    rows = [row for row in data_mix(available, mix, total, 0).to_pylist() if row["phase"] == "pretrain"]
    return {
        row["from_tokens"]: {one["domain_group"]: one for one in rows if one["from_tokens"] == row["from_tokens"]} for row in rows
    }


def test_a_change_keeps_the_weights_that_it_does_not_name():
    rows = mixtures(PLENTY)
    assert list(rows) == [0, 600_000, 900_000]
    expected = {"general": 0.50, "math": 0.50, "code": 0.17, "multilingual": 0.12}
    got = {domain: row["share"] for domain, row in rows[900_000].items()}
    assert got == pytest.approx({domain: weight / 1.29 for domain, weight in expected.items()})


def test_each_mixture_has_its_own_tokens_and_they_sum_to_the_phase():
    rows = mixtures(PLENTY)
    assert [sum(row["tokens"] for row in by_domain.values()) for by_domain in rows.values()] == [600_000, 300_000, 100_000]


def test_a_domain_is_capped_over_all_mixtures_and_still_upsampled_late():
    rows = mixtures(PLENTY | {"math": 50_000})
    assert sum(by_domain["math"]["epochs"] for by_domain in rows.values()) == pytest.approx(4.0, abs=1e-3)
    ratio = rows[900_000]["math"]["share"] / rows[0]["math"]["share"]
    assert ratio == pytest.approx((0.5 / 1.29) / 0.25)


@pytest.mark.parametrize("scale", [1, 1000, 10**5, 10**7])
def test_every_mixture_s_shares_sum_to_one_whatever_is_scarce(scale):
    for by_domain in mixtures({"general": 7 * scale, "math": scale, "code": 3 * scale, "multilingual": 0}).values():
        assert sum(row["share"] for row in by_domain.values()) == pytest.approx(1.0, abs=1e-12)


def test_a_change_beyond_the_tokens_at_hand_has_shares_and_no_tokens():
    rows = mixtures(PLENTY, total=700_000)
    assert sum(row["tokens"] for row in rows[900_000].values()) == 0
    assert rows[900_000]["math"]["share"] == pytest.approx(0.5 / 1.29)


def test_changes_out_of_order_are_refused_by_their_setting():
    mix = Mix(changes=(MixChange(from_tokens=9, math=0.5), MixChange(from_tokens=9, math=0.6)))
    with pytest.raises(ValueError, match=r"mix\.changes: from_tokens must increase"):
        data_mix(PLENTY, mix, 1000, 100)


def test_a_mixture_of_nothing_is_refused_by_its_setting():
    nothing = MixChange(from_tokens=9, general=0.0, math=0.0, code=0.0, multilingual=0.0)
    with pytest.raises(ValueError, match=r"mix\.changes\[0\]\.\*: the shares of the mix are all 0"):
        data_mix(PLENTY, Mix(changes=(nothing,)), 1000, 100)


def test_a_found_mixture_stands_for_the_settings_in_pretraining_alone():
    found = {"general": 0.4, "math": 0.1, "code": 0.3, "multilingual": 0.2}
    rows = data_mix(PLENTY, Mix(), 1_000_000, 1_000_000, found).to_pylist()
    assert {row["domain_group"]: row["share"] for row in rows if row["phase"] == "pretrain"} == pytest.approx(found)
    assert {row["domain_group"]: row["share"] for row in rows if row["phase"] == "anneal"} == shares("anneal", PLENTY)
