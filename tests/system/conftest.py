"""What tests of the whole line leave behind when they fail."""

from collections.abc import Generator

import pytest

FAILED = pytest.StashKey[bool]()
"""Whether the test itself has failed, for fixtures that then keep what they saw."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.when == "call":
        item.stash[FAILED] = report.failed
    return report
