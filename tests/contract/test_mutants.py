"""The list of seeded bugs fits the program as it is, so that `make mutants` tries all of them."""

import re

import pytest

from tests.contract.test_imports import ROOT
from tests.mutants.bugs import BUGS, Bug

TABLE = ROOT / "docs" / "mutants.md"
AGAIN = 'make mutants ARGS="--markdown docs/mutants.md"'


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_a_seeded_bug_has_its_place_in_the_program_and_the_tests_that_catch_it(bug: Bug) -> None:
    assert [] == bug.misfits(ROOT)
    assert bug.changes
    assert bug.caught_by


def test_the_table_names_every_bug_and_says_that_all_were_caught() -> None:
    text = TABLE.read_text()
    said = {name: verdict for name, verdict in re.findall(r"^\| `([a-z0-9-]+)` \|.*\| (\w+) \|$", text, re.MULTILINE)}
    assert dict.fromkeys((bug.name for bug in BUGS), "caught") == said, AGAIN
    assert f"{len(BUGS)} of {len(BUGS)} are caught." in text, AGAIN
