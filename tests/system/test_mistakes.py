"""A person's mistake is one clear sentence, an exit code that is not 0, and nothing is lost."""

import json
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers import Mosquitto, free_port, wait_until
from tests.system.line import (
    MICROCURRENT,
    Installation,
    Oracle,
    balanced,
    environment,
    listener,
    message,
    stopped_afterwards,
    topic,
    with_mosquitto,
)  # fmt: skip

pytestmark = pytest.mark.system

PROFILES = Path(__file__).parents[2] / "schemas" / "profiles"


def sentence(done: subprocess.CompletedProcess[str], code: int = 2) -> str:
    """The one line that was said, after its form has been looked at."""
    said = done.stderr.strip()
    assert "Traceback" not in said + done.stdout, said
    assert code == done.returncode, said
    lines = [line for line in said.splitlines() if not line.startswith("timestamp=")]
    assert 1 == len(lines), said
    assert lines[0].startswith("microcurrent: ")
    assert "" == done.stdout
    return lines[0].removeprefix("microcurrent: ")


def run_refused(line: Installation, code: int = 2, **settings: object) -> str:
    """What `run` says when it ends by itself at once, as it must."""
    process = subprocess.Popen(
        [MICROCURRENT, "run"], env=environment(**line.settings | settings), cwd=line.directory,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    with stopped_afterwards(process):
        try:
            out, err = process.communicate(timeout=120)
        except subprocess.TimeoutExpired:
            process.terminate()
            pytest.fail(f"it runs on:\n{process.communicate()[1][-3000:]}")
    return sentence(subprocess.CompletedProcess(process.args, process.returncode, out, err), code)


@pytest.fixture
def idle(tmp_path: Path) -> Installation:
    """Settings for a line that nothing has started; its broker is not there."""
    return Installation(tmp_path / "line", broker="external", mqtt_port=free_port())


# -- profiles ---------------------------------------------------------------------------------------


def with_text(old: str, new: str) -> object:
    def spoil(directory: Path) -> None:
        path = directory / "toneduo-400.toml"
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))

    return spoil


BAD_PROFILES = {
    "not TOML": (with_text("[output]", "[output"), "toneduo-400.toml"),
    "unknown key": (with_text("duty_max = 0.5", "duty_max = 0.5\nduty_most = 0.5"), "duty_most"),
    "missing key": (with_text("duty_max = 0.5\n", ""), "duty_max"),
    "text for a number": (with_text("i_peak_max_ua = 400.0", 'i_peak_max_ua = "much"'), "i_peak_max_ua"),
    "negative limit": (with_text("i_peak_max_ua = 400.0", "i_peak_max_ua = -1.0"), "i_peak_max_ua"),
    "beyond microcurrent": (with_text("i_peak_max_ua = 400.0", "i_peak_max_ua = 1e9"), "i_peak_max_ua"),
    "NaN": (with_text("duty_max = 0.5", "duty_max = nan"), "duty_max"),
    "upside down": (with_text("i_peak_min_ua = 80.0", "i_peak_min_ua = 800.0"), "i_peak_m"),
    "twice the same": (lambda d: shutil.copy(d / "toneduo-400.toml", d / "another.toml"), "another.toml"),
    "not UTF-8": (lambda d: (d / "toneduo-400.toml").write_bytes(b"id = \"\xff\xfe\""), "toneduo-400.toml"),
    "empty file": (lambda d: (d / "toneduo-400.toml").write_text(""), "toneduo-400.toml"),
    "no profile at all": (lambda d: [path.unlink() for path in d.iterdir()], "profiles"),
    "no such directory": (lambda d: shutil.rmtree(d), "profiles"),
    "a directory for a file": (lambda d: (d / "sub.toml").mkdir(), "sub.toml"),
}


@pytest.mark.parametrize("name", BAD_PROFILES)
def test_a_bad_profile_stops_the_start_and_is_named(idle: Installation, tmp_path: Path, name: str) -> None:
    spoil, named = BAD_PROFILES[name]
    directory = tmp_path / "profiles"
    shutil.copytree(PROFILES, directory)
    spoil(directory)
    assert named in run_refused(idle, profiles_dir=directory)


# -- settings ---------------------------------------------------------------------------------------


BAD_SETTINGS = {
    "mqtt_port": "seventy", "http_port": "70000", "broker": "carrier-pigeon", "store": "paper", "log_level": "loud",
    "mqtt_protocol": "4", "sink_batch": "0", "retention_days": "-1", "mqtt_client_id": "fleet/#", "influx_timeout_ms": "NaN",
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_SETTINGS)
def test_a_bad_setting_is_named_with_what_is_wrong(idle: Installation, name: str) -> None:
    said = run_refused(idle, **{name: BAD_SETTINGS[name]})
    assert f"MICROCURRENT_{name.upper()}" in said
    assert BAD_SETTINGS[name] in said


def test_what_lasts_may_not_be_kept_shorter_than_readings(idle: Installation) -> None:
    said = run_refused(idle, retention_days=90, summary_retention_days=30)
    assert "MICROCURRENT_SUMMARY_RETENTION_DAYS (30) is below MICROCURRENT_RETENTION_DAYS (90)" in said


@pytest.mark.parametrize("command", [["status"], ["check"], ["alerts", "list"], ["simulate"]])
def test_every_command_says_a_bad_setting_the_same_way(idle: Installation, command: list[str]) -> None:
    assert "MICROCURRENT_STORE" in sentence(idle.command(*command, store="paper"))


SECRETS = {"missing": None, "empty": b"", "blank": b" \n", "not text": b"\xff\xfe\x00", "a directory": ...}


@pytest.mark.parametrize("kind", SECRETS)
def test_a_secret_that_cannot_be_read_is_named_by_its_file(idle: Installation, tmp_path: Path, kind: str) -> None:
    setting = "influx_token_file" if kind == "missing" else "mqtt_password_file"
    path, content = tmp_path / "secret", SECRETS[kind]
    if content is ...:
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
    assert str(path) in run_refused(idle, **{setting: path}, mqtt_username="worker", store="influxdb")


def test_a_certificate_authority_that_is_none_is_named_by_its_file(idle: Installation, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("no certificate")
    assert str(tmp_path / "ca.pem") in run_refused(idle, mqtt_ca_file=tmp_path / "ca.pem")
    assert str(tmp_path / "none.pem") in run_refused(idle, mqtt_ca_file=tmp_path / "none.pem")


@pytest.mark.parametrize("url", ["", "127.0.0.1:8086", "ftp://127.0.0.1", "http://", "http://exa mple:1"])
def test_an_influxdb_address_that_is_none_is_a_mistake_and_not_a_crash(idle: Installation, url: str) -> None:
    assert "INFLUX_URL" in run_refused(idle, store="influxdb", influx_url=url)


def test_a_data_directory_that_cannot_be_made_is_named(idle: Installation, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert str(tmp_path / "file" / "data") in run_refused(idle, data_dir=tmp_path / "file" / "data")


# -- ports ------------------------------------------------------------------------------------------


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield int(server.getsockname()[1])


def test_a_page_port_in_use_is_named_with_the_setting(idle: Installation, taken: int) -> None:
    said = run_refused(idle, http_port=taken)
    assert str(taken) in said and "MICROCURRENT_HTTP_PORT" in said


def test_an_embedded_brokers_port_in_use_is_named_with_the_setting(idle: Installation, taken: int) -> None:
    said = run_refused(idle, broker="embedded", mqtt_port=taken)
    assert str(taken) in said and "MICROCURRENT_MQTT_PORT" in said


# -- one owner --------------------------------------------------------------------------------------


def test_a_second_worker_on_the_same_directory_is_refused_and_the_first_goes_on(tmp_path: Path, mosquitto: Mosquitto) -> None:
    with with_mosquitto(tmp_path / "line", mosquitto) as line:
        pid = line.worker_pid
        assert str(line.data) in run_refused(line, 73)
        assert str(line.data) in sentence(line.command("worker"), 73)
        mosquitto.publish(topic("example-1"), message(0))
        line.wait_settled(1)
        assert pid == line.worker_pid


def test_a_second_run_with_the_embedded_broker_leaves_the_first_one_its_broker(tmp_path: Path) -> None:
    with Installation(tmp_path / "line", broker="embedded", mqtt_port=0) as line:
        before = set(line.children())
        run_refused(line, 73)
        assert before == set(line.children())
        assert line.ready()


# -- journals: more in test_bad_journals.py --------------------------------------------------------------


def test_a_directory_without_a_journal_is_said(idle: Installation) -> None:
    for words in (["status"], ["alerts", "show", "abc"]):
        said = sentence(idle.command(*words))
        assert str(idle.data) in said and "microcurrent run" in said
    assert not idle.data.exists(), "only looking made a directory"


# -- what is not there ------------------------------------------------------------------------------


def test_an_unknown_alert_or_quarantine_entry_is_said_whether_the_worker_runs_or_not(tmp_path: Path, mosquitto: Mosquitto) -> None:
    def ask() -> None:
        unknown = (["alerts", "ack", "0123456789abcdef"], ["alerts", "show", "../é x"])
        unknown += (["quarantine", "show", "99999999"], ["quarantine", "show", str(10**30)])
        for words in unknown:
            assert words[2] in sentence(line.command(*words), 1)

    with with_mosquitto(tmp_path / "line", mosquitto) as line:
        ask()
        line.stop()
        ask()


@pytest.mark.parametrize("who", ["x" * 129, "\udcff"], ids=["too long", "not text"])
def test_an_acknowledgement_that_cannot_be_kept_is_said_whether_the_worker_runs_or_not(
    tmp_path: Path, mosquitto: Mosquitto, who: str
) -> None:
    with with_mosquitto(tmp_path / "line", mosquitto) as line:
        mosquitto.publish(topic("example-1"), message(0, i_peak_ua=900.0))
        (alert,) = wait_until(lambda: line.answer("alerts", "list"), 10, "an alert")
        sentence(line.command("alerts", "ack", alert["id"], "--by", who))
        sentence(line.command("alerts", "ack", alert["id"], "--by", "me", "--note", "n" * 2_001))
        assert 0 == line.logged("event=restarting")
        line.stop()
        sentence(line.command("alerts", "ack", alert["id"], "--by", who))
        assert line.answer("alerts", "show", alert["id"])["alert"]["acknowledged"] is None


def test_an_address_left_by_a_killed_worker_is_not_believed(tmp_path: Path, mosquitto: Mosquitto) -> None:
    """Its port may serve another installation now, or something else altogether."""
    port = free_port()
    ours = with_mosquitto(tmp_path / "ours", mosquitto, http_port=port)
    with ours:
        mosquitto.publish(topic("example-1"), message(0))
        ours.wait_settled(1)
        ours.kill()
        wait_until(lambda: not ours.ready(), 10, "the worker to end")
    with Mosquitto(tmp_path / "another broker") as broker, with_mosquitto(tmp_path / "theirs", broker, http_port=port):
        seen = ours.answer("status")
        assert (False, 1) == (seen["running"], seen["ledger"]["accepted"])
    stranger = subprocess.Popen(
        ["python3", "-m", "http.server", str(port), "--bind", "127.0.0.1"], cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    with stopped_afterwards(stranger):
        wait_until(lambda: socket.socket().connect_ex(("127.0.0.1", port)) == 0, 10, "a web server")
        seen = ours.answer("status")
        assert (False, 1) == (seen["running"], seen["ledger"]["accepted"])


# -- brokers that are not as they should be -----------------------------------------------------------


def test_a_broker_that_is_not_there_is_said_and_waited_for(tmp_path: Path) -> None:
    broker = Mosquitto(tmp_path / "mosquitto")
    line = with_mosquitto(tmp_path / "line", broker)
    try:
        line.start(ready=False)
        seen = line.wait_for(lambda seen: "cannot reach" in seen["pipeline"]["broker"]["detail"], 20, "the worker to say so")
        assert f"127.0.0.1:{broker.port}" in seen["pipeline"]["broker"]["detail"]
        status, check = line.command("status"), line.command("check")
        assert (1, 1) == (status.returncode, check.returncode)
        assert f"cannot reach 127.0.0.1:{broker.port}" in status.stdout
        assert f"127.0.0.1:{broker.port}" in check.stdout and "FAIL" in check.stdout
        assert "" == status.stderr + check.stderr
        with broker:
            line.wait_ready(45)
            broker.publish(topic("example-1"), message(0))
            line.wait_settled(1)
            assert (0, 0) == (line.command("status").returncode, line.command("check").returncode)
            line.stop()
    finally:
        line.end_everything()


def test_a_wrong_broker_password_is_said_and_the_right_one_mends_it(tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("hunter-7\n")
    with Mosquitto(tmp_path / "mosquitto", users={"worker": "right", "example-1": "device"}) as broker:
        line = with_mosquitto(tmp_path / "line", broker, mqtt_username="worker", mqtt_password_file=password)
        try:
            line.start(ready=False)
            line.wait_for(lambda seen: "refused by" in seen["pipeline"]["broker"]["detail"], 20, "the worker to say so")
            status, check = line.command("status"), line.command("check")
            assert (1, 1) == (status.returncode, check.returncode)
            assert "Not authorized" in status.stdout and "Not authorized" in check.stdout
            assert "hunter-7" not in status.stdout + check.stdout + line.log.read_text(), "the password is in what was said"
            line.stop()
            password.write_text("right\n")
            line.start()
            broker.publish(topic("example-1"), message(0), user="example-1")
            line.wait_settled(1)
            line.stop()
        finally:
            line.end_everything()


# -- messages against the worker itself ---------------------------------------------------------------


@pytest.mark.parametrize("payload", [b'{"pulse":' + b"9" * 5_000 + b"}", b'{"pulse":' + b"9" * 400 + b"}", b'{"pulse":-1}', b'{"pulse":x}'])
def test_a_forged_pulse_neither_kills_the_worker_nor_moves_its_clock(tmp_path: Path, mosquitto: Mosquitto, payload: bytes) -> None:
    with (
        with_mosquitto(tmp_path / "line", mosquitto, pulse_interval_ms=100) as line,
        listener(mosquitto.port, "mc/v1/+/runtime") as heard,
        Oracle(mosquitto.port) as oracle,
    ):
        _, own, _ = wait_until(lambda: heard and heard[0], 10, "a pulse")
        oracle.publish_raw(own, payload)
        oracle.publish("example-1", 0)
        line.wait_settled(1)
        seen = line.overview()
        assert seen["pipeline"]["observed_until_ms"] <= seen["now_ms"] + 1_000
        assert 0 == line.logged("event=restarting")
        assert balanced(seen["ledger"])


def test_a_chosen_session_name_gives_a_line_like_any_other(tmp_path: Path, mosquitto: Mosquitto) -> None:
    with with_mosquitto(tmp_path / "line", mosquitto, mqtt_client_id="fleet-north", pulse_interval_ms=50) as line:
        mosquitto.publish(topic("example-1"), message(0))
        line.wait_settled(1)
        line.wait_for(lambda seen: seen["pipeline"]["observed_until_ms"] is not None, 10, "a pulse")
        ledger = line.ledger()
        assert (1, 0) == (ledger["accepted"], ledger["quarantined"])


def test_a_scenario_or_protocol_that_is_none_is_said(idle: Installation) -> None:
    assert "--scenarios" in sentence(idle.command("simulate", "--scenarios", "1,x", "--seconds", "1"))
    assert "--scenarios" in sentence(idle.command("simulate", "--scenarios", "999", "--seconds", "1"))
    assert "--protocol" in sentence(idle.command("simulate", "--protocol", "6", "--seconds", "1"))
    (idle.directory / "passwords").write_text("{")
    assert "passwords" in sentence(idle.command("simulate", "--credentials", "passwords", "--seconds", "1"))


def test_an_env_file_is_read_and_its_mistake_is_said_as_well(idle: Installation) -> None:
    (idle.directory / ".env").write_text("MICROCURRENT_STORE=paper\n")
    assert "MICROCURRENT_STORE" in sentence(idle.command("status"))
    done = subprocess.run(
        [MICROCURRENT, "status", "--json"], env=environment(data_dir=idle.data, store="duckdb"), cwd=idle.directory,
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert "no journal" in sentence(done), "a variable of the environment comes before the file"


def test_json_is_all_that_a_program_gets_to_read(tmp_path: Path, mosquitto: Mosquitto) -> None:
    with with_mosquitto(tmp_path / "line", mosquitto) as line:
        for words in (["status"], ["check"], ["alerts", "list"], ["quarantine", "list"], ["reconcile"]):
            done = line.command(*words, "--json")
            assert (0, "") == (done.returncode, done.stderr)
            assert 1 == len(done.stdout.splitlines())
            json.loads(done.stdout)
