"""Measures of a classifier against scikit-learn's and against cases that are plain."""

from xml.etree import ElementTree

import numpy as np
import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import roc_auc_score

from l3_platform.quality.calibration import BINS, expected_calibration_error, reliability, roc_auc
from l3_platform.quality.plot import calibration_chart, scores_chart


def drawn(count: int = 5000, seed: int = 1):
    random = np.random.default_rng(seed)
    scores = random.random(count).astype(np.float32)
    return random.random(count) < scores, scores


def test_roc_auc_is_that_of_scikit_learn():
    truth, scores = drawn(500)
    scores = np.round(scores, 1)
    assert roc_auc(truth, scores) == pytest.approx(roc_auc_score(truth, scores))


def test_the_reliability_diagram_is_that_of_scikit_learn():
    truth, scores = drawn()
    shares, means = calibration_curve(truth, scores, n_bins=BINS)
    rows = reliability(truth, scores)
    assert [row["positive_share"] for row in rows] == pytest.approx(shares, abs=1e-4)
    assert [row["mean_score"] for row in rows] == pytest.approx(means, abs=1e-4)


def test_honest_probabilities_have_almost_no_calibration_error():
    assert expected_calibration_error(reliability(*drawn())) < 0.02


def test_the_calibration_error_of_sure_and_half_wrong_is_a_half():
    truth, scores = np.array([True, False] * 50), np.ones(100)
    assert expected_calibration_error(reliability(truth, scores)) == pytest.approx(0.5)


def test_empty_bins_are_shown_as_empty():
    rows = reliability(np.array([True, False]), np.array([1.0, 0.0]))
    assert [row["documents"] for row in rows] == [1, *[0] * 8, 1]
    assert rows[4]["mean_score"] is None


@pytest.mark.parametrize("scores", [[0.0, 1.0], [0.5, 0.5]])
def test_the_charts_are_small_pictures_also_of_few_documents(scores):
    scores = np.array(scores, np.float32)
    bins = reliability(np.array([False, True]), scores)
    charts = [calibration_chart(bins, "code", "a\nb\nc"), scores_chart(scores, [0.5] * 9, "code", None)]
    for chart in charts:
        assert float(ElementTree.fromstring(chart).attrib["width"]) >= 400 and len(chart) < 100_000
