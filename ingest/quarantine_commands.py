"""`microcurrent quarantine …`: what was refused and why, and what shall become of it."""

import sys
from collections import Counter
from collections.abc import Callable
from typing import Annotated, Any

import typer

from ingest.console import DataDir, Json, Most, bar, out, print_json, records_of, table, when, who_says
from ingest.errors import Mistake
from ingest.filters import MOST_ID, read_refused_filter
from ingest.journal.quarantine import State
from schemas.rejections import Reason

quarantine_app = typer.Typer(no_args_is_help=True, help="Look at messages that were refused, send them through the line again, or discard them.")

ASKED_BEYOND = 10
IDS_AT_ONCE = 500
EXIT_WAITS = 3

EntryIds = Annotated[list[int] | None, typer.Argument(help="From 'quarantine list'; without any, the options below choose.", show_default=False)]
ReasonOption = Annotated[Reason | None, typer.Option(help="Only these.", show_default=False)]
Device = Annotated[str | None, typer.Option(help="Only of this device; 'unidentified' are those that name none.", show_default=False)]
Since = Annotated[str | None, typer.Option(help="Only what came after: a date, a time (UTC), or an age such as 2h or 7d.", show_default=False)]
Until = Annotated[str | None, typer.Option(help="Only what came before; a date is all of its day.", show_default=False)]
All = Annotated[bool, typer.Option("--all", help="All that are open, where nothing else chooses.")]
By = Annotated[str | None, typer.Option(help="Who says so; the login name when absent.", show_default=False)]
Yes = Annotated[bool, typer.Option("--yes", help=f"Do not ask, however many there are; otherwise it asks beyond {ASKED_BEYOND}.")]

Step = Callable[[dict[str, Any]], dict[str, Any]]


@quarantine_app.command("list")
def quarantine_list(
    data_dir: DataDir = None,
    reason: ReasonOption = None,
    device: Device = None,
    since: Since = None,
    until: Until = None,
    state: Annotated[State | None, typer.Option(help="Only those; all when absent.", show_default=False)] = None,
    most: Most = 100,
    as_json: Json = False,
) -> None:
    """List refused messages, newest first, each with its one reason, and how many there are by reason and device."""
    words = _words(reason=reason, device=device, since=since, until=until, state=state, limit=str(most))
    with records_of(data_dir) as records:
        found = records.quarantine(words)
    if as_json:
        print_json({name: found[name] for name in ("messages", "by_reason", "by_device", "entries")})
        return
    if not found["messages"]:
        out.print("nothing in quarantine" if set(words) == {"limit"} else "nothing in quarantine that matches")
        return
    table(
        ["id", "received", "state", "reason", "topic", "bytes", "times", "detail"],
        [
            [str(e["id"]), when(e["received_ms"]), e["state"], e["reason"], e["topic"], _bytes(e), _times(e), e["detail"]]
            for e in found["entries"]
        ],
    )  # fmt: skip
    counts = [", ".join(f"{n} {name}" for name, n in found[by].items()) for by in ("by_reason", "by_device")]
    out.print(f"{found['messages']} messages: {counts[0]}; {counts[1]}{' …' if len(found['by_device']) == 10 else ''}", markup=False)


@quarantine_app.command("show")
def quarantine_show(entry_id: Annotated[int, typer.Argument(help="From 'quarantine list'.")], data_dir: DataDir = None, as_json: Json = False) -> None:
    """Show one refused message and what happened to it; its bytes are escaped, so that they can do no harm in a terminal."""
    with records_of(data_dir) as records:
        found = records.quarantined(entry_id) if 0 < entry_id <= MOST_ID else None
    if found is None:
        raise Mistake(f"quarantine entry {entry_id}: there is none with this id; see 'microcurrent quarantine list'", 1)
    if as_json:
        print_json(found)
        return
    events = found.pop("events")
    for name, value in found.items():
        out.print(f"{name:>14}  {when(value) if name.endswith('_ms') else value}", markup=False)
    if events:
        table(["at", "event", "by", "note"], [[when(e["at_ms"]), e["event"], e["actor"], e["note"]] for e in events])


@quarantine_app.command("replay")
def quarantine_replay(
    entry_ids: EntryIds = None,
    data_dir: DataDir = None,
    reason: ReasonOption = None,
    device: Device = None,
    since: Since = None,
    until: Until = None,
    everything: All = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what would come of it.")] = False,
    by: By = None,
    note: Annotated[str, typer.Option(help="Why it can be taken now.")] = "",
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Send refused messages through the line again, as if they came when they first did.

    Each is another accepted message of the ledger. One that is kept now, or was on record already, is
    'replayed'; one that is refused again stays open with its new reason. Doing it twice stores nothing
    twice. Exit codes: 0 all are replayed, 1 some are not, 3 some wait, for a worker that is stopped
    does it when it starts.
    """
    by, note = _said(by, note)
    words = _words(reason=reason, device=device, since=since, until=until)
    _need_choice(entry_ids, words, everything)
    with records_of(data_dir) as records:
        if dry_run:
            _print_preview(_each(records, entry_ids, words, records.would_replay, as_json, "looking"), as_json)
            return
        _ask_first(records, entry_ids, words, yes, "replay")
        found = _each(records, entry_ids, words, lambda which: records.replay(which, by, note), as_json, "replaying")
    if as_json:
        print_json(found)
    else:
        out.print(_replayed(found))
    some_not = bool(found["refused"]) or found["not_whole"] > 0
    raise typer.Exit(1 if some_not else EXIT_WAITS if found["waiting"] else 0)


@quarantine_app.command("discard")
def quarantine_discard(
    entry_ids: EntryIds = None,
    data_dir: DataDir = None,
    reason: ReasonOption = None,
    device: Device = None,
    since: Since = None,
    until: Until = None,
    everything: All = False,
    by: By = None,
    note: Annotated[str, typer.Option(help="Why nobody needs it.")] = "",
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Mark refused messages as of no more use. That each came, when, from whom, why it was refused, and its first 4 KiB stay.

    Exit codes: 0 all that were meant are discarded, 1 some were not open.
    """
    by, note = _said(by, note)
    words = _words(reason=reason, device=device, since=since, until=until)
    _need_choice(entry_ids, words, everything)
    with records_of(data_dir) as records:
        _ask_first(records, entry_ids, words, yes, "discard")
        found = _each(records, entry_ids, words, lambda which: records.discard(which, by, note), as_json, "discarding")
    if as_json:
        print_json(found)
    else:
        out.print(f"{found['discarded']} discarded" + (f"; {found['not_open']} were not open" if found["not_open"] else ""))
    raise typer.Exit(1 if found["not_open"] else 0)


def _words(**asked: Any) -> dict[str, str]:
    words = {name: str(text) for name, text in asked.items() if text is not None}
    read_refused_filter(words, 0)  # a mistake is told here, whoever answers
    return words


def _said(by: str | None, note: str) -> tuple[str, str]:
    from ingest.views import person, words_of

    return person(who_says(by)), words_of(note)


def _need_choice(entry_ids: list[int] | None, words: dict[str, str], everything: bool) -> None:
    if entry_ids and (words or everything):
        raise Mistake("name entries by their ids, or choose them by options, not both")
    if not entry_ids and not words and not everything:
        raise Mistake("say which refused messages: their ids, or --reason, --device, --since, --until, or --all")
    if not all(0 < entry_id <= MOST_ID for entry_id in entry_ids or ()):
        raise Mistake("ids are numbers from 1; see 'microcurrent quarantine list'")


def _ask_first(records: Any, entry_ids: list[int] | None, words: dict[str, str], yes: bool, what: str) -> None:
    """A few may be meant as they are; of many it is made sure."""
    count = len(entry_ids) if entry_ids else records.quarantine({**words, "state": State.OPEN.value, "limit": "1"})["messages"]
    if yes or count <= ASKED_BEYOND:
        return
    if not sys.stdin.isatty():
        raise Mistake(f"that would {what} {count} messages; say --yes to do it")
    if not typer.confirm(f"{what} {count} messages?", err=True):
        raise Mistake("nothing was done", 1)


def _each(records: Any, entry_ids: list[int] | None, words: dict[str, str], step: Step, silent: bool, what: str) -> dict[str, Any]:
    """Take the entries some at a time, oldest first, as far as there are any now; the sum of all answers."""
    newest = records.quarantine({"limit": "1"})["entries"]
    upto = newest[0]["id"] if newest else 0
    asked = sorted(set(entry_ids or ()))
    parts = [{"ids": asked[at : at + IDS_AT_ONCE]} for at in range(0, len(asked), IDS_AT_ONCE)] or [{"words": words, "upto": upto}]
    sums: dict[str, Any] = {}
    with bar(what, silent) as progress:
        for number, which in enumerate(parts):
            after: int | None = 0
            while after is not None:
                found = step({**which, "after": after})
                after = found.pop("next")
                _add(sums, found)
                progress((number + (after or upto) / max(upto, 1)) / len(parts) if "ids" not in which else (number + 1) / len(parts))
    missing = len(asked) - sum(v for v in _flat(sums) if isinstance(v, int))
    if asked and missing > 0:
        raise Mistake(f"{missing} of these ids name no entry; see 'microcurrent quarantine list'. The others are done", 1)
    return sums


def _add(sums: dict[str, Any], found: dict[str, Any]) -> None:
    for name, value in found.items():
        sums[name] = dict(Counter(sums.get(name, {})) + Counter(value)) if isinstance(value, dict) else sums.get(name, 0) + value


def _flat(sums: dict[str, Any]) -> list[int]:
    return [n for value in sums.values() for n in (value.values() if isinstance(value, dict) else (value,))]


def _print_preview(found: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    outcomes = found["outcomes"]
    told = [f"{n} {_OUTCOMES.get(name, f'would be refused again: {name}')}" for name, n in sorted(outcomes.items(), key=lambda o: -o[1])]
    out.print("; ".join(told) or "there is nothing to replay", markup=False)


_OUTCOMES = {
    "kept": "would be kept",
    "held": "are on record already",
    "not_whole": "cannot be replayed: not all of their bytes are kept",
    "not_open": "are replayed or on their way already",
}


def _replayed(found: dict[str, Any]) -> str:
    told = [f"{found['replayed']} replayed"]
    if found["waiting"]:
        told.append(f"{found['waiting']} wait for the worker; 'quarantine list --state waiting' shows them")
    told += [f"{n} refused again: {reason}" for reason, n in found["refused"].items()]
    if found["not_whole"]:
        told.append(f"{found['not_whole']} cannot be: not all of their bytes are kept")
    if found["not_open"]:
        told.append(f"{found['not_open']} were already")
    return "; ".join(told)


def _bytes(entry: dict[str, Any]) -> str:
    return str(entry["bytes"]) if entry["kept"] == "whole" else f"{entry['bytes']} (first {entry['held']} kept)"


def _times(entry: dict[str, Any]) -> str:
    return f"{entry['times']}" + (f" and {entry['more']} others" if entry["more"] else "")
