"""Fixtures for every test: real servers, each fresh for its test and gone after it."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import Phase, settings

from tests import servers
from tests.servers import InfluxDB, Mosquitto

servers.PATIENCE = 4.0

settings.register_profile("any-machine", deadline=None)  # a busy machine is not a failing test
settings.register_profile("first-failure", deadline=None, phases=[Phase.generate], report_multiple_bugs=False, database=None)
settings.load_profile(os.environ.get("MICROCURRENT_TEST_PROPERTIES") or "any-machine")


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[Mosquitto]:
    """A running broker that lets anyone in. For users, an ACL or other settings use Mosquitto itself."""
    with Mosquitto(tmp_path / "mosquitto") as broker:
        yield broker


@pytest.fixture
def influxdb(tmp_path: Path) -> Iterator[InfluxDB]:
    """A running InfluxDB with an empty database behind the v2 write path."""
    with InfluxDB(tmp_path / "influxdb") as store:
        yield store
