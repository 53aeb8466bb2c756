"""`microcurrent dashboards …`: make Grafana's files, check them, and publish them to a Grafana."""

from pathlib import Path
from typing import Annotated

import typer

from ingest.console import Json, out, print_json
from ingest.errors import Mistake

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


def _address(runbooks: str | None) -> str | None:
    if runbooks is not None and not runbooks.startswith(("http://", "https://")):
        raise Mistake(f"--runbooks {runbooks}: not an address; give one that begins with https://")
    return runbooks
