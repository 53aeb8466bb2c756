"""`microcurrent demo`: the whole thing on one machine, with a simulated fleet and the truth about it."""

import json
import os
import signal
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from ingest import observe
from ingest.client import Remote, address_of
from ingest.embedded import broker
from ingest.errors import Mistake
from ingest.network import can_listen, free_port
from ingest.safety.rule import Scope
from ingest.safety.rules import RULES
from ingest.settings import Broker, Settings, Store, load_settings
from ingest.simulate import fleet_of
from ingest.simulator.clock import read_clock
from ingest.simulator.score import score
from ingest.simulator.truth import read_truth
from ingest.supervisor import supervisor_of
from ingest.tokens import command_token
from schemas.alerts import LINE_RULE_IDS

HISTORY_S = 3_000
"""How much of the past the devices live through first."""

SCENARIOS = "faults"
"""What goes wrong in the first minutes of that past, once each; sound devices are in the fleet anyway."""

FIRST_WITHIN_S = 5_400
"""Healthy households begin within so long: some in the past, some while a person is looking."""

PAUSE_MS = 120_000
"""Between one demo and the next, longer than the time of a device without a clock can be mistaken."""

CATCH_UP_S = 20.0
FASTEST = 200.0
PREFERRED_PAGE_PORT = 8480
START_DEADLINE_S = 30.0
STUCK_S = 60.0
"""At the end, so long without anything moving is taken for a defect; a slow machine may take longer."""

SETTLE_MS = 15_000
PROGRESS_S = 2.0
ACROSS_SESSIONS = frozenset(rule.id for rule in RULES if any(limb.scope in (Scope.HISTORY, Scope.FLEET) for limb in rule.limbs))


class Demo:
    """One run. Data of earlier runs in the same directory stay, and the fleet goes on from them."""

    def __init__(
        self, data_dir: Path, seconds: float | None, devices: int, speed: float | None, seed: int, live: bool
    ) -> None:
        self._dir = data_dir
        self._seconds = seconds
        self._devices = devices
        self._seed = seed
        self._live = live and sys.stderr.isatty()
        self._console = Console(stderr=True, highlight=False)
        self._stop = threading.Event()
        self._clock_file = data_dir / "clock"
        self._earlier: set[str] = set()
        self._truth = data_dir / "truth.jsonl"
        now_ms = time.time_ns() // 1_000_000
        lived_s = seconds if seconds is not None else CATCH_UP_S
        self._speed = speed if speed is not None else min(FASTEST, HISTORY_S / lived_s)
        past_s = HISTORY_S if seconds is None else self._speed * seconds
        began = now_ms - int(past_s * 1000)
        self._continued = self._ended_last_ms() > 0
        self._start_ms = max(began, self._ended_last_ms() + PAUSE_MS) if self._ended_last_ms() else began
        self._start_ms = min(self._start_ms, now_ms)

    def _ended_last_ms(self) -> int:
        try:
            return read_clock(self._clock_file)
        except (OSError, struct.error):
            return 0

    def run(self) -> dict[str, Any]:
        """Start everything, live, stop politely, and compare what was said with what was true."""
        observe.configure_logging("error")
        self._dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        settings = self._settings()
        broker.simulated_passwords(settings, [role.device_id for role in fleet_of(self._devices, SCENARIOS)])
        supervisor = supervisor_of(settings, worker_log=self._dir / "worker.log")
        self._write_clock(self._start_ms)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._stop.set())
        supervisor.start()
        watcher = threading.Thread(target=supervisor.watch, daemon=True)
        watcher.start()
        simulator = None
        try:
            remote = self._wait_for_page(settings, supervisor.children[-1])
            self._say(f"Page  {remote.url}")
            self._earlier = {a["id"] for a in remote.alerts({"limit": "10000"})["alerts"]}
            simulator = self._start_simulator(settings)
            self._watch_over(remote, simulator)
            return self._conclude(remote, simulator)
        finally:
            if simulator is not None and simulator.poll() is None:
                simulator.kill()
            supervisor.stop()

    def _settings(self) -> Settings:
        port = PREFERRED_PAGE_PORT if can_listen("127.0.0.1", PREFERRED_PAGE_PORT) else free_port()
        return load_settings(
            data_dir=self._dir,
            broker=Broker.EMBEDDED,
            store=Store.DUCKDB,
            mqtt_bind="127.0.0.1",
            mqtt_port=free_port(),
            http_host="127.0.0.1",
            http_port=port,
            clock_file=self._clock_file,
            pulse_interval_ms=50,
            durable_ack_interval_ms=50,
        )

    def _write_clock(self, now_ms: int) -> None:
        file = os.open(self._clock_file, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            os.pwrite(file, struct.pack("<q", now_ms), 0)
        finally:
            os.close(file)

    def _wait_for_page(self, settings: Settings, worker: Any) -> Remote:
        until = time.monotonic() + START_DEADLINE_S
        while time.monotonic() < until and not self._stop.is_set():
            address = address_of(settings.data_dir)
            if address is not None:
                remote = Remote(address, command_token(settings.data_dir))
                if remote.overview()["pipeline"]["broker"]["connected"]:
                    return remote
            code = worker.process.poll()
            if code in worker.final_codes:
                raise Mistake(_last_words(self._dir / "worker.log") or f"the worker ended with code {code}", code or 1)
            time.sleep(0.05)
        raise Mistake(f"the worker did not start; see {self._dir / 'worker.log'} and {self._dir / 'broker.log'}", 1)

    def _start_simulator(self, settings: Settings) -> subprocess.Popen:
        self._truth.unlink(missing_ok=True)
        argv = [
            sys.executable, "-P", "-m", "ingest.cli", "simulate", "--json",
            "--scenarios", SCENARIOS, "--first-within", str(FIRST_WITHIN_S),
            "--host", "127.0.0.1", "--port", str(broker.worker_endpoint(settings).port),
            "--credentials", str(settings.credentials_dir / broker.SIMULATED_FILE),
            "--devices", str(self._devices), "--seed", str(self._seed), "--speed", str(self._speed),
            "--start-ms", str(self._start_ms), "--truth", str(self._truth), "--clock-file", str(self._clock_file),
        ]  # fmt: skip
        log = (self._dir / "simulator.log").open("wb")
        return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True)

    def _watch_over(self, remote: Remote, simulator: subprocess.Popen) -> None:
        """Show how it goes, until the time is over or somebody stops it."""
        until = None if self._seconds is None else time.monotonic() + self._seconds
        live = Live(console=self._console, auto_refresh=False) if self._live else None
        if live:
            live.start()
        try:
            spoken = 0.0
            while not self._stop.wait(0.5) and simulator.poll() is None and (until is None or time.monotonic() < until):
                try:
                    seen = remote.overview()
                except Mistake:
                    continue  # the worker is being restarted
                if live:
                    live.update(_summary(remote.url, seen), refresh=True)
                elif time.monotonic() - spoken >= PROGRESS_S:
                    spoken = time.monotonic()
                    self._say(_one_line(seen))
        finally:
            if live:
                live.stop()

    def _conclude(self, remote: Remote, simulator: subprocess.Popen) -> dict[str, Any]:
        self._say("Ending the sessions and waiting until everything is stored …")
        report = self._ended(remote, simulator)
        end_ms = read_clock(self._clock_file)
        self._write_clock(end_ms + SETTLE_MS)  # time passes, so that nothing still waits for company
        seen = self._settled(remote, end_ms + SETTLE_MS)
        alerts = [a for a in remote.alerts({"limit": "10000"})["alerts"] if a["id"] not in self._earlier]
        alerts = [a for a in alerts if a["rule"] not in LINE_RULE_IDS]  # the truth is of the devices
        truth = read_truth(self._truth)
        if self._continued:  # what the devices did in earlier demos counts too, and this truth does not know it
            expected = {(e.device_id, e.rule) for e in truth.expectations}
            alerts = [a for a in alerts if a["onset_ms"] >= self._start_ms - PAUSE_MS // 2]
            alerts = [a for a in alerts if a["rule"] not in ACROSS_SESSIONS or (a["device_id"], a["rule"]) in expected]
        verdict = score(truth, alerts, end_ms)
        reconciled = remote.reconcile()
        ledger = seen["ledger"]
        balanced = ledger["accepted"] == ledger["pending"] + ledger["stored"] + ledger["duplicate"] + ledger["quarantined"]
        outcome = {
            **{name: ledger[name] for name in ("accepted", "stored", "duplicate", "quarantined", "pending")},
            "balanced": balanced,
            "lost": reconciled["lost"],
            "doubled": reconciled["doubled"],
            "devices": report["devices"],
            "samples": report["samples"],
            "messages": report["messages"],
            "unacknowledged": report["unacked"],
            "simulated_s": round(report["simulated_s"], 1),
            "alerts_expected": verdict.expected,
            "alerts_raised": verdict.raised,
            "alerts_missed": verdict.missed,
            "alerts_false": verdict.false,
        }
        accounted = balanced and ledger["pending"] == 0 and reconciled["ok"] and report["unacked"] == 0
        outcome["ok"] = accounted and verdict.missed == 0 and verdict.false == 0
        for detail in verdict.details:
            if detail.verdict not in ("found",):
                self._say(f"{detail.verdict}: {detail.rule} on {detail.device_id} (scenario {detail.scenario})")
        self._say(
            f"{outcome['accepted']} messages accepted = {outcome['stored']} stored + {outcome['duplicate']} duplicate "
            f"+ {outcome['quarantined']} quarantined + {outcome['pending']} pending; "
            f"{verdict.raised} alerts raised, {verdict.expected} expected, {verdict.missed} missed, {verdict.false} false; "
            f"{outcome['lost']} lost, {outcome['doubled']} doubled, {outcome['unacknowledged']} never acknowledged to their device"
        )
        return outcome

    def _ended(self, remote: Remote, simulator: subprocess.Popen) -> dict[str, Any]:
        """What the simulator reports once it has ended, as it does when all is acknowledged or nothing moves."""
        asked = time.monotonic()
        while not self._truth.exists() and simulator.poll() is None and time.monotonic() - asked < STUCK_S:
            time.sleep(0.05)  # still being loaded, it would end without a word
        simulator.send_signal(signal.SIGTERM)
        accepted, moved = None, time.monotonic()
        while time.monotonic() - moved < STUCK_S:
            try:
                said, _ = simulator.communicate(timeout=1.0)
                return json.loads(said)
            except subprocess.TimeoutExpired:
                pass
            except ValueError:
                break
            try:
                now_accepted = remote.overview()["ledger"]["accepted"]
            except Mistake:
                continue  # the worker is being restarted
            if now_accepted != accepted:
                accepted, moved = now_accepted, time.monotonic()
        raise Mistake(f"the simulator did not end as it should; see {self._dir / 'simulator.log'}", 1)

    def _settled(self, remote: Remote, until_ms: int) -> dict[str, Any]:
        """What there is to see once everything is stored and judged, or nothing moves any more."""
        seen = remote.overview()
        state, moved = None, time.monotonic()
        while time.monotonic() - moved < STUCK_S:
            observed_ms = seen["pipeline"]["observed_until_ms"] or 0
            if seen["ledger"]["pending"] == 0 and observed_ms >= until_ms:
                break
            if (seen["ledger"], observed_ms) != state:
                state, moved = (seen["ledger"], observed_ms), time.monotonic()
            time.sleep(0.1)
            seen = remote.overview()
        return seen

    def _say(self, line: str) -> None:
        self._console.print(line, markup=False, soft_wrap=True)


def _one_line(seen: dict[str, Any]) -> str:
    ledger, opened = seen["ledger"], seen["alerts_open"]
    at = time.strftime("%H:%M:%S", time.localtime(seen["now_ms"] / 1000))
    return (
        f"{at}  {seen['devices']['running']} of {seen['devices']['known']} devices running, "
        f"{ledger['accepted']} messages accepted, {ledger['pending']} pending, "
        f"{opened['critical']} critical and {opened['warning']} warning alerts open"
    )


def _summary(url: str, seen: dict[str, Any]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_row("[bold]Page[/bold]", f"[bold]{url}[/bold]   (Ctrl-C stops)")
    table.add_row("Fleet", "{known} devices, {online} online, {running} running".format(**seen["devices"]))
    table.add_row("Ledger", "{accepted} accepted = {pending} pending + {stored} stored + {duplicate} duplicate + {quarantined} quarantined".format(**seen["ledger"]))
    table.add_row("Alerts", "{critical} critical, {warning} warning open".format(**seen["alerts_open"]))
    table.add_row("Rate", f"{seen['pipeline']['rate_per_s']:.0f} messages/s, time {time.strftime('%H:%M:%S', time.localtime(seen['now_ms'] / 1000))}")
    return table


def _last_words(log: Path) -> str:
    try:
        lines = [line for line in log.read_text(errors="replace").splitlines() if line.startswith("microcurrent: ")]
    except OSError:
        return ""
    return lines[-1].removeprefix("microcurrent: ") if lines else ""
