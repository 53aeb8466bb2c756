"""`microcurrent credentials …`: who may speak to the broker."""

from typing import Annotated

import typer

from ingest.console import DataDir, Json
from ingest.console import print_json as _print_json
from ingest.console import table as _table
from ingest.console import when as _when
from ingest.settings import load_settings

credentials_app = typer.Typer(no_args_is_help=True, help="Who may speak to the broker, and until when.")


@credentials_app.command("create")
def create(
    device_ids: Annotated[list[str], typer.Argument(help="Devices that may publish; MQTT user name and client id are the device id.")],
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Give devices a new password at the embedded broker, said once and kept as a hash only. An old one ends.

    A device may then write its streams and read its own ack and alert topics, and nothing else.
    """
    from ingest.embedded import broker

    made = broker.register_of(load_settings(data_dir=data_dir)).create(device_ids)
    if as_json:
        _print_json(made)
    else:
        _table(["device (MQTT user name and client id)", "password"], [[d, p] for d, p in made.items()])
