"""What tests of the whole line leave behind when they fail."""

from collections.abc import Generator
from pathlib import Path

import pytest

from tests.system import rows

FAILED = pytest.StashKey[bool]()
"""Whether the test itself has failed, for fixtures that then keep what they saw."""


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
