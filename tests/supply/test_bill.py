"""The bill of materials names what runs, and nothing else; each with a licence that can be lived with."""

import hashlib
import json
import os
import shutil
import subprocess
from importlib.metadata import PathDistribution
from pathlib import Path
from typing import Any

import pytest

from tests.supply.runtime import changed_files, declared, needed, normal, site_packages

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / "build" / "tools" / "bin" / "python"
ENVIRONMENT = ROOT / ".venv"

PERMISSIVE = {
    "MIT", "MIT-0", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "PSF-2.0", "0BSD", "Zlib", "CC0-1.0",
    "License :: OSI Approved :: Apache Software License", "License :: OSI Approved :: MIT License", "License :: OSI Approved :: BSD License",
}  # fmt: skip
OF_ITS_FILES_ALONE = {"certifi": "MPL-2.0", "orjson": "MPL-2.0"}
"""A licence that asks for the source of changes to these packages' own files; they are used unchanged."""


def bill(to: Path, *words: str, **env: str) -> tuple[int, str]:
    command = [PYTHON, "-m", "tests.supply.bill", "--to", to, *words]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **env}, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str]:
    """The bill, made without a package index, and what was said."""
    to = tmp_path_factory.mktemp("bill") / "sbom.cdx.json"
    code, said = bill(to, PIP_INDEX_URL="http://127.0.0.1:9/", PIP_NO_INDEX="1", PIP_FIND_LINKS="")
    assert 0 == code, said
    return json.loads(to.read_text()), said


def components(written: tuple[dict[str, Any], str], kind: str) -> dict[str, dict[str, Any]]:
    return {c["name"]: c for c in written[0]["components"] if c.get("purl", "").startswith(f"pkg:{kind}/")}


def test_it_names_what_runs_and_no_tool_of_a_test(written: tuple[dict[str, Any], str]) -> None:
    assert ("CycloneDX", "1.6") == (written[0]["bomFormat"], written[0]["specVersion"])
    named = {normal(name) for name in components(written, "pypi")}
    assert named == set(needed(ENVIRONMENT))
    assert {normal(requirement.name) for requirement in declared()} <= named
    assert set() == named & {"pytest", "hypothesis", "jsonschema", "httpx", "pip", "microcurrent-telemetry"}


def test_it_tells_who_needs_whom(written: tuple[dict[str, Any], str]) -> None:
    needs = {entry["ref"]: entry.get("dependsOn", []) for entry in written[0]["dependencies"]}
    root = written[0]["metadata"]["component"]
    assert "microcurrent-telemetry" == root["name"]
    assert {normal(requirement.name) for requirement in declared()} | {"pkg"} == {normal(ref.split("==")[0].split(":")[0]) for ref in needs[root["bom-ref"]]}
    (requests,) = [refs for ref, refs in needs.items() if ref.startswith("requests==")]
    assert ["certifi", "charset-normalizer", "idna", "urllib3"] == [ref.split("==")[0] for ref in requests]


def test_the_brokers_program_and_what_is_vendored_are_in_it(written: tuple[dict[str, Any], str]) -> None:
    modules = components(written, "golang")
    program = (ENVIRONMENT / "bin" / "nats-server").read_bytes()
    server = modules["github.com/nats-io/nats-server/v2"]
    said = subprocess.run([ENVIRONMENT / "bin" / "nats-server", "-v"], capture_output=True, text=True, check=True).stdout.split()[-1]
    assert (said, hashlib.sha256(program).hexdigest()) == (server["version"], server["hashes"][0]["content"])
    assert server["properties"][0]["value"].startswith("go1.")
    assert "golang.org/x/crypto" in modules
    chart = components(written, "npm")["uPlot"]
    content = (ROOT / chart["properties"][0]["value"]).read_bytes()
    assert hashlib.sha256(content).hexdigest() == chart["hashes"][0]["content"]
    assert {"eclipse-mosquitto", "influxdb", "grafana/grafana", "python"} == set(components(written, "docker"))


def test_hashes_that_are_not_known_are_said_not_to_be(written: tuple[dict[str, Any], str]) -> None:
    assert f"hashes of 0 of {len(needed(ENVIRONMENT))} packages as they are distributed (" in written[1]


def test_each_licence_is_known_and_permissive_or_named_here(written: tuple[dict[str, Any], str]) -> None:
    for name, component in (components(written, "pypi") | components(written, "npm")).items():
        told = [entry.get("expression") or entry["license"].get("id") or entry["license"].get("name") for entry in component["licenses"]]
        # what is offered to choose from needs one that fits; what applies together needs all of them to
        offered = [choice.strip(" ()") for choice in told[0].split(" OR ")] if " AND " not in told[0] else [told[0]]
        allowed = PERMISSIVE | {OF_ITS_FILES_ALONE.get(name, "MIT"), "(Apache-2.0 OR MIT)"}
        assert any(set(choice.split(" AND ")) <= allowed for choice in offered), f"{name}: {told}"


def test_a_file_that_is_not_as_it_was_installed_is_told(tmp_path: Path) -> None:
    source = site_packages(ENVIRONMENT)
    (record,) = source.glob("annotated_types-*.dist-info")
    for name in ("annotated_types", record.name):
        shutil.copytree(source / name, tmp_path / name)
    distribution = PathDistribution(tmp_path / record.name)
    assert [] == list(changed_files(distribution))
    with (tmp_path / "annotated_types" / "__init__.py").open("a") as file:
        file.write("import os\n")
    (tmp_path / "annotated_types" / "py.typed").unlink()
    assert ["annotated_types/__init__.py", "annotated_types/py.typed"] == sorted(changed_files(distribution))


def test_what_is_no_environment_is_said_in_one_sentence(tmp_path: Path) -> None:
    code, said = bill(tmp_path / "bill.json", "--environment", str(tmp_path))
    assert (2, f"sbom: {tmp_path} is no virtual environment; run 'make install', or name another with --environment\n") == (code, said)
    assert not (tmp_path / "bill.json").exists()
