"""Old versions of datasets and their checkpoints go; the newest few of each always stay."""

import dagster as dg

from l3_platform import retention as versions
from l3_platform.orchestration.resources import Platform


@dg.op(description="Remove versions beyond retention.versions that are older than retention.days.")
def remove_old_versions(context: dg.OpExecutionContext, platform: Platform) -> int:
    removed = versions.remove_old(platform.settings)
    context.log.info(f"removed {len(removed)} old versions: {', '.join(removed) or 'none'}")
    return len(removed)


@dg.job(description="Free the disk of old dataset versions.")
def retention() -> None:
    remove_old_versions()


nightly_retention = dg.ScheduleDefinition(name="nightly_retention", job=retention, cron_schedule="0 2 * * *")
