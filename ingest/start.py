"""The console script. Imports take seconds on a busy machine; an interrupt during them ends the command quietly."""

import os
import signal

INTERRUPTED = 130


def main() -> None:
    """Run a command."""
    signal.signal(signal.SIGINT, lambda *_: os._exit(INTERRUPTED))  # nothing is begun yet
    from ingest.cli import main as run

    signal.signal(signal.SIGINT, signal.default_int_handler)
    run()
