"""The rebuild: all assets in one run, for the UI, the weekly schedule and `l3 run` alike; and the sensor for new snapshots."""

import dagster as dg

from l3_platform.orchestration.instance import register, spanning
from l3_platform.orchestration.resources import SNAPSHOTS, Platform

# A step process costs an import of the code location. Forked from a server that has imported it, a step starts in 0.3 s.
EXECUTION = {
    "execution": {
        "config": {
            "multiprocess": {
                "max_concurrent": 2,
                "start_method": {"forkserver": {"preload_modules": ["jobs.definitions", "pyarrow.parquet", "duckdb"]}},
            }
        }
    }
}

CANDIDATES = dg.AssetSelection.groups("data_value")

rebuild = dg.define_asset_job(
    "rebuild",
    selection=dg.AssetSelection.all() - CANDIDATES,
    config=EXECUTION,
    description="Everything, from the raw crawl to the evaluation. What is unchanged is found, not made again.",
)

# A run has one kind of partition, and the rebuild's are snapshots.
judge_candidates = dg.define_asset_job(
    "judge_candidates",
    selection=CANDIDATES,
    config=EXECUTION,
    description="The value of candidate sets, from what the rebuild has made. Half a training is made once and shared.",
)

clean_snapshot = dg.define_asset_job(
    "clean_snapshot",
    selection=dg.AssetSelection.groups("crawl", "clean"),
    config=EXECUTION,
    description="Crawl and clean one snapshot.",
)


@dg.schedule(job=rebuild, cron_schedule="0 3 * * 0", execution_timezone="UTC")
def weekly_rebuild(context: dg.ScheduleEvaluationContext, platform: Platform) -> dg.RunRequest:
    """Sundays at 3: rebuild from what the sources hold by then. Off until somebody turns it on."""
    snapshots = list(platform.catalog().snapshots)
    register(context.instance, "snapshots", snapshots)
    return dg.RunRequest(tags=spanning(snapshots))


@dg.sensor(job=clean_snapshot, minimum_interval_seconds=3600)
def new_snapshots(context: dg.SensorEvaluationContext, platform: Platform) -> dg.SensorResult | dg.SkipReason:
    """A source has a snapshot that is no partition yet: add it and start its clean stages."""
    known = set(context.instance.get_dynamic_partitions("snapshots"))
    new = [snapshot for snapshot in platform.catalog().snapshots if snapshot not in known]
    if not new:
        return dg.SkipReason(f"all {len(known)} snapshots of the source are partitions already")
    return dg.SensorResult(
        run_requests=[dg.RunRequest(run_key=snapshot, partition_key=snapshot) for snapshot in new],
        dynamic_partitions_requests=[SNAPSHOTS.build_add_request(new)],
    )
