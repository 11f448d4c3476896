import csv

import numpy as np
import pytest

from l3_platform.scaling.mixture import METHODS, MixtureError, best_mixture, fit_mixture_law, regress, spearman

NATURAL = np.array([0.6, 0.25, 0.1, 0.05])


def runs(count=80, noise=0.0, seed=0):
    """Mixtures around NATURAL, and a loss that has its minimum inside the simplex."""
    random = np.random.default_rng(seed)
    shares = random.dirichlet(4 * NATURAL + 0.3, count)
    return shares, truth(shares) + noise * random.standard_normal(count)


def truth(shares):
    return 3.0 + 0.4 * np.exp(-6 * shares[:, 1]) + 0.3 * np.exp(-8 * shares[:, 2]) + 0.5 * np.exp(-3 * shares[:, 0])


def read(path):
    rows = list(csv.reader(path.read_text().splitlines()))
    return rows[0][1:], np.array([[float(value) for value in row[1:]] for row in rows[1:]])


@pytest.fixture(scope="module")
def regmix(shared_data):
    """Pile-CC's loss of 512 runs at 1M, and the law of them; the tests at three sizes."""
    folder = shared_data / "scaling" / "regmix"
    _, shares = read(folder / "train_mixture_1m.csv")
    names, losses = read(folder / "train_pile_loss_1m.csv")
    column = next(index for index, name in enumerate(names) if "pile_cc" in name)
    tests = {
        size: (read(folder / f"test_mixture_{size}.csv")[1], read(folder / f"test_pile_loss_{size}.csv")[1][:, column])
        for size in ("1m", "60m", "1B")
    }
    return shares, losses[:, column], fit_mixture_law(shares, losses[:, column]), tests


@pytest.mark.exhaustive
@pytest.mark.parametrize(("size", "bar"), [("1m", 0.985), ("60m", 0.98), ("1B", 0.955)])
def test_the_order_of_regmix_s_unseen_mixtures_is_predicted_at_every_size(regmix, size, bar):
    _, _, law, tests = regmix
    shares, loss = tests[size]
    assert spearman(law.predict(shares), loss) >= bar


@pytest.mark.exhaustive
def test_the_mixture_found_beats_the_best_that_regmix_trained(regmix):
    shares, loss, law, _ = regmix
    _, predicted = best_mixture(law, shares.mean(axis=0))
    assert predicted < law.predict(shares).min()
    assert predicted < loss.min()


@pytest.mark.parametrize("method", METHODS)
def test_every_law_orders_unseen_mixtures(method):
    tilt = np.array([0.2, -1.5, -0.6, 0.9])
    (seen, _), (unseen, _) = runs(), runs(seed=1)
    law = regress(method, seen, 2.0 + np.exp(seen @ tilt))
    assert spearman(law.predict(unseen), unseen @ tilt) > 0.95


def test_the_method_is_chosen_by_runs_it_has_not_seen():
    shares, _ = runs()
    law = fit_mixture_law(shares, 2.0 + shares @ np.array([0.1, -0.7, 0.3, 0.5]))
    assert law.method == "linear"
    assert law.error["linear"] == min(law.error.values())


def test_the_minimum_of_a_known_surface_is_found():
    law = fit_mixture_law(*runs(120), methods=("process",))
    found, _ = best_mixture(law, NATURAL)
    grid = np.random.default_rng(3).dirichlet(np.ones(4), 200_000)
    assert truth(found[None])[0] <= truth(grid).min() + 0.01
    assert truth(found[None])[0] < truth(NATURAL[None])[0]


def test_no_share_exceeds_what_the_data_at_hand_can_give():
    most = np.array([1.0, 0.3, 0.08, 0.05])
    found, _ = best_mixture(fit_mixture_law(*runs(), methods=("linear", "process")), NATURAL, most)
    assert (found <= most + 1e-9).all()
    assert found.sum() == pytest.approx(1.0)


def test_several_targets_are_weighed():
    shares, _ = runs(120)
    first, second = (fit_mixture_law(shares, 3.0 - shares[:, domain], methods=("linear",)) for domain in (1, 2))
    mostly_first, _ = best_mixture([(0.9, first), (0.1, second)], NATURAL)
    mostly_second, _ = best_mixture([(0.1, first), (0.9, second)], NATURAL)
    assert mostly_first[1] > mostly_second[1]


@pytest.mark.parametrize(
    ("shares", "loss", "message"),
    [
        (np.full((20, 3), -1.0), np.ones(20), "none negative"),
        (np.ones((20, 3)), np.ones(19), "20 mixtures but 19"),
        (np.ones((4, 3)), np.ones(4), "too few"),
    ],
)
def test_runs_without_a_law_are_refused_in_words(shares, loss, message):
    with pytest.raises(MixtureError, match=message):
        fit_mixture_law(shares, loss)


def test_bounds_that_leave_no_mixture_are_refused_in_words():
    with pytest.raises(MixtureError, match=r"sum to 0\.40 only"):
        best_mixture(fit_mixture_law(*runs(), methods=("linear",)), NATURAL, np.full(4, 0.1))
