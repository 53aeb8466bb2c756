"""`microcurrent dashboards …`: make Grafana's files, check them, and publish them to a Grafana."""

import os
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ingest.console import Json, out, print_json
from ingest.errors import Mistake, Unavailable
from ingest.settings import Store, load_settings, read_secret

if TYPE_CHECKING:
    from dashboards.check import Problem

dashboards_app = typer.Typer(no_args_is_help=True, help="The dashboards and alert rules for Grafana.")

Runbooks = Annotated[
    str | None,
    typer.Option(help="Address of the published docs/runbook.md; alerts then link to it. Without it they carry its text alone.", show_default=False),
]


@dashboards_app.command("build")
def dashboards_build(
    directory: Annotated[Path | None, typer.Option("--out", help="Where to write; the package's own directory when absent.", show_default=False)] = None,
    runbooks: Runbooks = None,
    as_json: Json = False,
) -> None:
    """Write the dashboards and the alerting files that a Grafana reads at its start.

    The same definitions give the same bytes. Dashboards and alerting files of other names are removed.
    """
    from dashboards.build import GENERATED, write

    target = directory or GENERATED
    try:
        written = write(target, _address(runbooks))
    except OSError as error:
        raise Mistake(f"{target}: cannot write there ({error.strerror})") from error
    if as_json:
        print_json([str(path) for path in written])
    else:
        for path in written:
            out.print(str(path), markup=False)


@dashboards_app.command("check")
def dashboards_check(
    directory: Annotated[Path | None, typer.Option("--dir", help="Files to check; the package's own when absent.", show_default=False)] = None,
    url: Annotated[str | None, typer.Option(help="InfluxDB that every question is asked of; the settings' one when MICROCURRENT_STORE=influxdb.", show_default=False)] = None,
    token_file: Annotated[Path | None, typer.Option(help="File with a token that may read there; the settings' one when absent.", show_default=False)] = None,
    database: Annotated[str | None, typer.Option(help="Its database for InfluxQL; the settings' bucket when absent.", show_default=False)] = None,
    runbooks: Runbooks = None,
    as_json: Json = False,
) -> None:
    """Tell what is wrong with the dashboards and alert rules, one line each; end with 1 if anything is.

    The files must be what the definitions make, and of keys and values that Grafana's model has; every variable,
    link, measurement and field must exist. Then every question is asked: of an InfluxDB, or else, those that the
    local page asks too, of an empty embedded store.
    """
    from dashboards.build import GENERATED
    from dashboards.catalogue import DASHBOARDS
    from dashboards.check import dashboards_problems, files_problems, rules_problems

    settings = load_settings()
    if url is None and settings.store is Store.INFLUXDB:
        url = settings.influx_url
    problems = [*files_problems(directory or GENERATED, _address(runbooks)), *dashboards_problems(DASHBOARDS), *rules_problems(DASHBOARDS)]
    if url is None:
        asked = "an empty embedded store"
        problems += _refused_by_duckdb()
    else:
        asked = f"InfluxDB at {url}"
        token = read_secret(token_file or settings.influx_read_token_file or settings.influx_token_file, "the InfluxDB token")
        problems += _refused_by_influxdb(url, database or settings.influx_bucket, token)
    _tell(problems, f"{len(DASHBOARDS)} dashboards and their alert rules are fit; asked {asked}", as_json)


@dashboards_app.command("publish")
def dashboards_publish(
    url: Annotated[str, typer.Option(help="Address of the Grafana, with the path before it if there is one.")],
    token_file: Annotated[Path, typer.Option(help="File with the token of a service account.")],
    folder: Annotated[str, typer.Option(help="Title of the folder.")] = "Microcurrent",
    datasource_uid: Annotated[str | None, typer.Option(help="Use this data source of that Grafana, and leave it as it is.", show_default=False)] = None,
    datasource_url: Annotated[str | None, typer.Option(help="Make (or put right) the data source: the InfluxDB as that Grafana reaches it.", show_default=False)] = None,
    datasource_token_file: Annotated[Path | None, typer.Option(help="File with a token by which Grafana may read there.", show_default=False)] = None,
    database: Annotated[str | None, typer.Option(help="Its database for InfluxQL; the settings' bucket when absent.", show_default=False)] = None,
    routing: Annotated[bool, typer.Option("--routing", help="Also set contact points and policy, by MICROCURRENT_ALERT_WEBHOOK_URL and MICROCURRENT_ALERT_EMAIL. REPLACES the organisation's policy.")] = False,
    runbooks: Runbooks = None,
    ca_file: Annotated[Path | None, typer.Option(help="Certificate authority of that Grafana.", exists=True, dir_okay=False, show_default=False)] = None,
    timeout: Annotated[float, typer.Option(min=1, max=600, help="How long one answer may take, in seconds.")] = 30.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only look, and tell what would be done.")] = False,
    as_json: Json = False,
) -> None:
    """Publish dashboards and alert rules to a Grafana that is there already, and have it run every panel.

    Only what differs is written, and each difference is told: done twice, the second changes nothing. What was
    changed by hand is put right. Ends with 1 if Grafana refuses something, or a panel fails there.
    """
    from dashboards.alerting import EMAIL_VARIABLE, WEBHOOK_VARIABLE
    from dashboards.catalogue import DASHBOARDS
    from dashboards.grafana import DATASOURCE_UID
    from dashboards.publish import Outcome, Wish, publish
    from dashboards.remote import Refused, Remote

    if datasource_uid and datasource_url:
        raise Mistake("--datasource-uid uses a data source that exists, --datasource-url makes one: give one of them")
    webhook, email = os.environ.get(WEBHOOK_VARIABLE), os.environ.get(EMAIL_VARIABLE)
    if routing and not (webhook or email):
        raise Mistake(f"--routing: nobody would be told; set {WEBHOOK_VARIABLE} or {EMAIL_VARIABLE}")
    wish = Wish(
        DASHBOARDS, folder, datasource_uid or DATASOURCE_UID, datasource_url, read_secret(datasource_token_file, "the data source's token"),
        database or load_settings().influx_bucket, _address(runbooks), webhook, email, routing,
    )  # fmt: skip
    steps = []
    try:
        remote = Remote(url, read_secret(token_file, "the Grafana token") or "", str(ca_file) if ca_file else None, timeout)
        for step in publish(remote, wish, dry_run, _now_ms()):
            steps.append(step)
            if not as_json and step.outcome is not Outcome.OK:
                would = "would be " if dry_run and step.outcome in (Outcome.CREATED, Outcome.UPDATED) else ""
                out.print(f"{step.what} {step.name}: {would}{step.outcome}{f' ({step.detail})' if step.detail else ''}", markup=False)
    except Refused as refused:
        if as_json:
            print_json({"error": str(refused), "steps": [step.to_json() for step in steps]})
        raise Mistake(str(refused), 1) from refused
    failed = sum(step.outcome is Outcome.FAILED for step in steps)
    if as_json:
        print_json({"error": None, "steps": [step.to_json() for step in steps]})
    else:
        ran = [step for step in steps if step.what == "panel"]
        out.print(f"{len(ran)} panels run: {sum(s.outcome is Outcome.OK for s in ran)} with data, {sum(s.outcome is Outcome.EMPTY for s in ran)} without, "
                  f"{sum(s.outcome is Outcome.FAILED for s in ran)} failed" if not dry_run else "nothing was written", markup=False)  # fmt: skip
    raise typer.Exit(1 if failed else 0)


def _tell(problems: "Iterable[Problem]", well: str, as_json: bool) -> None:
    found = list(problems)
    if as_json:
        print_json([problem._asdict() for problem in found])
    for problem in [] if as_json else found:
        out.print(f"{problem.where}: {problem.what}", markup=False)
    if not found and not as_json:
        out.print(well, markup=False)
    raise typer.Exit(1 if found else 0)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _refused_by_influxdb(url: str, database: str, token: str | None) -> "Iterator[Problem]":
    from dashboards.catalogue import DASHBOARDS
    from dashboards.check import answers_problems
    from ingest.influxql import InfluxQL

    return answers_problems(DASHBOARDS, InfluxQL(url, database, token).refusal, _now_ms())


def _refused_by_duckdb() -> "Iterator[Problem]":
    """Syntax and types show on empty tables as well."""
    from dashboards.catalogue import DASHBOARDS
    from dashboards.check import Problem, views
    from dashboards.query import sql
    from ingest.sinks.duckdb import DuckDBSink

    with tempfile.TemporaryDirectory() as directory:
        sink = DuckDBSink(Path(directory))
        sink.open("check")
        reader = sink.reader()
        try:
            for dashboard in DASHBOARDS:
                for panel in dashboard.panels():
                    made = (sql(query, view) for query in panel.queries for view in views(_now_ms()))
                    try:
                        for one in made:
                            reader.rows(one.text, one.parameters, 1)
                    except Unavailable as error:
                        yield Problem(f"{dashboard.uid}, '{panel.title}'", str(error))
        finally:
            sink.close()


def _address(runbooks: str | None) -> str | None:
    if runbooks is not None and not runbooks.startswith(("http://", "https://")):
        raise Mistake(f"--runbooks {runbooks}: not an address; give one that begins with https://")
    return runbooks
