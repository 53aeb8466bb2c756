"""Rows 9 to 14: the broker dies, with what it had promised; and the embedded one, which must not lose anything."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

from tests.faults.line import Line, kill
from tests.faults.matrix import row
from tests.faults.oracle_client import Oracle
from tests.faults.trial import Trial
from tests.servers import LOOPBACK, Mosquitto, wait_until
from tests.system.line import MICROCURRENT

SHIPPED = Path(__file__).parents[2] / "ingest" / "deploy" / "broker.sh"


class ShippedStart(Mosquitto):
    """Mosquitto under the start script of the stack, moved to where a trial can run it."""

    def command(self) -> list[str]:
        places = {"/mosquitto/config": "config", "/mosquitto/run": "run", "/mosquitto/data": "data", "/mosquitto/log": "log", "/run/secrets": "secrets"}
        script = SHIPPED.read_text()
        for shipped, here in places.items():
            (self.directory / here).mkdir(exist_ok=True)
            script = script.replace(shipped, str(self.directory / here))
        for name in ("mosquitto_passwords", "revoked_devices"):
            (self.directory / "secrets" / name).touch()
        (self.directory / "config" / "acl").touch()
        (self.directory / "config" / "mosquitto.conf").write_text(self.config.read_text())
        (self.directory / "config" / "broker.sh").write_text(script)
        path = f"{Path(self.executable).parent}:{os.environ['PATH']}"
        return ["env", f"PATH={path}", "sh", str(self.directory / "config" / "broker.sh"), "start"]


def lost_sessions(line: Line) -> int:
    return line.logged("event=broker_session_lost")


def kill_broker(trial: Trial, broker: Mosquitto, stay_away_s: float = 0.0) -> None:
    broker.kill()
    trial.outcome.kills += 1
    trial.happened("broker killed")
    time.sleep(stay_away_s)


@row(9, "broker killed, its last save kept", lasts_s=40)
def session_kept(trial: Trial) -> None:
    """Mosquitto saves now and then, so it comes back with an older state: only the durable acknowledgement repairs that."""
    with trial.mosquitto(settings={"autosave_interval": "1"}) as broker, trial.line(broker) as line, trial.oracle() as oracle:
        oracle.devices(12, broker.port, births=True)
        oracle.issue(10_000_000, per_s=500)
        for _ in range(trial.scale(5, 100)):
            time.sleep(trial.chance.uniform(0.5, 2.5))
            kill_broker(trial, broker, trial.chance.uniform(0, 0.5))
            broker.start()
        oracle.halt()
        oracle.wait_acknowledged()
        trial.judge(line, oracle)


@row(10, "broker killed, its session lost", lasts_s=40)
def session_lost(trial: Trial) -> None:
    with trial.mosquitto() as broker, trial.line(broker) as line, trial.oracle() as oracle:
        oracle.devices(12, broker.port, births=True)
        oracle.issue(10_000_000, per_s=500)
        for _ in range(trial.scale(5, 100)):
            time.sleep(trial.chance.uniform(0.5, 1.5))
            before = lost_sessions(line)
            kill_broker(trial, broker, trial.chance.uniform(0, 0.3))
            broker.data.unlink(missing_ok=True)
            broker.start()
            wait_until(lambda: lost_sessions(line) > before, 40, f"broker_session_lost to be said\n{line.tail(5)}")  # noqa: B023
            trial.happened("session loss said")
        oracle.halt()
        oracle.wait_acknowledged()
        trial.judge(line, oracle)


@row("10b", "the same for devices that hear no durable acknowledgement", lasts_s=35)
def session_lost_without_durable_acknowledgement(trial: Trial) -> None:
    """They let go of what the broker has PUBACKed. What is lost with it must be reported: exactly these numbers."""
    with trial.mosquitto() as broker, trial.line(broker) as line, trial.oracle() as oracle:
        oracle.devices(6, broker.port, durable=False)
        for _ in range(trial.scale(3, 50)):
            oracle.issue(600, per_s=600)
            oracle.wait_acknowledged()
            line.wait_settled(0)
            line.leave_only_the_broker()
            oracle.issue(120)  # into the queue of a worker that is away
            oracle.wait_acknowledged()
            kill_broker(trial, broker)
            broker.data.unlink(missing_ok=True)
            broker.start()
            line.thaw()
            line.wait_ready()
            trial.happened("messages PUBACKed and lost", 120)
        oracle.issue(60)  # the next messages show the holes
        oracle.wait_acknowledged()
        trial.judge(line, oracle, may_lose=True)
        lost = trial.outcome.figures["lost with the broker"]
        trial.must(lost >= 120, f"I10: only {lost} were lost: the trial is too kind")


@row(11, "broker and worker killed together", lasts_s=45)
def both_killed(trial: Trial) -> None:
    with trial.mosquitto(settings={"autosave_interval": "1"}) as broker, trial.line(broker) as line, trial.oracle() as oracle:
        oracle.devices(12, broker.port)
        oracle.issue(10_000_000, per_s=500)
        for n in range(trial.scale(5, 100)):
            time.sleep(trial.chance.uniform(0.5, 2.0))
            before = line.worker_id()
            if line.kill_worker():
                trial.outcome.kills += 1
            kill_broker(trial, broker, trial.chance.uniform(0, 0.3))
            if n % 2:
                broker.data.unlink(missing_ok=True)
            broker.start()
            trial.wait_serving(line, before)
        oracle.halt()
        oracle.wait_acknowledged()
        trial.judge(line, oracle)


@row(12, "broker stopped and started in order", lasts_s=30)
def graceful_restart(trial: Trial) -> None:
    """It writes what it holds: nothing is lost, although these devices let go at its PUBACK."""
    with trial.mosquitto() as broker, trial.line(broker) as line, trial.oracle() as oracle:
        oracle.devices(8, broker.port, durable=False)
        oracle.issue(10_000_000, per_s=500)
        for _ in range(trial.scale(4, 100)):
            time.sleep(trial.chance.uniform(0.5, 1.5))
            broker.stop()
            trial.happened("broker stopped")
            broker.start()
            line.wait_ready()
        oracle.halt()
        oracle.wait_acknowledged()
        trial.judge(line, oracle)


@row(13, "broker's file truncated, zeroed or turned to noise", lasts_s=40)
def file_damaged(trial: Trial) -> None:
    """Mosquitto refuses to start with such a file; the start script of the stack moves it aside."""
    with ShippedStart(trial.place("mosquitto")) as broker, trial.line(broker) as line, trial.oracle() as oracle:
        oracle.devices(8, broker.port)
        for damage in (half, zeroed, noise, zero_tail) * trial.scale(1, 20):
            oracle.issue(400, per_s=800)
            oracle.wait_acknowledged()
            before = lost_sessions(line)
            broker.stop()
            assert broker.data.stat().st_size > 0
            damage(broker.data, trial)
            trial.happened(f"file damaged: {damage.__name__}")
            broker.start()
            if damage is not zero_tail:  # of that, Mosquitto may have read the sessions
                wait_until(lambda: lost_sessions(line) > before, 40, f"broker_session_lost after {damage.__name__}")  # noqa: B023
            line.wait_ready()
        kept = list(broker.data.parent.glob("mosquitto.db.broken-*"))
        trial.must(len(kept) >= 3, f"only {len(kept)} broken files were kept aside")
        oracle.wait_acknowledged()
        trial.judge(line, oracle)


def half(path: Path, trial: Trial) -> None:
    os.truncate(path, path.stat().st_size // 2)


def zeroed(path: Path, trial: Trial) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def noise(path: Path, trial: Trial) -> None:
    path.write_bytes(trial.chance.randbytes(path.stat().st_size))


def zero_tail(path: Path, trial: Trial) -> None:
    """As some file systems leave a file after a power cut. Mosquitto takes what it can read of it, or does not start."""
    held = path.read_bytes()
    path.write_bytes(held[: len(held) // 2] + bytes(len(held) - len(held) // 2))


# -- the embedded broker ------------------------------------------------------------------------------


def embedded_devices(line: Line, oracle: Oracle, count: int, **terms: object) -> None:
    ids = [f"dev-{n}" for n in range(count)]
    passwords = json.loads(line.command("credentials", "create", *ids, "--json").stdout)
    port = int((line.data / "credentials" / "broker.port").read_text())
    oracle.devices(count, port, passwords=passwords, version=4, **terms)


@row("9e", "embedded broker and worker killed in turn", lasts_s=60)
def embedded_killed(trial: Trial) -> None:
    """Its PUBACK is the promise here: what it has acknowledged is on its disk."""
    with trial.line() as line, trial.oracle() as oracle:
        embedded_devices(line, oracle, 8, durable=False)
        oracle.issue(10_000_000, per_s=200)
        for n in range(trial.scale(8, 200)):
            time.sleep(trial.chance.uniform(0.2, 1.2))
            if n % 2:
                trial.kill_worker(line)
            else:
                pid = wait_until(lambda: line.child("nats-server"), 20, "a broker to kill")
                kill(pid)
                trial.outcome.kills += 1
                trial.happened("broker killed")
                wait_until(lambda: line.child("nats-server") not in (None, pid), 20, "another broker")  # noqa: B023
                line.wait_ready()
        oracle.halt()
        oracle.wait_acknowledged()
        trial.judge(line, oracle)


# -- the reference client -----------------------------------------------------------------------------


@row("9s", "the simulator's devices, with broker and worker killed", lasts_s=60)
def reference_client(trial: Trial) -> None:
    """`microcurrent simulate` speaks the durable acknowledgement; at its end it says what is not safe yet. Its truth file
    names every message; each must be in the store once."""
    with trial.mosquitto() as broker, trial.line(broker) as line, trial.oracle() as oracle:
        truth = line.directory / "truth.jsonl"
        command = [
            MICROCURRENT, "simulate", "--host", LOOPBACK, "--port", str(broker.port), "--protocol", "5", "--devices", "20", "--scenarios", "none", "--busy", "--first-within", "10",
            "--seconds", str(trial.scale(25, 600)), "--truth", str(truth), "--json",
        ]  # fmt: skip
        simulator = subprocess.Popen(command, env=line.env, cwd=line.directory, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            for n in range(trial.scale(4, 100)):
                time.sleep(trial.chance.uniform(2.0, 4.0))
                if n % 2:
                    trial.kill_worker(line)
                else:
                    kill_broker(trial, broker, trial.chance.uniform(0, 0.5))
                    broker.data.unlink(missing_ok=True)
                    broker.start()
            said, complaint = simulator.communicate(timeout=trial.scale(120, 900))
        finally:
            if simulator.poll() is None:
                simulator.send_signal(signal.SIGINT)
                simulator.communicate(timeout=20)
        report = json.loads(said)
        trial.must(simulator.returncode == 0, f"the simulator ended with {simulator.returncode}: {said[-300:]} {complaint[-300:]}")
        trial.must(report["unacked"] == 0, f"I1: {report['unacked']} messages are not acknowledged: {report}")
        trial.figure("sent again", report["resent"])
        line.wait_settled(0)
        found = line.reconcile()
        trial.must(found["ok"], f"reconcile: {found}")
        trial.outcome.messages += found["messages"]
        trial.outcome.lost += found["lost"]
        trial.outcome.doubled += found["doubled"]
        trial.outcome.spurious += found["spurious"]
        trial.outcome.duplicates += line.ledger()["duplicate"]
        trial.must({d: n["missing"] for d, n in line.devices().items() if n["missing"]} == {}, "I7: gaps are reported where there are none")
