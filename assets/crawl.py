"""crawl: what the web looked like, as WARC files. A partition a snapshot."""

from l3_platform.crawl.fetch import build_raw_crawl
from l3_platform.orchestration.stage import Build, Built, Check, Made, Verdict, stage_asset


def _not_empty(made: Made) -> Verdict:
    table = made.dataset.read(["bytes"])
    total = sum(table["bytes"].to_pylist())
    return Verdict(table.num_rows > 0 and total > 0, {"files": table.num_rows, "bytes": total})


@stage_asset(
    group="crawl",
    kinds={"warc"},
    checks=[Check("crawl_is_not_empty", _not_empty, blocking=True, description="at least one file, and bytes in it")],
)
def raw_crawl(build: Build) -> Built:
    """WARC files of a snapshot, listed by the source, fetched with resume and digest check, one shard a file."""
    return build_raw_crawl(build.partition, build.out, build.settings), {}
