"""What Grafana reads: a file for each dashboard, and those of alerting."""

from collections.abc import Sequence
from pathlib import Path

from dashboards import alerting
from dashboards.catalogue import DASHBOARDS
from dashboards.grafana import compiled, text
from dashboards.panel import Dashboard

GENERATED = Path(__file__).parent / "generated"


def files(dashboards: Sequence[Dashboard] = DASHBOARDS, runbooks: str | None = None) -> dict[str, str]:
    """The text of each file by its path below the directory."""
    made = {f"{dashboard.uid}.json": text(compiled(dashboard, dashboards)) for dashboard in dashboards}
    return made | {f"alerting/{name}": content for name, content in alerting.files(dashboards, runbooks).items()}


def write(directory: Path, runbooks: str | None = None) -> list[Path]:
    """Write all files, and remove dashboards and alerting that are no longer made."""
    made = files(runbooks=runbooks)
    for path in strangers(directory, made):
        path.unlink()
    written = []
    for name, content in sorted(made.items()):
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, "utf-8")
        written.append(path)
    return written


def strangers(directory: Path, made: dict[str, str]) -> list[Path]:
    """Files where ours are that are not ours: Grafana would read them as well."""
    found = [*directory.glob("*.json"), *(directory / "alerting").glob("*.yaml")]
    return sorted(path for path in found if path.relative_to(directory).as_posix() not in made)
