"""Rows 32 to 42: two workers, and what devices and brokers say twice, late, or with a wrong clock."""

import subprocess
import time

from tests.faults.matrix import row
from tests.faults.trial import Trial
from tests.servers import wait_until
from tests.system.line import MICROCURRENT


@row(32, "two workers on one journal, and on one session", lasts_s=25)
def two_workers(trial: Trial) -> None:
    with trial.mosquitto() as broker, trial.line(broker) as line, trial.oracle() as oracle:
        oracle.devices(8, broker.port)
        oracle.issue(3_000, per_s=500)
        own = line.worker_pid
        for _ in range(trial.scale(3, 20)):
            second = subprocess.run([MICROCURRENT, "run"], env=line.env, cwd=line.directory, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)
            trial.must(second.returncode == 73, f"a second run ended with {second.returncode}, not 73: {second.stderr[-200:]}")
            worker = subprocess.run([MICROCURRENT, "worker"], env=line.env, cwd=line.directory, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)
            trial.must(worker.returncode == 73, f"a second worker ended with {worker.returncode}, not 73: {worker.stderr[-200:]}")
            trial.happened("second worker refused", 2)
        trial.must(line.worker_pid == own, "the first worker has given way")
        trial.must(line.logged("event=broker_disconnected") == 0, f"the first worker lost its session:\n{line.tail(5)}")
        oracle.wait_acknowledged()
        trial.judge(line, oracle)


@row("32b", "a copied installation takes the session over", lasts_s=30)
def copied_installation(trial: Trial) -> None:
    """Another journal under the same name at the broker: they must not take the session from each other many times a second."""
    with trial.mosquitto() as broker:
        with trial.line(broker, mqtt_client_id="ingest-both") as line, trial.line(broker, mqtt_client_id="ingest-both") as other, trial.oracle() as oracle:
            oracle.devices(4, broker.port)
            oracle.issue(trial.scale(1_000, 10_000), per_s=100)
            oracle.wait_issued(200)
            changes = line.logged("event=broker_disconnected") + other.logged("event=broker_disconnected")
            trial.figure("session changed hands", changes)
            trial.must(0 < changes <= trial.scale(10, 60), f"the session changed hands {changes} times")
            trial.happened("session taken over", changes)
            other.stop()
            line.wait_ready(330)


@row(33, "each message two to ten times, out of order", lasts_s=30)
def repeated(trial: Trial) -> None:
    with trial.mosquitto() as broker, trial.line(broker) as line, trial.oracle() as oracle:
        for repeat in (2, 5, 10):
            oracle.devices(4, broker.port, prefix=f"x{repeat}", repeat=repeat, window=60)
        oracle.issue(trial.scale(6_000, 300_000), per_s=800)
        oracle.wait_acknowledged(900)
        trial.judge(line, oracle, duplicates=True)
        trial.happened("repeated", trial.outcome.duplicates)
        trial.must(trial.outcome.duplicates >= trial.outcome.messages, f"I10: only {trial.outcome.duplicates} duplicates")


@row(35, "devices reboot, their numbers and clocks start anew", lasts_s=30)
def reboots(trial: Trial) -> None:
    """A clock in 1970 is not believed: the readings are kept at a time that can be right, and marked."""
    with trial.mosquitto() as broker, trial.line(broker) as line, trial.oracle() as oracle:
        ids = oracle.devices(8, broker.port, births=True)
        for n in range(trial.scale(5, 50)):
            oracle.issue(800, per_s=800)
            time.sleep(0.5)
            oracle.call("reboot", ids=ids, clock_ms=1_000 * n if n % 2 else None)  # in the middle: the old boot is sent beside the new one
            trial.happened("rebooted", len(ids))
            oracle.wait_issued()
        oracle.wait_acknowledged()
        trial.judge(line, oracle)


@row(42, "a retained message that is poison, and subscribed again", lasts_s=30)
def retained_poison(trial: Trial) -> None:
    with trial.mosquitto(settings={"retain_available": "true"}) as broker:
        broker.publish("mc/v1/dev-0/current", b'{"v":1,"boot_id":', retain=True, client_id="poisoner")
        with trial.line(broker) as line, trial.oracle() as oracle:
            oracle.devices(4, broker.port)
            oracle.issue(1_000, per_s=400)
            wait_until(lambda: oracle.status()["left"] == 0, 60, "the oracle to issue everything")
            broker.publish("mc/v1/dev-1/current", b'{"v":1,"boot_id":', retain=True, client_id="poisoner")
            seen = line.wait_for(lambda seen: seen["ledger"]["quarantined"] == 1, 20, "the poison to be set aside")
            for _ in range(trial.scale(4, 100)):
                trial.kill_worker(line)
            oracle.issue(200)
            oracle.wait_acknowledged()
            seen = line.overview()
            trial.must(seen["pipeline"]["quarantine_by_reason"] == {"json_syntax": 1}, f"in quarantine: {seen['pipeline']['quarantine_by_reason']}")
            trial.must(seen["ledger"]["quarantined"] == 1, f"the poison was handled {seen['ledger']['quarantined']} times")
            trial.happened("subscribed again over a retained message", trial.outcome.kills)
            rest = line.at_rest(60)
            trial.must(rest["stored"] == 1_200, f"{rest['stored']} of 1,200 are stored")
            trial.outcome.messages += 1_200
            found = line.reconcile()
            trial.must(found["ok"], f"reconcile: {found}")
            for name, times in line.reached().items():
                trial.happened(name, times)
