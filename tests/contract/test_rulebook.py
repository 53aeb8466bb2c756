"""`docs/rules.md` is what the code judges by."""

from pathlib import Path

from ingest.rulebook import markdown, rows
from ingest.safety.line import LINE_RULES, MEANS, Cause
from ingest.safety.rules import RULES
from schemas.alerts import LINE_RULE_IDS, RULE_IDS

ROOT = Path(__file__).parents[2]


def test_the_table_of_rules_is_up_to_date() -> None:
    assert (ROOT / "docs/rules.md").read_text("utf-8") == markdown(), "run 'make schemas'"


def test_the_table_has_every_limb_of_every_rule_with_its_source() -> None:
    assert [(row["rule"], row["severity"], row["when"]) for row in rows()] == [
        (rule.id, limb.severity.value, limb.when) for rule in RULES for limb in rule.limbs
    ]
    assert [row["rule"] for row in rows() if not (row["source"] and row["when"] and row["clears"])] == []


def test_the_rules_on_the_line_are_a_closed_list_beside_those_of_devices() -> None:
    assert tuple(rule.id for rule in LINE_RULES) == LINE_RULE_IDS
    assert set() == set(LINE_RULE_IDS) & set(RULE_IDS)
    assert list(MEANS) == list(Cause)
    assert [row["rule"] for row in rows(LINE_RULES) if not (row["source"] and row["when"] and row["clears"])] == []
