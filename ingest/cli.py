"""The commands. Each says what it does, answers programs with --json, and ends with a code that means something."""

import errno
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from ingest.alert_commands import alerts_app
from ingest.console import DataDir, Json, Most, bar, named_files, out
from ingest.console import print_json as _print_json
from ingest.console import records_of as _records
from ingest.console import table as _table
from ingest.console import when as _when
from ingest.credential_commands import credentials_app
from ingest.dashboard_commands import dashboards_app
from ingest.errors import Mistake
from ingest.pressure import Level
from ingest.quarantine_commands import quarantine_app
from ingest.settings import load_settings
from ingest.start import INTERRUPTED
from schemas.security import SecurityKind

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Safety telemetry for fleets of microcurrent devices: receive, account, judge, store, show. "
    "It monitors after the fact and is never the protective function of a device.",
    epilog="Settings come from MICROCURRENT_… variables or a .env file; 'microcurrent check' tells whether they are fit.",
)
schemas_app = typer.Typer(no_args_is_help=True, help="The contract with devices, for other programs.")
app.add_typer(alerts_app, name="alerts")
app.add_typer(dashboards_app, name="dashboards")
app.add_typer(quarantine_app, name="quarantine")
app.add_typer(credentials_app, name="credentials")
app.add_typer(schemas_app, name="schemas")

EXIT_DIFFERS = 3


def main() -> None:
    """Run a command; a person's mistake is one sentence and no traceback."""
    try:
        app()
    except Mistake as mistake:
        sys.stderr.write(f"microcurrent: {mistake}\n")
        sys.exit(mistake.exit_code)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        sys.stderr.write(f"microcurrent: {error.filename or 'what this was to be written to'}: {error.strerror}; make room, and do it again\n")
        sys.exit(1)


def _until_signal(stop: Callable[..., None]) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)


# -- running ----------------------------------------------------------------------------------------


@app.command()
@named_files()
def demo(
    data_dir: Annotated[Path, typer.Option("--data-dir", help="Where the demo keeps its data; the next demo goes on with them.")] = Path(".microcurrent/demo"),
    seconds: Annotated[float | None, typer.Option(min=5, help="Stop after so many seconds; without it, at Ctrl-C.")] = None,
    devices: Annotated[int, typer.Option(min=1, max=2_000, help="How many simulated devices.")] = 80,
    speed: Annotated[float | None, typer.Option(min=1, max=1_000, help="How much faster than real time the past hour is lived through, until the present is reached.")] = None,
    seed: Annotated[int, typer.Option(help="Another seed is another fleet history.")] = 1,
    headless: Annotated[bool, typer.Option("--headless", help="No live summary; progress as plain lines on stderr.")] = False,
    as_json: Json = False,
) -> None:
    """Show the whole thing working: broker, worker, page and a simulated fleet, on this machine alone.

    The devices first live through the recent past, faster than real time, and then go on at the
    pace of the clock. Ends with 0 only if no alert was missed or false and no message is
    unaccounted for.
    """
    _until_signal(lambda *_: os._exit(INTERRUPTED))  # nothing is begun yet, and an interrupt in an import can be lost
    from ingest.demo import Demo

    outcome = Demo(data_dir, seconds, devices, speed, seed, live=not headless and not as_json).run()
    if as_json:
        _print_json(outcome)
    raise typer.Exit(0 if outcome["ok"] else 1)


@app.command()
def run(data_dir: DataDir = None) -> None:
    """Run the worker (and the embedded broker, if that is chosen) until SIGTERM or Ctrl-C.

    A worker that dies is started again. Exit codes: 0 stopped, 2 a mistake in the settings,
    73 another worker owns the data directory.
    """
    from ingest import observe
    from ingest.app import profiles_of
    from ingest.supervisor import supervisor_of

    settings = load_settings(data_dir=data_dir)
    observe.configure_logging(settings.log_level)
    profiles_of(settings)
    supervisor = supervisor_of(settings)
    _until_signal(supervisor.request_stop)
    try:
        supervisor.start()
        code = supervisor.watch()
    finally:
        supervisor.stop()
    raise typer.Exit(code)


@app.command(hidden=True)
def worker() -> None:
    """One worker without supervision: what `run` starts."""
    from ingest.app import run as run_worker
    from ingest.supervisor import die_with_parent

    die_with_parent()
    raise typer.Exit(run_worker(load_settings()))


@app.command()
@named_files()
def simulate(
    host: Annotated[str | None, typer.Option(help="Address of the broker; the settings' one when absent.")] = None,
    port: Annotated[int | None, typer.Option(min=1, max=65_535, help="Port of the broker.")] = None,
    protocol: Annotated[str, typer.Option(help="MQTT version of the devices: 3.1.1 or 5.")] = "3.1.1",
    devices: Annotated[int, typer.Option(min=1, max=10_000, help="How many devices.")] = 25,
    scenarios: Annotated[str | None, typer.Option(help="Scenarios that happen once each, by number or key, e.g. 7,gel-dry-out; 'all' that fit one session, 'faults' or 'none'. All when absent, none beside --with.", show_default=False)] = None,
    wishes: Annotated[list[str] | None, typer.Option("--with", help="Who has which scenario: 3:gel-dry-out, lot:L03-26:unit-bug or fw:2.3.1:latch-up. May be repeated.", show_default=False)] = None,
    models: Annotated[list[str] | None, typer.Option("--model", help="Only devices of this model, where a scenario does not need another. May be repeated.", show_default=False)] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same readings.")] = 1,
    speed: Annotated[float, typer.Option(min=0.1, help="Times real time; needs --start-ms in the past to have effect.")] = 1.0,
    start_ms: Annotated[int | None, typer.Option(help="Simulated start, ms since 1970 UTC; now when absent.")] = None,
    seconds: Annotated[float | None, typer.Option(min=1, help="Simulated seconds; without it, until Ctrl-C.")] = None,
    truth: Annotated[Path | None, typer.Option(help="Write every message and every expected alert to this file, as JSON lines.")] = None,
    clock_file: Annotated[Path | None, typer.Option(help="Write simulated time here, for a worker to follow.")] = None,
    credentials: Annotated[Path | None, typer.Option(help="JSON file of passwords by device id; the embedded broker's when absent.")] = None,
    busy: Annotated[bool, typer.Option("--busy", help="One session after another, instead of a household's few a week; that is over-use, and the truth says so.")] = False,
    first_within: Annotated[float, typer.Option(min=10, help="Healthy devices begin their first session within so many simulated seconds.")] = 240.0,
    list_scenarios: Annotated[bool, typer.Option("--list", help="Name the scenarios and what each must set off, and do nothing else.")] = False,
    as_json: Json = False,
) -> None:
    """Publish as a fleet of devices that obey the contract: they resend until it is safe, batch, drift and fail."""
    from ingest.simulate import scenario_rows
    from ingest.simulate import simulate as simulate_fleet

    if list_scenarios:
        _table(["number", "key", "what happens", "must set off"], scenario_rows())
        return
    stop = threading.Event()
    _until_signal(lambda *_: stop.set())
    report = simulate_fleet(
        load_settings(), host, port, protocol, devices, scenarios, wishes or [], models or [], seed, speed, start_ms, seconds, truth,
        clock_file, credentials, busy, first_within, stop, lambda problem: print(f"microcurrent: {problem}; this is tried again", file=sys.stderr),
    )  # fmt: skip
    if as_json:
        _print_json(report)
    else:
        for name, value in report.items():
            out.print(f"{name:>16}  {f'{value:.1f}' if isinstance(value, float) else value}", markup=False)
    raise typer.Exit(0 if report["unacked"] == 0 else 1)


@app.command()
def check(data_dir: DataDir = None, as_json: Json = False) -> None:
    """Tell, line by line, whether settings, profiles, broker and store are fit, and what to do if not.

    Ends with 1 if anything is not.
    """
    from ingest import observe
    from ingest.check import checks

    observe.configure_logging("error")
    found = checks(load_settings(data_dir=data_dir))
    if as_json:
        _print_json([{"what": f.what, "ok": f.ok, "detail": f.detail, "remedy": f.remedy} for f in found])
    else:
        for finding in found:
            out.print(f"{'ok   ' if finding.ok else 'FAIL '} {finding.what}: {finding.detail}", markup=False)
            if finding.remedy:
                out.print(f"      → {finding.remedy}", markup=False)
    raise typer.Exit(0 if all(f.ok for f in found) else 1)


@app.command()
def rules(as_json: Json = False) -> None:
    """Show the safety rules, and those on the line itself: when each fires and clears, and how grave it is.

    With --json, also the sources, and what the limits come to for each profile in force.
    """
    from ingest import rulebook
    from ingest.app import profiles_of
    from ingest.safety.line import LINE_RULES
    from ingest.safety.rules import RULES

    if as_json:
        profiles = profiles_of(load_settings())
        _print_json({"rules": rulebook.rows(), "line": rulebook.rows(LINE_RULES), "thresholds": rulebook.thresholds(profiles)})
    else:
        _table(
            ["rule", "severity", "fires when", "hold", "clears when"],
            [[r["rule"], r["severity"], r["when"], f"{r['hold_s']:g} s" if r["hold_s"] else "", r["clears"]] for r in rulebook.rows((*RULES, *LINE_RULES))],
        )


@app.command()
def status(data_dir: DataDir = None, as_json: Json = False) -> None:
    """The ledger, the connections and the open alerts of a worker, running or stopped.

    Ends with 1 if the ledger does not balance, or a running worker is cut off from broker or store, cannot see, or has
    no room to accept more.
    """
    with _records(data_dir) as records:
        seen = records.overview()
        running = records.running
    ledger, pipeline = seen["ledger"], seen["pipeline"]
    balanced = ledger["accepted"] == ledger["pending"] + ledger["stored"] + ledger["duplicate"] + ledger["quarantined"]
    blind = bool(pipeline["blind"] and pipeline["blind"]["causes"])
    cut_off = running and (blind or not (pipeline["broker"]["connected"] and pipeline["store"]["ok"]))
    stopped = running and pipeline["pressure"]["level"] == Level.STOPPED
    if as_json:
        _print_json({"running": running, "balanced": balanced, **seen})
    else:
        equation = "{accepted} = {pending} pending + {stored} stored + {duplicate} duplicate + {quarantined} quarantined"
        lines = {
            "worker": "running" if running else "stopped",
            "accepted": equation.format(**ledger) + ("" if balanced else "   DOES NOT BALANCE"),
            "broker": pipeline["broker"]["detail"] if running else "–",
            "store": f"{pipeline['store']['name']}: {pipeline['store']['detail']}" if running else pipeline["store"]["name"],
            "room": _room_line(pipeline["pressure"]),
            "disk": f"a commit takes {pipeline['commit_ms']:.1f} ms of late" if running else "–",
            "in its turn": pipeline["set_aside"]["detail"] or "no device sends more than is judged at once",
            "canary": _canary_line(pipeline["canary"]) if running else "–",
            "webhook": _webhook_line(pipeline["webhook"]),
            "certificates": _certificates_line(pipeline["certificates"]) if running else "–",
            "unseen": _blind_line(pipeline["blind"]),
            "observed until": _when(pipeline["observed_until_ms"]),
            "devices": "{known} known, {online} online, {running} running".format(**seen["devices"]),
            "open alerts": "{critical} critical, {warning} warning, {info} info ({unacknowledged} not acknowledged)".format(**seen["alerts_open"]),
            "quarantine": _quarantine_line(pipeline["quarantine"]),
        }
        for name, value in lines.items():
            out.print(f"{name:>15}  {value}", markup=False)
    raise typer.Exit(0 if balanced and not cut_off and not stopped else 1)


def _room_line(seen: dict[str, Any]) -> str:
    says = {Level.NORMAL: "", Level.HIGH: "HIGH: ", Level.STOPPED: "STOPPED, nothing is accepted until there is more: "}
    return says[Level(seen["level"])] + seen["detail"]


def _quarantine_line(seen: dict[str, Any]) -> str:
    why = ", ".join(f"{n} {reason}" for reason, n in seen["open_by_reason"].items())
    rest = [f"{seen[state]} {state}" for state in ("waiting", "replayed", "discarded") if seen[state]]
    if not seen["open"] and not rest:
        return "empty"
    room = f"{seen['bytes'] / 2**20:.1f} of {seen['bytes_most'] / 2**20:.0f} MiB"
    return "; ".join([f"{seen['open']} open" + (f" ({why})" if why else ""), *rest, room])


def _canary_line(seen: dict[str, Any] | None) -> str:
    if seen is None:
        return "off; MICROCURRENT_CANARY_INTERVAL_S turns it on"
    if seen["through_ms"] is None:
        last = "none has come through yet"
    else:
        last = f"came through at {_when(seen['through_ms'])} in {seen['took_s']:.2f} s ({seen['ends_at']})"
    return f"{last}; missing since {_when(seen['missing_since_ms'])}: {seen['stuck']}" if seen["missing_since_ms"] else last


def _certificates_line(seen: dict[str, Any] | None) -> str:
    """Those that end soon; the first to end where none does."""
    if seen is None:
        return "not looked at yet"
    devices, known = seen["devices"], [f"{c['name']} ({c['place']}) {c['says']}" for c in seen["known"]]
    parts = [said for said, c in zip(known, seen["known"], strict=True) if c["severity"]] or [said + (f", the first of {len(known)}" if known[1:] else "") for said in known[:1]]
    if devices["known"]:
        first = f", the first {devices['first']['name']}, {devices['first']['says']}" if devices["ending"] or devices["ended"] else ""
        parts.append(f"of {devices['known']} devices' {devices['ending']} end within {seen['warn_days']} days, {devices['ended']} have ended{first}")
    parts += [f"{place} cannot be read: {why}" for place, why in seen["unread"].items()]
    return "; ".join(parts) or "none that the worker knows of"


def _blind_line(seen: dict[str, Any] | None) -> str:
    if seen is None:
        return "nothing that is known of"
    if not seen["causes"]:
        return f"all is seen again; see alert {seen['alert_id']}"
    return "; ".join(f"since {_when(c['since_ms'])} {c['means']}" + (f" ({c['detail']})" if c["detail"] else "") for c in seen["causes"])


def _webhook_line(seen: dict[str, Any] | None) -> str:
    if seen is None:
        return "not configured"
    counts = "{waiting} waiting, {failed} failed, {dropped} dropped".format(**seen)
    return f"{counts}, last success {_when(seen['last_success_ms'])}; {seen['detail']}"


@app.command()
def security(
    kind: Annotated[SecurityKind | None, typer.Option(help="Only these.")] = None, data_dir: DataDir = None, most: Most = 100, as_json: Json = False
) -> None:
    """List attempts to get in, or to be somebody else, and certificates that end, the newest first; the same ones within an hour are one."""
    with _records(data_dir) as records:
        found = records.security({"limit": str(most)} | ({"kind": kind.value} if kind else {}))["events"]
    if as_json:
        _print_json(found)
        return
    if not found:
        out.print("none on record")
        return
    _table(
        ["last", "kind", "times", "who", "from", "first", "what"],
        [[_when(e["last_ms"]), e["kind"], str(e["times"]), e["who"], e["source"], _when(e["first_ms"]), e["detail"]] for e in found],
    )


@app.command()
def reconcile(
    device: Annotated[str | None, typer.Option(help="Only this device.", show_default=False)] = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Compare the ledger, device by device, with what the store really holds; the worker may go on meanwhile.

    Ends with 1 if a message is lost, doubled or unknown, and names the first of each.
    """
    with _records(data_dir) as records, bar("comparing the journal with the store", silent=as_json) as progress:
        found = records.reconcile(device, progress)
    if as_json:
        _print_json(found)
    else:
        out.print(f"{found['messages']} messages of {found['devices']} devices: "
                  f"{found['lost']} lost, {found['doubled']} doubled, {found['spurious']} unknown; "
                  f"the ledger {'balances' if found['balanced'] else 'DOES NOT BALANCE'}")  # fmt: skip
        if found["unverified"]:
            out.print(f"{found['unverified']} more are stored of boots that are no longer on record")
        for kind, entries in found["differences"].items():
            for entry in entries:
                out.print(f"  {kind}: {entry['device_id']} boot {entry['boot_id']} seq {entry['seq']}", markup=False)
            if found[kind] > len(entries):
                out.print(f"  and {found[kind] - len(entries)} more {kind}")
    raise typer.Exit(0 if found["ok"] else 1)


@app.command()
def backtest(
    profiles: Annotated[Path, typer.Option("--profiles", help="Directory of the profiles to try.")],
    since: Annotated[str | None, typer.Option(help="Only sessions that lasted until then or longer: 2026-05-01, 2026-05-01T08:30 (UTC), or an age: 90m, 2h, 7d.")] = None,
    until: Annotated[str | None, typer.Option(help="Only sessions that began before then, likewise.")] = None,
    devices: Annotated[str | None, typer.Option(help="Only these, by id, with commas between them.")] = None,
    data_dir: DataDir = None,
    most: Most = 20,
    as_json: Json = False,
) -> None:
    """Tell what other profiles would have said: judge the messages on record under them, and under those in force.

    Sessions that overlap the time are judged whole, by event time; when a message arrived plays no
    part. The rule on the fleet sees the sessions that are judged, and no others. The journal is only
    read, so the worker may run meanwhile. Exit codes: 0 nothing differs, 3 something does, 2 a mistake.
    """
    from ingest.app import clock_of, profiles_of
    from ingest.backtest import Backtest, choice_of
    from ingest.journal.reader import Reader

    settings = load_settings(data_dir=data_dir)
    choice = choice_of(since, until, devices, clock_of(settings).now_ms())
    in_force, tried = profiles_of(settings), profiles_of(settings.model_copy(update={"profiles_dir": profiles}))
    with Reader(settings.data_dir) as reader, bar("judging", silent=as_json) as progress:
        result = Backtest(reader, in_force, tried, choice, most).run(progress)
    found = result.to_json()
    if as_json:
        _print_json(found)
    else:
        _print_backtest(found)
    raise typer.Exit(EXIT_DIFFERS if result.differs else 0)


def _print_backtest(found: dict[str, Any]) -> None:
    out.print("judged {samples} samples in {messages} messages, {sessions} sessions of {devices} devices".format(**found["judged"]))
    kinds = ("before", "after", "added", "removed", "changed")
    out.print("alerts: {before} in force, {after} tried: {added} added, {removed} removed, {changed} changed".format(**found["totals"]))
    if found["changed_in_name_alone"]:
        out.print(f"{found['changed_in_name_alone']} of those changed name another version of the profile, and nothing else")
    if found["changed_fields"]:
        out.print("changed in " + ", ".join(f"{name} ({number})" for name, number in found["changed_fields"].items()))
    differing = [group for group in found["groups"] if group["added"] or group["removed"] or group["changed"]]
    if not differing:
        return
    rows = [[group["rule"], group["model"], group["fw"], *(str(group[kind]) for kind in kinds)] for group in differing]
    out.print()
    _table(["rule", "model", "firmware", *kinds], rows)
    out.print()
    rows = []
    for each in found["alerts"]:
        shown = each["after"] or each["before"]
        names = ["severity", *(n for n in each["fields"] if n != "severity")] if each["fields"] else ["severity", "value", "limit"]
        said = ", ".join(f"{name} {_turned(name, each)}" for name in names)
        rows.append([each["difference"], shown["rule"], shown["device_id"], shown["session_id"] or "–", _when(shown["onset_ms"]), said])
    _table(["", "rule", "device", "session", "onset", "what"], rows)
    left = sum(found["totals"][kind] for kind in ("added", "removed", "changed")) - len(rows)
    if left:
        out.print(f"and {left} more; --limit shows more of them, the gravest first")


def _turned(name: str, each: dict[str, Any]) -> str:
    """A field of an alert, as it was and as it would be."""
    said = []
    for alert in (each["before"], each["after"]):
        if alert is not None:
            value = alert[name]
            said.append(_when(value) if name.endswith("_ms") else f"{value:.4g}" if isinstance(value, float) else str(value))
    return " → ".join(dict.fromkeys(said))


# -- the contract -----------------------------------------------------------------------------------


@schemas_app.command("export")
def schemas_export(
    directory: Annotated[Path | None, typer.Argument(help="Where to write; the package's own directory when absent.", show_default=False)] = None,
    as_json: Json = False,
) -> None:
    """Write the JSON Schemas and the AsyncAPI 3 document, generated from the models."""
    import schemas
    from schemas.export import export

    target = directory or Path(schemas.__file__).parent / "generated"
    try:
        written = export(target)
    except OSError as error:
        raise Mistake(f"{target}: cannot write there ({error.strerror})") from error
    if as_json:
        _print_json([str(path) for path in written])
    else:
        for path in written:
            out.print(str(path), markup=False)



if __name__ == "__main__":
    main()
