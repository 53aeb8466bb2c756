"""`microcurrent backtest` beside a real worker: it answers, and the worker does not notice."""

import hashlib
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.servers import Mosquitto, wait_until
from tests.system.line import MICROCURRENT, Installation, Oracle, document, with_mosquitto

pytestmark = pytest.mark.system

SHIPPED = Path(__file__).parents[2] / "schemas" / "profiles"
DANGERS = {"before": 1, "after": 2, "added": 1, "removed": 0, "changed": 1}


def lower_limit(directory: Path) -> Path:
    """The shipped profiles, with 300 µA for the ToneDuo instead of 400."""
    directory.mkdir()
    for path in SHIPPED.glob("*.toml"):
        said = path.read_text("utf-8").replace("i_peak_max_ua = 400.0", "i_peak_max_ua = 300.0").replace("version = 1", "version = 2", 1)
        (directory / path.name).write_text(said, "utf-8")
    return directory


def files(data: Path) -> dict[str, str]:
    """What the journal's files hold; an empty log and its index hold nothing."""
    kept = [path for path in data.glob("journal*") if not path.name.endswith("-shm") and path.stat().st_size]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in kept}


def backtest(line: Installation, profiles: Path, *words: str, code: int) -> dict[str, Any]:
    done = line.command("backtest", "--profiles", str(profiles), "--json", *words)
    assert (code, "") == (done.returncode, done.stderr), done.stdout
    return json.loads(done.stdout)


def test_a_backtest_beside_a_running_worker_says_what_one_of_a_stopped_worker_says(tmp_path: Path, mosquitto: Mosquitto) -> None:
    tried = lower_limit(tmp_path / "tried")
    with with_mosquitto(tmp_path / "line", mosquitto) as line, Oracle(mosquitto.port) as oracle:
        began_ms = document(0)["ts_ms"]
        for seq in range(40):
            peak_ua = {5: 700.0, 30: 500.0}.get(seq, 200.0)
            oracle.publish("example-1", seq, ts_ms=began_ms - 60_000 + 1000 * seq, i_peak_ua=peak_ua)
        line.wait_settled(40)

        command = [MICROCURRENT, "backtest", "--profiles", tried, "--json", "--since", "1h"]
        with subprocess.Popen(command, env=line.env, cwd=line.directory, stdout=subprocess.PIPE, text=True) as process:
            seq = 0
            while process.poll() is None or seq < 50:
                oracle.publish("example-2", seq, ts_ms=began_ms + seq, session_id="s-2")
                oracle.wait_acked(41 + seq)
                seq += 1
            running = json.loads(process.communicate()[0])
        assert 3 == process.returncode
        line.wait_settled(40 + seq)

        assert DANGERS == running["totals"]
        assert DANGERS == backtest(line, tried, "--devices", "example-1", code=3)["totals"]
        assert 0 == backtest(line, SHIPPED, code=0)["totals"]["changed"]
        line.stop()
        before = files(line.data)
        stopped = backtest(line, tried, code=3)
        assert before == files(line.data)
        assert (running["totals"], running["groups"], running["alerts"]) == (stopped["totals"], stopped["groups"], stopped["alerts"])
        assert {"devices": 2, "sessions": 2, "messages": 40 + seq, "samples": 40 + seq, "unreadable": 0} == stopped["judged"]
        line.start()
        assert 40 + seq == line.ledger()["stored"]


def test_a_backtest_tells_a_person_what_comes_what_goes_and_what_changes(tmp_path: Path, mosquitto: Mosquitto) -> None:
    tried = lower_limit(tmp_path / "tried")
    with with_mosquitto(tmp_path / "line", mosquitto) as line:
        with Oracle(mosquitto.port) as oracle:
            oracle.publish("example-1", 0, i_peak_ua=500.0)
            line.wait_settled(1)
        done = line.command("backtest", "--profiles", str(tried))
        assert (3, "") == (done.returncode, done.stderr)
        said = [" ".join(row.split()) for row in done.stdout.splitlines()]
        assert [
            "judged 1 samples in 1 messages, 1 sessions of 1 devices",
            "alerts: 0 in force, 1 tried: 1 added, 0 removed, 0 changed",
        ] == said[:2]
        assert "overcurrent-peak toneduo-400 2.3.1 0 1 1 0 0" in said
        assert said[-1].startswith("added overcurrent-peak example-1 s-1 ") and said[-1].endswith("severity critical, value 500, limit 450")

        mine, theirs = os.openpty()
        with subprocess.Popen(
            [MICROCURRENT, "backtest", "--profiles", tried], env=line.env, cwd=line.directory, stdout=subprocess.PIPE, stderr=theirs
        ) as process:
            process.communicate(timeout=120)
        os.close(theirs)
        assert b"judging" in os.read(mine, 65_536)
        os.close(mine)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--profiles", "nowhere"], "profile nowhere: no such directory of profiles"),
        (["--profiles", SHIPPED, "--since", "soon"], "--since 'soon': no time; write 2026-05-01, 2026-05-01T08:30, or an age such as 90m, 2h or 7d"),
        (["--profiles", SHIPPED, "--data-dir", "nowhere"], "nowhere: there is no journal; name the data directory of a worker with --data-dir"),
    ],
)
def test_what_a_backtest_cannot_do_is_one_sentence(tmp_path: Path, words: list[Any], sentence: str) -> None:
    done = Installation(tmp_path).command("backtest", *(str(word) for word in words))
    assert (2, "", f"microcurrent: {sentence}\n") == (done.returncode, done.stdout, done.stderr)


def test_check_tells_which_firmware_has_a_profile(tmp_path: Path) -> None:
    directory = lower_limit(tmp_path / "tried")
    tone = directory / "toneduo-400.toml"
    tone.write_text(tone.read_text("utf-8").replace('model = "toneduo-400"', 'model = "toneduo-400"\nfw_from = "2.0"'), "utf-8")
    done = Installation(tmp_path / "line", broker="external", mqtt_port=1, profiles_dir=directory).command("check")
    expected = "ok    profile coverage: toneduo-400: firmware from 2.0; any other device is judged by what holds for every device"
    assert expected in done.stdout.splitlines()


def test_a_journal_is_left_to_its_worker(tmp_path: Path, mosquitto: Mosquitto) -> None:
    """A back-test that lasts does not keep a worker from ending in order, nor the next from starting."""
    with with_mosquitto(tmp_path / "line", mosquitto) as line:
        with Oracle(mosquitto.port) as oracle:
            oracle.publish("example-1", 0)
            line.wait_settled(1)
        several = [
            subprocess.Popen([MICROCURRENT, "backtest", "--profiles", SHIPPED, "--json"], env=line.env, cwd=line.directory, stdout=subprocess.PIPE)
            for _ in range(3)
        ]
        assert 0 == line.stop()
        line.start()
        wait_until(lambda: all(each.poll() is not None for each in several), 60, "the back-tests to end")
        assert [0, 0, 0] == [each.returncode for each in several]
        assert [1, 1, 1] == [json.loads(each.communicate()[0])["judged"]["messages"] for each in several]
