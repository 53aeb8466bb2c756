"""Named places in the worker at which a test can have it die, fail or stall. Off unless the environment asks.

This is for those who try the line, not for those who run it, so it is no setting:

    MICROCURRENT_FAILPOINT=accepted:3:kill             SIGKILL when a batch is accepted for the third time
    MICROCURRENT_FAILPOINT=posted:raise,settled:sleep=2  several, each on its own count
    MICROCURRENT_FAILPOINT=@FILE                       the first line of FILE, which is taken away: the worker that
                                                       is started next gets the next line, and then there is none
    MICROCURRENT_FAILPOINT_LOG=FILE                    a line `unix_ms pid name n act` for each, written before it acts

`kill` is SIGKILL, `exit` an end with code 70 and no word, `raise` an exception, `raise=io` and `raise=full` what SQLite
says of a broken and of a full disk, `sleep` a second or as many as it says. Each acts once in a process.
"""

import os
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ingest.errors import EXIT_THREAD, Mistake

VARIABLE = "MICROCURRENT_FAILPOINT"
LOG_VARIABLE = "MICROCURRENT_FAILPOINT_LOG"

POINTS: dict[str, str] = {
    # the start
    "journal-locked": "the journal's directory is ours; the file has not been opened",
    "upgrade-uncommitted": "a step from an older journal to the next version has been made, not committed",
    "upgraded": "that step is on disk",
    "journal-running": "the journal says that it is in use; nothing has been read of it",
    "duckdb-trimmed": "DuckDB has only the last offset of this journal left; its log has not been worked in",
    "store-opened": "the store has told how far it got; the outbox has not heard of it",
    "settle-upto-uncommitted": "what the store held at the start has left the outbox, not committed",
    "settled-upto": "that is on disk",
    "subscribed": "the broker has granted the subscription; nobody has noted it",
    "suspect-counted": "after a death: that a message is about to be tried is on disk",
    "suspect-passed": "after a death: a message has been processed by itself",
    "resumed": "sessions of before the start have been taken up again, not committed",
    # in
    "taken": "deliveries have been taken from the receiver; they are nowhere else",
    "accept-uncommitted": "their rows are written, not committed",
    "accepted": "they are on disk; nothing is acknowledged",
    "acks-handed": "their acknowledgements have been handed to the receiver",
    "acks-unsent": "the receiver has taken them up; the broker has none",
    "acks-sent": "they have been written to the broker's socket",
    # through
    "admitted": "a batch has its places, rows and judgement, not committed",
    "process-uncommitted": "all that follows from a batch is written, not committed",
    "processed": "that is on disk; nobody has been told",
    "durable-ack-said": "a durable acknowledgement has been handed to the receiver",
    "notice-said": "an alert has been handed to the receiver",
    "notices-dropped": "alerts that the broker has are deleted, not committed",
    # out
    "write-begun": "a batch for the store has been read; nothing has been sent",
    "posted": "InfluxDB has answered 204 to a part of a write",
    "bisecting": "InfluxDB has refused a write; its first half is next",
    "duckdb-uncommitted": "rows and offset are in DuckDB's transaction",
    "duckdb-committed": "DuckDB has committed them",
    "written": "the store has a batch; the outbox has not heard of it",
    "settle-uncommitted": "the batch has left the outbox, not committed",
    "settled": "that is on disk",
    "webhook-posting": "an entry for the webhook has been read; nothing has been sent",
    "webhook-answered": "the webhook has answered; the journal has not heard of it",
    # beside
    "reported": "devices, fleet and ledger have been put in the outbox, not committed",
    "summed": "a piece of a roll-up has been made, not committed",
    "pruned": "old raw messages have been deleted, not committed",
    "store-forgot": "the store has deleted what is too old",
    # the end
    "stop-asked": "SIGTERM has come; everything still runs",
    "stop-drained": "the writer has ended",
    "stop-received": "the receiver has said goodbye to the broker",
    "stop-finished": "the core has ended",
    "stop-store-closed": "the store is closed",
    "stop-clean": "the journal says that it is not in use; its log has not been worked in",
    "stop-checkpointed": "the journal's log has been worked into its file",
}
"""Every place, with what has just happened there."""


class FailPoint(Exception):
    """What `raise` raises: nothing handles it."""


def reach(name: str) -> None:
    """Say that a place has been reached. Nothing happens unless `arm` was asked for it."""


@dataclass(frozen=True, slots=True)
class Order:
    """Act at the n-th time that a place is reached."""

    name: str
    n: int
    act: str


def arm(environment: Mapping[str, str] = os.environ) -> None:
    """Do what the environment asks for, from here on, in this process. What it cannot mean is a Mistake."""
    global reach
    orders = parse(_said(environment.get(VARIABLE, "")))
    if orders:
        log = environment.get(LOG_VARIABLE)
        reach = _armed(orders, Path(log) if log else None)


def parse(text: str) -> list[Order]:
    """`name[:n]:act` with commas between."""
    orders = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, *rest = part.split(":")
        n, act = (rest[0], rest[1]) if len(rest) == 2 else ("1", rest[0] if len(rest) == 1 else "")
        if name not in POINTS:
            raise Mistake(f"{VARIABLE}: there is no place {name!r}; the places are {', '.join(POINTS)}")
        if not n.isdecimal() or int(n) == 0 or not _is_act(act):
            raise Mistake(f"{VARIABLE}: {part!r} is not name[:n]:kill|exit|raise[=io|=full]|sleep[=seconds]")
        orders.append(Order(name, int(n), act))
    return orders


def _is_act(act: str) -> bool:
    kind, _, value = act.partition("=")
    if kind == "sleep":
        return not value or value.replace(".", "", 1).isdecimal()
    return act in ("kill", "exit", "raise", "raise=io", "raise=full")


def _said(value: str) -> str:
    """The value, or the first line of the file that it names, which is taken away."""
    if not value.startswith("@"):
        return value
    path = Path(value[1:])
    try:
        first, _, left = path.read_text().partition("\n")
        fresh = path.with_suffix(".left")
        fresh.write_text(left)
        fresh.replace(path)
    except OSError as error:
        raise Mistake(f"{VARIABLE}: {path}: cannot be read and written ({error.strerror})") from error
    return first


def _armed(orders: list[Order], log: Path | None) -> Callable[[str], None]:
    asked = {order.name for order in orders}
    counts: dict[str, int] = dict.fromkeys(asked, 0)
    lock = threading.Lock()

    def reach(name: str) -> None:
        if name not in asked:
            return
        with lock:
            counts[name] += 1
            due = [order for order in orders if order.name == name and order.n == counts[name]]
        for order in due:
            if log:
                with log.open("a") as file:
                    file.write(f"{time.time_ns() // 1_000_000} {os.getpid()} {name} {order.n} {order.act}\n")
            _act(order)

    return reach


def _act(order: Order) -> None:
    kind, _, value = order.act.partition("=")
    if kind == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif kind == "exit":
        os._exit(EXIT_THREAD)
    elif kind == "sleep":
        time.sleep(float(value or 1))
    elif value:
        error = sqlite3.OperationalError("disk I/O error" if value == "io" else "database or disk is full")
        error.sqlite_errorcode = sqlite3.SQLITE_IOERR if value == "io" else sqlite3.SQLITE_FULL
        raise error
    else:
        raise FailPoint(order.name)
