"""The committed files for Grafana are what the definitions make."""

from pathlib import Path

from dashboards.alerting import runbook
from dashboards.build import files

ROOT = Path(__file__).parents[2]
GENERATED = ROOT / "dashboards/generated"
REMEDY = "run 'make dashboards'"


def test_the_files_for_grafana_are_up_to_date() -> None:
    kept = {p.relative_to(GENERATED).as_posix(): p.read_text("utf-8") for p in sorted(GENERATED.rglob("*")) if p.is_file()}
    assert kept == files(), REMEDY


def test_the_runbook_is_up_to_date() -> None:
    assert (ROOT / "docs/runbook.md").read_text("utf-8") == runbook(), REMEDY
