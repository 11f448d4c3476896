"""`l3`: the platform from a terminal. Every command imports what it needs when it is called, so `--help` is instant."""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from l3_platform import settings as settings_module

if TYPE_CHECKING:
    from l3_platform.lineage import Catalog

app = typer.Typer(
    name="l3",
    help="Rebuild how Llama 3 was made: raw crawl to trained, evaluated checkpoint, every artifact a Dagster asset.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

Profile = Annotated[str, typer.Option("--profile", "-p", help="A profile: demo, one-gpu, llama3-8b, llama3-70b, llama3-405b.")]
Source = Annotated[str, typer.Option("--source", "-s", help="Where raw pages come from: demo, files or common_crawl.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a setting, such as dedup.threshold=0.7."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def _overrides(source: str, overrides: list[str] | None) -> list[str]:
    return [*([f"crawl.source={source}"] if source else []), *(overrides or [])]


@app.command()
def demo(profile: Profile = "demo", overrides: Set = None) -> None:
    """Run everything on the built-in small web, and end with the report. No network needed."""
    _run(profile, _overrides("demo", overrides), select="*")


@app.command()
def run(
    profile: Profile = "demo",
    source: Source = "",
    overrides: Set = None,
    select: Annotated[str, typer.Option(help="Assets to materialize, in Dagster's selection syntax.")] = "*",
) -> None:
    """Run the rebuild job here, without the UI; it is the same job, and the UI shows it."""
    _run(profile, _overrides(source, overrides), select)


def _run(profile: str, overrides: list[str], select: str) -> None:
    from l3_platform.engine import local

    if select.startswith("*") and settings_module.load(profile, overrides).engine.backend == "local":
        local.start("l3_platform.preload")  # curation's workers get ready while Dagster is imported, which takes as long

    from l3_platform.orchestration import headless, report

    outcome = headless.run(profile, overrides, select)
    if outcome.success:
        report.show(report.collect(profile, overrides), sys.stdout)
        return
    for line in outcome.errors:
        typer.secho(line, fg="red", err=True)
    raise typer.Exit(1)


@app.command()
def up(
    profile: Profile = "demo",
    source: Source = "",
    overrides: Set = None,
    port: Annotated[int, typer.Option(help="Port of the Dagster web UI.")] = 3000,
    mlflow_port: Annotated[int, typer.Option(help="Port of the MLflow server.")] = 5000,
) -> None:
    """Serve the Dagster UI and MLflow on 127.0.0.1 until Ctrl-C, which ends all that was started."""
    from l3_platform.orchestration import headless

    headless.serve(profile, _overrides(source, overrides), port, mlflow_port)


@app.command()
def report(profile: Profile = "demo", source: Source = "", overrides: Set = None, as_json: AsJson = False) -> None:
    """Show the funnel from records to tokens, every check, and the losses."""
    from l3_platform.orchestration import instance, report

    instance.prepare_home()
    collected = report.collect(profile, _overrides(source, overrides))
    if as_json:
        typer.echo(report.as_json(collected))
    else:
        report.show(collected, sys.stdout)


@app.command()
def why(
    url: Annotated[str, typer.Argument(help="URL or doc_id of a page of the crawl.")],
    profile: Profile = "demo",
    source: Source = "",
    overrides: Set = None,
    as_json: AsJson = False,
) -> None:
    """Tell the story of a page: what each stage saw in it, and what kept or dropped it."""
    from l3_platform import why

    told = why.of(url, _catalog(settings_module.load(profile, _overrides(source, overrides))))
    typer.echo(why.as_json(told) if as_json else why.as_text(told))
    if not told.found:
        raise typer.Exit(1)


@app.command()
def trained_on(
    asked: Annotated[
        list[str],
        typer.Argument(
            metavar="[CHECKPOINT] URL",
            help="A checkpoint's, run's or exported model's folder, or `pretrained` or `annealed` (default: the newest of all); "
            "then the URL or doc_id of a page.",
        ),
    ],
    profile: Profile = "demo",
    source: Source = "",
    overrides: Set = None,
    as_json: AsJson = False,
) -> None:
    """Say whether a model was trained on a page, at which steps, and on which of its tokens; or why not."""
    from l3_platform import trained_on as telling

    if len(asked) > 2:
        raise settings_module.SettingsError(f"trained-on takes a checkpoint and a URL, or a URL alone (got {len(asked)} arguments)")
    *checkpoint, url = asked
    catalog = _catalog(settings_module.load(profile, _overrides(source, overrides)))
    exposure = telling.of(url, "".join(checkpoint), catalog)
    typer.echo(telling.as_json(exposure) if as_json else telling.as_text(exposure))
    if exposure.verdict == "unknown":
        raise typer.Exit(1)


@app.command()
def sweep(
    variations: Annotated[list[str], typer.Argument(metavar="KEY=VALUE,VALUE...", help="Thresholds to try; several make a grid.")],
    profile: Profile = "demo",
    source: Source = "",
    overrides: Set = None,
    documents: Annotated[
        int, typer.Option(min=1, help="Judge about this many documents, an even sample of the corpus.")
    ] = 1_000_000,
    as_json: AsJson = False,
) -> None:
    """Say what other thresholds would keep, from the scores as they are: nothing is built."""
    from l3_platform import sweep as sweeping

    chosen = _overrides(source, overrides)
    catalog = _catalog(settings_module.load(profile, chosen))
    swept = sweeping.sweep(variations, catalog, lambda more: settings_module.load(profile, [*chosen, *more]), documents)
    typer.echo(sweeping.as_json(swept) if as_json else sweeping.as_text(swept))


def _catalog(settings: settings_module.Settings) -> Catalog:
    """As an asset sees it, without Dagster, which takes seconds to import."""
    from l3_platform.crawl import sources
    from l3_platform.lineage import Catalog

    source = sources.from_settings(settings.crawl)
    return Catalog(settings, source.snapshots(), source.identity)


@app.command()
def fit(
    runs: Annotated[Path, typer.Argument(help="CSV with a header: params, tokens, loss, and flops where they are not 6·N·D.")],
    budget: Annotated[float, typer.Option(help="FLOPs to plan for.")] = 3.8e25,
    method: Annotated[str, typer.Option(help="parabola (IsoFLOP), huber or vpnls (both L(N, D)).")] = "parabola",
    drop_highest: Annotated[int, typer.Option(min=0, help="Leave out so many runs of the highest loss, as outliers.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Fit scaling laws to a table of runs, yours or anyone's: the best model of a budget, with 90 % intervals."""
    from l3_platform.scaling import fit as laws

    found = laws.fit(laws.without_highest(laws.read_runs(runs), drop_highest), budget, method)  # type: ignore[arg-type]
    typer.echo(found.model_dump_json(indent=2) if as_json else laws.as_text(found))


@app.command()
def plan(
    profile: Profile = "llama3-405b",
    gpus: Annotated[int, typer.Option(min=0, help="H100s; default: train.nodes times train.processes_per_node.")] = 0,
    seq_len: Annotated[int, typer.Option(min=0, help="Tokens a sequence; default: the last stage of train.ramp.")] = 0,
    overrides: Set = None,
    as_json: AsJson = False,
) -> None:
    """Propose the mesh to train a profile's model on so many H100s: memory a GPU, MFU, and what binds."""
    from l3_platform.planner import report as planner

    found = planner.plan(settings_module.load(profile, overrides or []), gpus, seq_len)
    typer.echo(planner.as_json(found) if as_json else planner.as_text(found))


@app.command()
def manifest(
    asset: Annotated[str, typer.Argument(help="The training: pretrained, long_context or annealed.")] = "pretrained",
    profile: Profile = "demo",
    overrides: Set = None,
) -> None:
    """Print what train.launcher would submit: a script for sbatch, a JobSet for kubectl, or the agents' commands."""
    from l3_platform.launch.dry_run import submission
    from l3_platform.trained import ASSETS

    if asset not in ASSETS:
        raise settings_module.SettingsError(f"{asset!r} is no training{settings_module.nearest(asset, ASSETS)}")
    folder = settings_module.home() / "checkpoints" / f"{asset}-FINGERPRINT"
    typer.echo(submission(settings_module.load(profile, overrides or []), folder), nl=False)


@app.command()
def doctor() -> None:
    """Say what is missing on this machine, in words."""
    from l3_platform import doctor

    findings = doctor.examine()
    for finding in findings:
        typer.echo(f"{'ok  ' if finding.ok else 'MISS' if finding.needed else 'note'} {finding.text}")
    if any(finding.needed and not finding.ok for finding in findings):
        raise typer.Exit(1)


@app.command()
def clean(profile: Profile = "demo", overrides: Set = None) -> None:
    """Remove old versions of datasets, as retention.versions and retention.days say."""
    from l3_platform import retention

    removed = retention.remove_old(settings_module.load(profile, overrides or []))
    typer.echo("\n".join(removed) or "nothing is old enough to remove")


def main() -> None:
    """The `l3` command: a user's mistake is one sentence, never a traceback."""
    status = [1]  # of a bug, whose traceback Python prints
    atexit.register(_leave, status)  # first, hence the last to run
    try:
        status[0] = _status()
    except KeyboardInterrupt:
        status[0] = 130
    except Exception as error:
        sentence = _sentence(error)
        if not sentence:
            raise
        typer.secho(f"l3: {sentence}", fg="red", err=True)
    raise SystemExit(status[0])


def _status() -> int:
    try:
        app(standalone_mode=True)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


def _leave(status: list[int]) -> None:
    """To take Dagster's objects down one by one would be a second in which nothing is left to do."""
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # closed, or nobody reads it any more
            stream.flush()
    os._exit(status[0])


def _sentence(error: Exception) -> str:
    """What to tell a person; empty for a bug, whose traceback is wanted."""
    from l3_platform.crawl.sources import CrawlError
    from l3_platform.store import Locked, MissingDataset, StoreError, files

    kinds = (settings_module.SettingsError, CrawlError, Locked, MissingDataset, StoreError)
    if isinstance(error, kinds) or type(error).__name__ in ("ServiceError", "FitError", "PlanError"):
        return str(error)
    home = settings_module.home()
    return f"{home}: {files.DISK_IS_FULL}; {files.AFTER_FULL}" if files.for_lack_of_space(error, home) else ""


if __name__ == "__main__":
    sys.path.insert(0, str(Path.cwd()))
    main()
