"""What a store holds, seen without the product."""

from collections.abc import Iterator
from pathlib import Path

import duckdb

from tests.faults.influx import FakeInflux
from tests.faults.judge import STREAMS, Row
from tests.servers import InfluxDB


def duckdb_rows(data: Path) -> Iterator[Row]:
    with duckdb.connect(str(data / "telemetry.duckdb"), read_only=True) as store:
        for stream in STREAMS:
            done = store.execute(f'SELECT * FROM "{stream}" ORDER BY time_ns')
            names = [column[0] for column in done.description]
            while some := done.fetchmany(10_000):
                for values in some:
                    yield dict(zip(names, values, strict=True), stream=stream)


def influxdb_rows(store: InfluxDB) -> Iterator[Row]:
    for stream in STREAMS:
        for found in store.query(f'SELECT * FROM "{stream}"'):
            yield {**found, "time_ns": found["time"], "stream": stream}


def fake_rows(store: FakeInflux) -> Iterator[Row]:
    for stream in STREAMS:
        for found in store.rows(stream):
            yield {**found, "stream": stream}
