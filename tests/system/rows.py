"""The table of docs/bad-inputs.md: what became of each row in one run of the tests that are marked with it."""

from collections import defaultdict
from pathlib import Path

import pytest

from tests.system.bad_inputs import ELSEWHERE, ROWS

KIND = "row"


def note(item: pytest.Item, report: pytest.TestReport) -> None:
    """Put a test's rows into its report, which other processes see."""
    if report.when == "call" or report.outcome != "passed":
        report.user_properties += [(KIND, number) for mark in item.iter_markers(KIND) for number in mark.args]


def table(reports: list[pytest.TestReport]) -> str:
    """One line a row: how many tests, what was found, and what is tried elsewhere or not at all."""
    seen: dict[int, list[str]] = defaultdict(list)
    for report in reports:
        for kind, number in report.user_properties:
            if kind == KIND:
                seen[number].append(report.outcome)
    lines = ["| row | input or attack | tried | held | tried elsewhere, or not here |", "|--:|---|--:|--:|---|"]
    for number, what in ROWS.items():
        found = seen[number]
        lines.append(f"| {number} | {what} | {len(found) or ''} | {found.count('passed') if found else ''} | {ELSEWHERE.get(number, '')} |")
    return "\n".join(lines) + "\n"


def put(path: Path, text: str) -> None:
    """Write the table between the two marks of a document."""
    begin, end = "<!-- rows -->\n", "<!-- /rows -->\n"
    before, _, rest = path.read_text().partition(begin)
    path.write_text(before + begin + text + end + rest.partition(end)[2])
