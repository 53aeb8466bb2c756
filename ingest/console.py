"""What all commands share: how they answer people and programs, and where they find the records."""

import getpass
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from ingest.errors import Mistake
from ingest.settings import load_settings

out = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 240)

DataDir = Annotated[Path | None, typer.Option("--data-dir", help="Directory of the worker (MICROCURRENT_DATA_DIR).", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Answer with JSON, for programs.")]
Most = Annotated[int, typer.Option("--limit", min=1, max=10_000, help="At most so many.")]


def print_json(content: Any) -> None:
    sys.stdout.write(json.dumps(content, ensure_ascii=False) + "\n")
    sys.stdout.flush()  # if it cannot be written, that is told by the command and not by what ends it


def when(ms: int | None) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S") + "Z" if ms else "–"


def table(columns: list[str], rows: list[list[str]]) -> None:
    shown = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        shown.add_column(column, overflow="fold")
    for row in rows:
        shown.add_row(*(text.replace("[", "\\[") for text in row))
    out.print(shown)


def who_says(by: str | None) -> str:
    """A person's name; the login name when absent, which not every container has."""
    try:
        return getpass.getuser() if by is None else by
    except (KeyError, OSError) as error:
        raise Mistake("this user has no login name here; say who it is with --by") from error


@contextmanager
def named_files() -> Iterator[None]:
    """Around a command of a person: a file or directory that cannot be used is their mistake, and not a crash of ours."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            raise
        raise Mistake(f"{error.filename}: cannot be used ({error.strerror}); name another place, or let this user use it") from error


@contextmanager
def records_of(data_dir: Path | None) -> Iterator[Any]:
    from ingest import observe
    from ingest.client import records

    observe.configure_logging("error")
    with records(load_settings(data_dir=data_dir)) as found:
        yield found


@contextmanager
def bar(what: str, silent: bool = False) -> Iterator[Callable[[float], None]]:
    """A bar on stderr, for a person who waits; it is given the part of the work that is done."""
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=silent or not console.is_terminal) as progress:
        task = progress.add_task(what, total=1.0)
        yield lambda part: progress.update(task, completed=part)
