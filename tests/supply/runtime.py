"""What runs: the packages that this one needs, and those that they need, as they are installed in an environment."""

import base64
import hashlib
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import Distribution, distributions
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
OURS = "microcurrent-telemetry"


class Missing(Exception):
    """One sentence for the person."""


@dataclass
class Package:
    """`needs` are the names of those that it cannot do without, `extras` what was asked of it beyond."""

    distribution: Distribution
    needs: set[str] = field(default_factory=set)
    extras: set[str] = field(default_factory=set)


def normal(name: str) -> str:
    """One spelling of a package's name."""
    return re.sub(r"[-_.]+", "-", name).lower()


def declared() -> list[Requirement]:
    """What pyproject.toml asks for on this machine."""
    written = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    return [requirement for requirement in map(Requirement, written) if requirement.marker is None or requirement.marker.evaluate()]


def site_packages(environment: Path) -> Path:
    found = sorted((environment / "lib").glob("python*/site-packages"))
    if len(found) != 1:
        raise Missing(f"{environment} is no virtual environment; run 'make install', or name another with --environment")
    return found[0]


def needed(environment: Path) -> dict[str, Package]:
    """By name, without what only an extra that nobody asked for would need."""
    installed = {normal(d.metadata["Name"]): d for d in distributions(path=[str(site_packages(environment))])}
    reached: dict[str, Package] = {}
    waiting = declared()
    while waiting:
        requirement = waiting.pop()
        name = normal(requirement.name)
        if name in reached and requirement.extras <= reached[name].extras:
            continue
        if name not in installed:
            raise Missing(f"{requirement} is not installed in {environment}; run 'make install'")
        package = reached.setdefault(name, Package(installed[name]))
        package.extras |= requirement.extras
        for below in map(Requirement, installed[name].requires or []):
            if below.marker is None or any(below.marker.evaluate({"extra": extra}) for extra in ("", *package.extras)):
                package.needs.add(normal(below.name))
                waiting.append(below)
    return {name: reached[name] for name in sorted(reached)}


def changed_files(distribution: Distribution) -> Iterator[str]:
    """Files that are not as they came: each has its hash in the package's own record."""
    recorded = [file for file in distribution.files or [] if file.hash is not None]
    if not recorded:
        yield "all of it, for it has no record"
    for file in recorded:
        try:
            found = hashlib.new(file.hash.mode, Path(file.locate()).read_bytes()).digest()
        except OSError:
            found = b""
        if base64.urlsafe_b64encode(found).decode().rstrip("=") != file.hash.value:
            yield str(file)
