"""Who may import whom, read from the source with ast. The layout is a promise, so it is a test."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STDLIB = sys.stdlib_module_names

OUTSIDE_WORLD = {
    "asyncio", "concurrent", "ctypes", "fcntl", "ftplib", "glob", "http", "importlib", "io", "logging", "mmap",
    "multiprocessing", "os", "pathlib", "queue", "random", "secrets", "select", "selectors", "shutil", "signal",
    "smtplib", "socket", "socketserver", "sqlite3", "ssl", "subprocess", "sys", "tempfile", "threading", "time",
    "urllib", "uuid", "zoneinfo",
}  # fmt: skip
"""Sockets, files, clocks, threads, chance: what the pure core gets as values or not at all."""

OUTSIDE_CALLS = {"open", "print", "input", "exec", "eval", "__import__", "breakpoint"}
CLOCK_READINGS = {"now", "utcnow", "today"}

CORE = (
    "ingest/decode.py", "ingest/dedupe.py", "ingest/device.py", "ingest/glean.py", "ingest/admit.py",
    "ingest/judgement.py", "ingest/points.py", "ingest/standing.py", "ingest/safety", "ingest/patience.py", "ingest/pulse.py",
)  # fmt: skip

ADAPTERS = {
    "paho": ("ingest/mqtt.py", "ingest/mqtt_client.py", "ingest/simulator"),
    "influxdb_client": ("ingest/sinks/influx.py",),
    "duckdb": ("ingest/sinks/duckdb.py",),
    "nats": ("ingest/embedded/gate.py",),
    "cryptography": ("ingest/embedded/gate.py", "ingest/certificates.py"),
    "grafana_foundation_sdk": ("dashboards/sdk.py",),
    "grafana_api": ("dashboards/remote.py",),
}
"""The only homes of each client library."""


def sources(*places: str) -> list[Path]:
    found: list[Path] = []
    for place in places:
        path = ROOT / place
        found += [path] if path.is_file() else sorted(path.rglob("*.py"))
    return found


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"), filename=str(path))


def imported(path: Path) -> set[str]:
    """Every module a file imports, anywhere in it, by its full dotted name."""
    names: set[str] = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute here"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def packages(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imported(path)}


def within(path: Path, places: tuple[str, ...]) -> bool:
    return any(path.is_relative_to(ROOT / place) for place in places)


def ids(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("place", ["schemas", "ingest", "ingest/safety"])
def test_there_is_something_to_check(place: str) -> None:
    assert [] != [path for path in sources(place) if path.name != "__init__.py"]


@pytest.mark.parametrize("path", sources("schemas"), ids=ids)
def test_the_contract_imports_pydantic_and_itself_alone(path: Path) -> None:
    assert set() == packages(path) - STDLIB - {"pydantic", "schemas"}


@pytest.mark.parametrize("path", sources(*CORE), ids=ids)
def test_the_core_touches_no_socket_file_clock_or_client_library(path: Path) -> None:
    assert set() == packages(path) & OUTSIDE_WORLD
    assert set() == packages(path) - STDLIB - {"pydantic", "pydantic_core", "orjson", "schemas", "ingest"}
    calls = {n.func.id for n in ast.walk(tree(path)) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}
    assert set() == calls & OUTSIDE_CALLS
    methods = {n.func.attr for n in ast.walk(tree(path)) if isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute)}
    assert set() == methods & CLOCK_READINGS


@pytest.mark.parametrize("path", sources(*CORE), ids=ids)
def test_what_the_core_imports_of_the_worker_is_as_pure_as_itself(path: Path) -> None:
    """Follows imports: a core module may not reach a socket through a neighbour."""
    reached, waiting = set(), [path]
    while waiting:
        current = waiting.pop()
        reached.add(current)
        for name in imported(current):
            parts = name.split(".")
            if parts[0] not in {"ingest", "schemas"}:
                continue
            for end in range(len(parts), 0, -1):
                module = ROOT.joinpath(*parts[:end]).with_suffix(".py")
                if module.is_file():
                    if module not in reached and parts[0] == "ingest":
                        waiting.append(module)
                    break
    assert {} == {ids(p): packages(p) & OUTSIDE_WORLD for p in reached if packages(p) & OUTSIDE_WORLD}


@pytest.mark.parametrize("library", ADAPTERS)
def test_a_client_library_is_imported_by_its_adapter_only(library: str) -> None:
    elsewhere = [p for p in sources("ingest", "schemas", "dashboards") if not within(p, ADAPTERS[library])]
    assert [] == [ids(path) for path in elsewhere if library in packages(path)]


SHOWS = {
    "ingest/boards.py": {"dashboards.catalogue", "dashboards.panel", "dashboards.query"},
}
"""The page shows what is defined for it; what is Grafana's is for the commands on dashboards alone."""

DASHBOARD_COMMANDS = "ingest/dashboard_commands.py"


@pytest.mark.parametrize("path", sources("ingest"), ids=ids)
def test_the_worker_imports_no_test_and_of_dashboards_what_the_page_shows(path: Path) -> None:
    assert "tests" not in packages(path)
    asked = {name.rpartition(".")[0] for name in imported(path) if name.startswith("dashboards.")}
    assert ids(path) == DASHBOARD_COMMANDS or asked <= SHOWS.get(ids(path), set())


def test_the_simulator_knows_the_contract_and_not_the_worker() -> None:
    allowed = STDLIB | {"schemas", "paho", "pydantic", "orjson", "numpy"}
    strangers = {ids(p): {n for n in imported(p) if n.split(".")[0] not in allowed} for p in sources("ingest/simulator")}
    assert {} == {
        path: names
        for path, found in strangers.items()
        if (names := {n for n in found if not n.startswith("ingest.simulator")})
    }


def test_the_dashboards_know_the_contract_and_not_the_worker() -> None:
    assert [] == [ids(path) for path in sources("dashboards") if packages(path) & {"ingest", "tests"}]


def test_system_and_fault_tests_know_our_code_by_its_command_line_only() -> None:
    assert [] == [ids(p) for p in sources("tests/system", "tests/faults") if packages(p) & {"ingest", "schemas", "dashboards"}]
