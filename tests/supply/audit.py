"""Ask a vulnerability service about everything that is installed, and everything that the image is built with.

It asks the service of the Python Package Index; what stands behind it is handed to pip-audit, e.g.
`make audit ARGS="-s osv --osv-url URL"` for a mirror of your own. What could not be asked about is never taken for
sound: pip-audit itself would say "No known vulnerabilities found" when it was told of no package at all.
Exit codes: 0 every package was asked about and none that runs is known to be vulnerable, 1 at least one is,
3 not all of them could be asked about. What only tests use is told, and does not decide.
"""

import json
import subprocess
import sys
import sysconfig
from dataclasses import dataclass, field
from pathlib import Path

from tests.supply.runtime import OURS, ROOT, Missing, needed, normal, site_packages

ASKING_S = 100
VULNERABLE, NOT_DONE = 1, 3
HOW = (
    "Nothing is known of them. Run 'make audit' where the service can be reached, or name another: "
    "make audit ARGS=\"-s osv --osv-url URL\""
)


@dataclass
class Audit:
    """Package and version → what is known of it, or why nothing is. `beside` is vulnerable and does not run."""

    sound: set[str] = field(default_factory=set)
    vulnerable: dict[str, str] = field(default_factory=dict)
    beside: dict[str, str] = field(default_factory=dict)
    unasked: dict[str, str] = field(default_factory=dict)


def ask(program: Path, what: str, chosen: list[str], given: list[str], running: set[str] | None, found: Audit) -> None:
    """Ask about packages, chosen by pip-audit's options, and add the answers; all of them run if none is named."""
    command = [program, *chosen, "--progress-spinner", "off", "--format", "json", "--desc", "off", "--aliases", "on", *given]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=ASKING_S, check=False)
    except subprocess.TimeoutExpired:
        found.unasked[what] = f"no answer within {ASKING_S} s"
        return
    try:
        packages = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        said = [line for line in done.stderr.splitlines() if line.strip()]
        found.unasked[what] = said[-1] if said else f"pip-audit ended with {done.returncode} and said nothing"
        return
    if not packages:
        found.unasked[what] = "pip-audit found no package there"
    for package in packages:
        if normal(package["name"]) == OURS:
            continue
        if "skip_reason" in package:
            found.unasked[package["name"]] = package["skip_reason"]
            continue
        name = f"{package['name']} {package['version']}"
        if package["vulns"]:
            runs = running is None or normal(package["name"]) in running
            (found.vulnerable if runs else found.beside)[name] = "; ".join(
                f"{', '.join([v['id'], *v['aliases']])} (mended in {', '.join(v['fix_versions']) or 'no version yet'})" for v in package["vulns"]
            )
        else:
            found.sound.add(name)


def main() -> int:
    found, environment = Audit(), ROOT / ".venv"
    program = Path(sysconfig.get_path("scripts")) / "pip-audit"
    try:
        running = set(needed(environment))
    except Missing as error:
        print(f"audit: NOT DONE: {error}")
        return NOT_DONE
    ask(program, "what is installed in .venv", ["--path", str(site_packages(environment))], sys.argv[1:], running, found)
    pinned = ["-r", "ingest/deploy/constraints.txt", "--no-deps", "--disable-pip"]
    ask(program, "what the image is built with", pinned, sys.argv[1:], None, found)
    for name, said in sorted(found.vulnerable.items()):
        print(f"audit: {name} is vulnerable: {said}")
    for name, said in sorted(found.beside.items()):
        print(f"audit: {name}, which only tests use, is vulnerable: {said}")
    if found.unasked:
        what, why = min(found.unasked.items())
        asked = len(found.sound) + len(found.vulnerable) + len(found.beside)
        print(f"audit: NOT DONE for {len(found.unasked)} of {len(found.unasked) + asked}: {what}: {why}")
        print(f"audit: {HOW}")
    else:
        print(f"audit: {len(found.sound)} packages have no known vulnerability, {len(found.vulnerable) + len(found.beside)} have one")
    return VULNERABLE if found.vulnerable else NOT_DONE if found.unasked else 0


if __name__ == "__main__":
    sys.exit(main())
