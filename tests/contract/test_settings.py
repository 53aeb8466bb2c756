"""`.env.example` is generated and says of each setting what it means."""

from pathlib import Path

from ingest.settings import Settings, example

ROOT = Path(__file__).parents[2]


def test_the_example_of_settings_is_up_to_date() -> None:
    assert (ROOT / ".env.example").read_text() == example(), "run 'make schemas'"


def test_every_setting_is_described() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


def test_the_example_sets_nothing() -> None:
    lines = (ROOT / ".env.example").read_text().splitlines()
    assert [line for line in lines if line and not line.startswith("#")] == []
