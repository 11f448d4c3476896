"""The composition root: everything Dagster loads, on one screen."""

import dagster as dg

from assets import candidates, clean, crawl, dedup, evaluate, mix, mixture, pretrain, quality, scaling
from jobs.rebuild import clean_snapshot, judge_candidates, new_snapshots, rebuild, weekly_rebuild
from jobs.retention import nightly_retention, retention
from l3_platform.orchestration.resources import Platform, Tracking
from l3_platform.orchestration.stage import with_settings


@dg.definitions
def definitions() -> dg.Definitions:
    settings = Platform().settings
    assets = dg.load_assets_from_modules([crawl, clean, dedup, quality, mix, mixture, candidates, scaling, pretrain, evaluate])
    return dg.Definitions(
        assets=with_settings(assets, settings),
        jobs=[rebuild, judge_candidates, clean_snapshot, retention],
        schedules=[weekly_rebuild, nightly_retention],
        sensors=[new_snapshots],
        resources={"platform": Platform(), "tracking": Tracking(experiment=settings.mlflow.experiment)},
    )
