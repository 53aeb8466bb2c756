"""What tests of the whole line leave behind when they fail."""

from collections.abc import Generator
from pathlib import Path

import pytest

from tests.system import rows

FAILED = pytest.StashKey[bool]()
"""Whether the test itself has failed, for fixtures that then keep what they saw."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What is long begins first, and what may run anywhere fills up the end; the tests of a file stay together and in order."""
    items.sort(key=lambda item: 0 if item.get_closest_marker("long") else 2 if item.get_closest_marker("apart") else 1)
    for item in items:
        if not (item.get_closest_marker("apart") or item.get_closest_marker("xdist_group")):
            item.add_marker(pytest.mark.xdist_group(item.path.stem))


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
