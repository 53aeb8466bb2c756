"""Rows 1 to 7: the worker dies."""

import time

from tests.faults.harness import Trial, row


@row(1, "worker killed at random moments", lasts_s=60)
def killed_at_random(trial: Trial) -> None:
    kills = trial.scale(30, 1000)
    with trial.mosquitto() as broker, trial.line(broker) as line, trial.oracle() as oracle:
        oracle.devices(16, broker.port, births=True)
        oracle.issue(60_000 if not trial.full else 1_000_000, per_s=1200)
        for n in range(kills):
            time.sleep(trial.chance.uniform(0.0, 0.9))
            trial.kill_worker(line, timed=n % 3 > 0)  # every third dies before it serves
        line.wait_ready()
        oracle.wait_acknowledged(300)
        trial.judge(line, oracle, duplicates=True)
