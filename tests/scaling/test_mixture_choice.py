import numpy as np
import pyarrow as pa
import pytest

from l3_platform.mix.data_mix import DOMAINS
from l3_platform.scaling.mixture import MixtureError
from l3_platform.scaling.mixture_choice import choose_mixture, mixture_of, predicted_target, target_weights
from l3_platform.scaling.mixture_runs import RUNS, natural_mixture, sampled_mixtures
from l3_platform.settings import load

AVAILABLE = {"general": 600_000, "math": 200_000, "code": 150_000, "multilingual": 50_000}


def runs(count: int = 40, missing: str = "", diverged: int = 0) -> pa.Table:
    """Losses that fall with the domain's own share, each by a law of its own; no noise."""
    rows = []
    for number, shares in enumerate(sampled_mixtures(natural_mixture(AVAILABLE), count, 6.0, seed=3)):
        row = {"point": f"p{number}", "mixture": f"m{number}", "seed": 1, "params": 1, "tokens": 1, "train_loss": 1.0}
        row |= {f"share_{domain}": shares[domain] for domain in DOMAINS}
        row |= {f"loss_{domain}": 3.0 + np.exp(-(2 + place) * shares[domain]) for place, domain in enumerate(DOMAINS)}
        row |= {f"loss_{missing}": None} if missing else {}
        row |= {f"loss_{domain}": float("nan") for domain in DOMAINS} if number < diverged else {}
        rows.append(row)
    return pa.Table.from_pylist(rows, schema=RUNS)


def choose(table: pa.Table | None = None, *overrides: str):
    settings = load("demo", overrides)
    return choose_mixture(runs() if table is None else table, AVAILABLE, settings, methods=("linear", "exponential"))


def test_the_found_mixture_is_predicted_to_beat_the_others():
    predicted = predicted_target(choose().candidates)
    assert predicted["found"] < predicted["natural"] and predicted["found"] < predicted["settings"]


def test_the_mixtures_side_by_side_sum_to_one():
    candidates = choose().candidates
    for mixture in ("found", "natural", "settings"):
        assert sum(mixture_of(candidates, mixture).values()) == pytest.approx(1.0)
    assert mixture_of(candidates, "natural")["general"] == 0.6


def test_no_domain_is_repeated_more_than_the_bound_allows():
    table = choose(None, 'mixture.target={"multilingual": 1.0}', "mix.max_epochs=2").candidates
    assert mixture_of(table, "found")["multilingual"] == pytest.approx(0.1, abs=1e-6)


def test_a_longer_final_run_leaves_a_rare_domain_a_smaller_share():
    share = {
        tokens: mixture_of(
            choose(None, 'mixture.target={"multilingual": 1.0}', "mix.max_epochs=2", f"mixture.final_tokens={tokens}").candidates,
            "found",
        )["multilingual"]
        for tokens in (1_000_000, 1_500_000)
    }
    assert share[1_500_000] < 0.7 * share[1_000_000]


def test_a_run_longer_than_all_repetitions_gets_the_natural_mixture_and_a_note():
    choice = choose(None, "mixture.final_tokens=9000000")
    assert mixture_of(choice.candidates, "found") == pytest.approx(mixture_of(choice.candidates, "natural"))
    assert "repeat every domain" in choice.notes[0]


def test_the_target_decides_which_domain_is_served():
    shares = {
        domain: mixture_of(choose(None, f'mixture.target={{"{domain}": 0.9, "general": 0.1}}').candidates, "found")[domain]
        for domain in ("math", "code")
    }
    natural = natural_mixture(AVAILABLE)
    assert shares["math"] > 2 * natural["math"] and shares["code"] > 2 * natural["code"]


def test_a_domain_of_which_nothing_is_held_out_has_no_part_in_the_target_and_that_is_said():
    choice = choose(runs(missing="multilingual"))
    assert target_weights(choice.candidates) == pytest.approx({"general": 0.5 / 0.92, "math": 0.25 / 0.92, "code": 0.17 / 0.92})
    assert "multilingual" in choice.notes[0]


def test_each_method_is_judged_on_runs_it_had_not_seen_and_the_best_is_chosen():
    table = choose().methods.to_pylist()
    for domain in DOMAINS:
        rows = [row for row in table if row["domain_group"] == domain]
        (chosen,) = [row for row in rows if row["chosen"]]
        assert chosen["error"] == min(row["error"] for row in rows) < 0.2 * chosen["spread"]


def test_every_run_has_a_prediction_made_before_it_was_seen():
    choice = choose(runs(diverged=2))
    rows = [row for row in choice.unseen.to_pylist() if row["domain_group"] == "math"]
    assert len(rows) == 38
    assert np.corrcoef([row["seen"] for row in rows], [row["predicted"] for row in rows])[0, 1] > 0.95


def test_too_few_runs_left_are_refused_in_words():
    with pytest.raises(MixtureError, match="9 runs are too few"):
        choose(runs(count=12, diverged=3))


def test_a_target_that_is_no_domain_is_refused_in_words():
    with pytest.raises(MixtureError, match="'poetry' is none of"):
        choose(None, 'mixture.target={"poetry": 1}')
