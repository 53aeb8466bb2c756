"""What tests of the whole line leave behind when they fail."""

from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from tests.system import rows

FAILED = pytest.StashKey[bool]()
"""Whether the test itself has failed, for fixtures that then keep what they saw."""


APART = frozenset(
    f"test_{name}.py" for name in (
        "alerts", "backtest", "backup", "blindness", "by_hand", "dashboards", "documents", "kills", "life", "mistakes", "outage", "pressure", "publish",
    )
)  # fmt: skip
"""Files of which each test starts what it needs: it may run in whatever process is free. The tests of others stay together."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What is long begins first, and what may run anywhere fills up the end."""
    items.sort(key=lambda item: 0 if item.get_closest_marker("long") else 2 if item.path.name in APART else 1)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Of `--dist loadscope`. Groups by mark (`loadgroup`) are not kept by pytest 9.2 with xdist 3.8."""
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            path = nodeid.partition("::")[0]
            return nodeid if path.rpartition("/")[2] in APART else path

    return Scheduling(config, log) if config.getvalue("dist") == "loadscope" else None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.when == "call":
        item.stash[FAILED] = report.failed
    rows.note(item, report)
    return report


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rows", metavar="FILE", help="print the table of bad inputs by row, and write it into this document")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if config.getoption("--rows"):
        reports = [r for kind in ("passed", "failed", "skipped", "error") for r in terminalreporter.stats.get(kind, []) if isinstance(r, pytest.TestReport)]
        text = rows.table(reports)
        terminalreporter.write("\n" + text)
        rows.put(Path(config.getoption("--rows")), text)
