"""`microcurrent alerts …`: which there are, what happened to them, and what people say of them."""

from typing import Annotated, Any

import typer

from ingest.console import DataDir, Json, Most, out, print_json, records_of, table, when, who_says
from ingest.errors import Mistake
from ingest.filters import Standing, read_filter
from schemas.alerts import Severity

alerts_app = typer.Typer(no_args_is_help=True, help="Look at alerts, acknowledge and assign them, and say what was found.")

AlertId = Annotated[str, typer.Argument(help="From 'alerts list'.")]
By = Annotated[str | None, typer.Option(help="Who says so; the login name when absent.")]


@alerts_app.command("list")
def alerts_list(
    data_dir: DataDir = None,
    state: Annotated[Standing, typer.Option(help="'over' is closed or withdrawn; 'attention' is open, or grave and not acknowledged.")] = Standing.ALL,
    severity: Annotated[Severity | None, typer.Option(help="Only these.")] = None,
    rule: Annotated[str | None, typer.Option(help="Only of this rule.")] = None,
    model: Annotated[str | None, typer.Option(help="Only of devices of this model.")] = None,
    fw: Annotated[str | None, typer.Option(help="Only of devices with this firmware.")] = None,
    device: Annotated[str | None, typer.Option(help="Only of this device.")] = None,
    since: Annotated[str | None, typer.Option(help="Not those that ended before: a date, a time (UTC), or an age such as 2h or 7d.")] = None,
    until: Annotated[str | None, typer.Option(help="Not those that were raised after; a date is all of its day.")] = None,
    unacknowledged: Annotated[bool, typer.Option("--unacknowledged", help="Only those that nobody has acknowledged.")] = False,
    assigned_to: Annotated[str | None, typer.Option(help="Only those assigned to this person.")] = None,
    most: Most = 100,
    as_json: Json = False,
) -> None:
    """List alerts, newest first. Times are event time, UTC."""
    asked = {
        "state": state.value, "severity": severity, "rule": rule, "model": model, "fw": fw, "device": device, "since": since,
        "until": until, "assigned_to": assigned_to, "unacknowledged": "true" if unacknowledged else None, "limit": str(most),
    }  # fmt: skip
    words = {name: str(text) for name, text in asked.items() if text is not None}
    read_filter(words, 0)  # a mistake is told here, whoever answers
    with records_of(data_dir) as records:
        found = records.alerts(words)["alerts"]
    if as_json:
        print_json(found)
        return
    if not found:
        out.print("no alerts")
        return
    table(
        ["id", "severity", "rule", "device", "opened", "state", "value", "acknowledged by", "assigned to"],
        [
            [a["id"], a["severity"], a["rule"], a["device_id"], when(a["opened_ms"]),
             a["state"] + (f" ({a['close_reason']})" if a["close_reason"] else ""),
             f"{_figure(a['value'])} {a['unit']} (limit {_figure(a['limit'])})",
             a["acknowledged"]["by"] if a["acknowledged"] else "", a["assigned_to"] or ""]
            for a in found
        ],
    )  # fmt: skip


@alerts_app.command("show")
def alerts_show(alert_id: AlertId, data_dir: DataDir = None, as_json: Json = False) -> None:
    """Show one alert with everything that happened to it."""
    with records_of(data_dir) as records:
        found = _known(alert_id, records.alert(alert_id))
    if as_json:
        print_json(found)
        return
    for name, value in found["alert"].items():
        shown = when(value) if name.endswith("_ms") else value
        out.print(f"{name:>16}  {shown}", markup=False)
    table(
        ["at", "event", "severity", "by", "to", "note"],
        [
            [when(e["at_ms"]), e["event"], e["alert"]["severity"], e["actor"] or "",
             e["alert"].get("assigned_to") or "" if e["event"] == "assigned" else "", e["note"] or ""]
            for e in found["events"]
        ],
    )  # fmt: skip


@alerts_app.command("ack")
def alerts_ack(
    alert_id: AlertId,
    note: Annotated[str, typer.Option(help="What was found.")] = "",
    by: By = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Acknowledge an alert: who has seen it, when, and what was found. It is kept for good."""
    from ingest.views import person, words_of

    by, note = person(who_says(by)), words_of(note)
    with records_of(data_dir) as records:
        alert = _known(alert_id, records.acknowledge(alert_id, by, note))["alert"]
    said = alert["acknowledged"]
    _answer(alert, as_json, f"{alert_id} acknowledged by {said['by']} at {when(said['at_ms'])}")


@alerts_app.command("assign")
def alerts_assign(
    alert_id: AlertId,
    to: Annotated[str, typer.Option(help="Who shall see to it.")],
    by: By = None,
    note: Annotated[str, typer.Option(help="What is to be done.")] = "",
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Assign an alert to a person. The last one named has it; all that came before stays in its history."""
    from ingest.views import person, words_of

    to, by, note = person(to), person(who_says(by)), words_of(note)
    with records_of(data_dir) as records:
        alert = _known(alert_id, records.assign(alert_id, to, by, note))["alert"]
    _answer(alert, as_json, f"{alert_id} assigned to {alert['assigned_to']} by {by}")


@alerts_app.command("comment")
def alerts_comment(
    alert_id: AlertId,
    text: Annotated[str, typer.Argument(help="What there is to say.")],
    by: By = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Add a comment to an alert's history. The alert itself stays as it is."""
    from ingest.views import person, words_of

    by, text = person(who_says(by)), words_of(text, needed=True)
    with records_of(data_dir) as records:
        alert = _known(alert_id, records.comment(alert_id, by, text))["alert"]
    _answer(alert, as_json, f"{alert_id} commented by {by}")


@alerts_app.command("resend")
def alerts_resend(data_dir: DataDir = None, as_json: Json = False) -> None:
    """Send again what the webhook refused and 'status' counts as failed; first mend the receiver."""
    with records_of(data_dir) as records:
        found = records.resend()
    if as_json:
        print_json(found)
    else:
        out.print(f"{found['again']} waiting again")


def _figure(value: float) -> str:
    """Four digits that count, without an exponent below a million: 41 520 µA is no 4.152e+04."""
    return f"{float(f'{value:.4g}'):g}"


def _known(alert_id: str, found: dict[str, Any] | None) -> dict[str, Any]:
    if found is None:
        raise Mistake(f"alert {alert_id}: there is none with this id; see 'microcurrent alerts list'", 1)
    return found


def _answer(alert: dict[str, Any], as_json: bool, sentence: str) -> None:
    if as_json:
        print_json(alert)
    else:
        out.print(sentence, markup=False)
