"""Bad input and attacks, row by row, against the real brokers and the real line behind them.

Judged by effect: what was delivered, stored, kept in quarantine and told, not by what a broker answered. `stack` is
Mosquitto as it ships, with its rights and generated passwords; `embedded` is the broker that the worker brings. All
cases of a broker share one line: everything is published first, then each case looks at what became of it.
"""

import json
import os
import random
import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from hashlib import sha256

import pytest

from tests.servers import LOOPBACK, wait_until
from tests.system import packets
from tests.system import stand as stands
from tests.system.bad_inputs import (
    AFTER_CONNECT,
    BEFORE_CONNECT,
    DANGER,
    FORBIDDEN,
    HALF,
    INJECTIONS,
    PAYLOADS,
    PEAK_UA,
    STORED,
    Case,
    plain,
)  # fmt: skip
from tests.system.line import held_by_duckdb, message, now_ms, topic
from tests.system.packets import Wire
from tests.system.stand import Stand

pytestmark = pytest.mark.system

KINDS = {"stack": stands.stack, "embedded": stands.embedded}
RANDOM_PAYLOADS = 150
IDLE_CONNECTIONS = int(os.environ.get("BAD_INPUTS_IDLE", "300"))
"""`make bad-inputs` opens as many as the shipped configuration lets in, less one."""



def row(*numbers: int) -> pytest.MarkDecorator:
    return pytest.mark.row(*numbers)


@pytest.fixture(scope="module", params=KINDS)
def stand(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    directory = tmp_path_factory.mktemp(request.param)
    with ExitStack() as running:
        stand = KINDS[request.param](directory, running)
        stand.send_all()
        yield stand


# -- payloads: rows 1 to 19, 24 to 26, 50 -------------------------------------------------------------------


@pytest.mark.parametrize("case", [pytest.param(case, marks=row(case.row), id=f"{case.row}-{case.name}") for case in PAYLOADS])
def test_a_payload_becomes_what_the_table_says_and_its_danger_is_told(stand: Stand, case: Case) -> None:
    sent = [each for each in stand.sent if each.case == case]
    assert sent
    for each in sent:
        mark = sha256(each.payload).hexdigest()
        entries = [e for e in stand.entries if e["device_id"] == each.device_id and e["sha256"] == mark]
        if case.reason == STORED:
            assert [] == entries
            continue
        (entry,) = entries
        assert (case.reason, topic(each.device_id), len(each.payload)) == (entry["reason"], entry["topic"], entry["bytes"])
        assert entry["detail"].isprintable() and 0 < len(entry["detail"]) <= 256
        assert entry["payload_text"].isprintable() or not entry["payload_text"]
        if each.dangerous:
            told = [a for a in stand.alerts if a["device_id"] == each.device_id and PEAK_UA == a["value"] and a["from_rejected"]]
            kept = [a for a in told if a["session_id"] == each.session_id]
            assert kept or (told and each.session_id.encode() not in each.payload), "danger in a refused message was not told"


@row(1, 2, 3, 5, 7, 8, 9, 11, 12, 14, 15, 16, 18, 19, 24, 25, 26, 50)
def test_every_good_message_between_the_bad_ones_is_stored_and_all_are_accounted_for(stand: Stand) -> None:
    assert len(stand.stored) == stand.ledger["stored"]
    assert len(stand.sent) - sum(each.case.reason == STORED for each in stand.sent) == stand.ledger["quarantined"] + stand.ledger["duplicate"]
    for device_id in {each.device_id for each in stand.sent}:
        account = stand.account(device_id)
        assert sum(key[0] == device_id for key in stand.stored) == account["stored"], device_id


@row(19)
def test_a_message_that_names_another_device_is_a_security_event(stand: Stand) -> None:
    speakers = {each.device_id for each in stand.sent if each.case.reason == "identity_mismatch"}
    noted = stand.line.get("/api/security?kind=identity_mismatch")["events"]
    assert speakers == {event["who"] for event in noted}
    assert sum(each.case.reason == "identity_mismatch" for each in stand.sent) == sum(event["times"] for event in noted)


@row(50)
def test_random_bytes_each_end_in_quarantine(stand: Stand) -> None:
    device_id, chance = stand.device(), random.Random(1)
    payloads = {chance.randbytes(chance.randrange(200)) for _ in range(RANDOM_PAYLOADS)}
    with stand.connect(device_id) as device:
        for payload in payloads:
            assert 0 == device.publish(topic(device_id), payload)
        stand.published += len(payloads)
        stand.say_well(device, device_id)
    stand.settle()
    account = stand.account(device_id)
    assert (len(payloads), 1, 0) == (account["quarantined"], account["stored"], account["duplicate"])


# -- who, where and how: rows 16 to 45 ----------------------------------------------------------------------


@row(16)
@pytest.mark.parametrize("size", [65_537, 2_000_000])
def test_a_packet_beyond_the_limit_ends_the_connection(stand: Stand, size: int) -> None:
    with stand.connect(stand.free[0]) as device:
        assert device.publish(topic(stand.free[0]), b" " * size) is None
    stand.serves(stand.free[0])


@row(16)
def test_a_packet_announced_with_268_mb_is_not_waited_for(stand: Stand) -> None:
    device_id = stand.free[0]
    with Wire(stand.port) as nobody:
        assert nobody.say(b"\x10\xff\xff\xff\x7f" + b"\0" * 2_000).hung_up()
    with stand.connect(device_id) as device:
        assert device.say(b"\x32\xff\xff\xff\x7f" + b"\0" * 2_000).hung_up()
    stand.serves(device_id)


@row(20, 21, 45)
def test_what_is_said_where_one_may_not_speak_reaches_nobody(stand: Stand) -> None:
    """Whether the broker says so or keeps quiet. That the line never hears of it, the last test counts."""
    speaker, other = stand.free[0], stand.free[1]
    with stand.connect(other) as listening:
        assert listening.hear(f"mc/v1/{other}/ack", f"mc/v1/{other}/alert")
        for on in FORBIDDEN:
            with stand.connect(speaker) as device:
                device.publish(on.format(self=speaker, other=other, worker=stand.worker_name), message(0, boot_id=66))
        stand.serves(speaker)
        stand.settle()
        assert [] == listening.all_heard()
    assert 0 == stand.account(other).get("accepted", 0), "somebody spoke in its name"


@row(21)
@pytest.mark.parametrize("on", [b"", b"mc/v1/a\x00/current", b"mc/v1/\xff\xfe/current", b"mc/v1/\xc0\xaf/current", b"mc/v1/\xed\xa0\x80/current"])
def test_a_topic_that_is_no_text_ends_the_connection(stand: Stand, on: bytes) -> None:
    with stand.connect(stand.free[0]) as device:
        assert device.publish(on, message(0)) is None
    stand.serves()


@row(28)
def test_a_replayed_message_is_counted_and_not_stored_again(stand: Stand) -> None:
    device_id = stand.device()
    said = stand.document(device_id)
    for dup in (False, True):
        with stand.connect(device_id) as device:
            for _ in range(3):
                assert 0 == device.publish(topic(device_id), plain(said), dup=dup)
    stand.took(device_id, said["seq"])
    stand.published += 5
    stand.settle()
    account = stand.account(device_id)
    assert (6, 1, 5, 0) == tuple(account[key] for key in ("accepted", "stored", "duplicate", "quarantined"))


@row(29)
def test_a_replay_with_another_value_is_a_conflict_whose_danger_is_told(stand: Stand) -> None:
    device_id = stand.device()
    with stand.connect(device_id) as device:
        said = stand.document(device_id, session_id="s-first")
        assert 0 == device.publish(topic(device_id), plain(said))
        stand.took(device_id, said["seq"])
        changed = {**said, "samples": [{**said["samples"][0], **DANGER}]}
        assert 0 == device.publish(topic(device_id), plain(changed))
        stand.published += 1
        stand.say_well(device, device_id)
    stand.settle()
    (entry,) = stand.quarantined(device_id=device_id)
    assert "conflict" == entry["reason"]
    assert {"overcurrent-peak"} <= {a["rule"] for a in stand.line.get(f"/api/alerts?device={device_id}")["alerts"]}


@row(32)
def test_a_retained_message_is_refused_or_stored_once(stand: Stand) -> None:
    device_id = stand.device()
    with stand.connect(device_id) as device:
        said = stand.document(device_id)
        if device.publish(topic(device_id), plain(said), retain=True) == 0:
            assert "embedded" == stand.kind
            stand.took(device_id, said["seq"])
    with stand.connect(device_id) as device:
        device.publish(topic(device_id), b"", retain=True)  # what removes a retained message
        stand.published += stand.kind == "embedded"
    stand.serves(device_id)
    stand.settle()
    assert {"stack": 1, "embedded": 2}[stand.kind] == stand.account(device_id)["stored"]


@row(33)
def test_what_is_sent_at_qos_0_is_stored_and_at_qos_2_refused(stand: Stand) -> None:
    device_id = stand.device()
    with stand.connect(device_id) as device:
        said = stand.document(device_id)
        assert 0 == device.publish(topic(device_id), plain(said), qos=0)
        stand.took(device_id, said["seq"])
    with stand.connect(device_id) as device:
        assert device.publish(topic(device_id), message(999), qos=2) is None
    stand.serves(device_id)


@row(35)
def test_a_device_hears_nothing_that_is_not_said_to_it(stand: Stand) -> None:
    """Mosquitto grants the subscription and delivers nothing; the embedded broker refuses it."""
    spy, other = stand.device(), stand.device()
    filters = (
        "#", "+/+/#", "mc/v1/#", "mc/v1/+/ack", "mc/v1/+/current", f"mc/v1/{other}/ack", f"mc/v1/{other}/alert", f"mc/v1/{other}/current", "$SYS/#", "$share/g/#",
        f"$share/g/mc/v1/{other}/alert", "$MQTT/#", "$JS/#", "_INBOX/#", f"$MQTT/sub/{other}",
    )  # fmt: skip
    with ExitStack() as open_now:
        spies = [open_now.enter_context(stand.connect(spy))]
        for each in filters:
            if spies[-1].hear(each) is None:
                spies.append(open_now.enter_context(stand.connect(spy)))
        owner = open_now.enter_context(stand.connect(other))
        owner.hear(f"mc/v1/{other}/ack", f"mc/v1/{other}/alert")
        said = stand.document(other, session_id="s-spied", **DANGER)
        assert 0 == owner.publish(topic(other), plain(said))
        stand.took(other, said["seq"])
        wait_until(lambda: len({on for on, _, _ in owner.all_heard()}) == 2, 15, "acknowledgement and alert at their owner")
        stand.settle()
        assert [] == [on for each in spies for on, _, _ in each.all_heard()]


@row(36)
def test_who_cannot_say_the_password_is_not_let_in(stand: Stand) -> None:
    device_id = stand.device()
    right = stand.passwords[device_id]
    tries = {
        "anonymous": (None, None), "user without password": (device_id, None), "empty": (device_id, ""), "wrong": (device_id, right[:-1]),
        "longer": (device_id, right + "x"), "NUL before": (device_id, b"\0" + right.encode()), "NUL alone": (device_id, b"\0"), "unknown": ("nobody-there", right), "empty user": ("", ""),
        "another case": (device_id.upper(), right), "the worker's name": (stand.worker_name, right), "injection": ("' OR '1'='1", "' OR '1'='1"),
        "wildcard": ("*", right), "not text": (b"\xff\xfe", b"\xff"),
    }  # fmt: skip
    let_in = []
    for name, (user, password) in tries.items():
        with Wire(stand.port) as stranger:
            answer = stranger.say(packets.connect(device_id, user, password)).packet()
            if answer is not None and answer[1][1] == 0:
                let_in.append(name)
    assert [] == let_in
    stand.serves()


@row(36)
def test_a_user_name_forges_no_line_of_the_brokers_log(stand: Stand) -> None:
    for forged in (b"x\nFORGED line", b"x\r\nFORGED line", b"x\x1b[2JFORGED"):
        with Wire(stand.port) as stranger:
            stranger.say(packets.connect(forged, forged, b"p")).packet()
    stand.serves()
    lines = stand.broker_log.read_bytes().split(b"\n")
    assert [] == [line for line in lines if line.startswith(b"FORGED") or b"\x1b" in line]


@row(37)
def test_who_guesses_is_soon_not_looked_at_and_the_guessed_device_stays_connected(stand: Stand) -> None:
    """At the embedded broker not even the right password helps then; Mosquitto answers every guess, so its passwords are random."""
    device_id = stand.device()
    with stand.connect(device_id) as device:
        for number in range(40):
            with Wire(stand.port) as stranger:
                answer = stranger.say(packets.connect(device_id, device_id, f"guess-{number}")).packet()
                assert answer is None or answer[1][1] != 0
        if stand.kind == "embedded":
            with Wire(stand.port) as stranger:
                answer = stranger.say(packets.connect(device_id, device_id, stand.passwords[device_id])).packet()
                assert answer is None or answer[1][1] != 0, "a guess was still looked at"
        stand.say_well(device, device_id)
    stand.serves()


@row(38)
@pytest.mark.parametrize("clean", [False, True])
def test_a_device_that_calls_itself_the_worker_takes_nothing_from_it(stand: Stand, clean: bool) -> None:
    """The worker's session, and what waits in it, stays the worker's."""
    device_id, thief = stand.free[0], stand.free[1]
    with Wire(stand.port) as stranger:
        answer = stranger.say(packets.connect(stand.worker_name, thief, stand.passwords[thief], clean=clean)).packet()
        assert stand.kind == "stack" or answer is None or answer[1][1] != 0
        stranger.say(packets.subscribe("mc/v1/+/current"))
        stand.serves(device_id)
        stand.settle()
        heard = stranger.all_heard()
    assert [] == heard
    assert stand.line.ready()


@row(40)
def test_one_devices_credential_in_two_places_loses_nothing_that_was_acknowledged(stand: Stand) -> None:
    device_id = stand.free[0]
    with stand.connect(device_id) as first:
        stand.say_well(first, device_id)
        with stand.connect(device_id) as second:
            assert first.hung_up(), "the newest does not win"
            stand.say_well(second, device_id)
    for _ in range(10):
        with Wire(stand.port) as wire:
            wire.say(packets.connect(device_id, device_id, stand.passwords[device_id]), packets.publish("mc/v1/elsewhere/current", b"x"))
    stand.serves(device_id)
    stand.settle()


@row(39)
@pytest.mark.parametrize("clean", [True, False])
def test_a_connection_without_credentials_does_nothing_to_a_live_one_of_the_same_name(stand: Stand, clean: bool) -> None:
    device_id = stand.device()
    with stand.connect(device_id, clean=False) as device:
        for name in (device_id, stand.worker_name):
            for user, password in ((None, None), (device_id, "wrong"), (name, "wrong")):
                with Wire(stand.port) as thief:
                    answer = thief.say(packets.connect(name, user, password, clean=clean)).packet()
                    assert answer is None or answer[1][1] != 0
        stand.say_well(device, device_id)


# -- connections that are none: rows 42 and 43 --------------------------------------------------------------

@row(42)
def test_half_connections_hold_up_nobody(stand: Stand) -> None:
    """How long the broker keeps them is told in the table: the embedded one two seconds, Mosquitto ninety."""
    with ExitStack() as open_now:
        for half in list(HALF.values()) * 4:
            open_now.enter_context(Wire(stand.port)).say(half)
        stand.serves()


@row(42)
def test_many_idle_connections_hold_up_nobody(stand: Stand) -> None:
    with ExitStack() as open_now:
        for _ in range(IDLE_CONNECTIONS):
            open_now.enter_context(socket.create_connection((LOOPBACK, stand.port), timeout=120))
        stand.serves()


@row(42)
def test_a_device_that_is_told_off_in_the_middle_of_a_message_leaves_nothing_behind(stand: Stand) -> None:
    device_id = stand.free[0]
    said = packets.publish(topic(device_id), message(10_000))
    for end in (1, 2, 5, 40, len(said) - 1):
        with stand.connect(device_id) as device:
            device.say(said[:end])
    stand.serves(device_id)



@row(43)
def test_no_malformed_packet_before_or_after_connect_harms_the_broker_or_the_line(stand: Stand) -> None:
    """Each on a connection of its own, the device still there on another; then some hundreds that chance has changed."""
    speaker, other = stand.free[0], stand.free[1]
    with stand.connect(other) as steady:
        for name, said in BEFORE_CONNECT.items():
            with Wire(stand.port) as wire:
                answer = wire.say(said, packets.packet(packets.DISCONNECT)).packet()
                assert answer is None or answer[1][1] != 0, name
        for said in AFTER_CONNECT.values():
            with stand.connect(speaker) as device:
                device.say(said, packets.packet(packets.PINGREQ))
        chance = random.Random(4)
        sound = [packets.connect(speaker, speaker, stand.passwords[speaker], will=("a/b", b"c")), *AFTER_CONNECT.values()]
        for _ in range(300):
            changed = bytearray(chance.choice(sound))
            for _ in range(chance.randint(1, 4)):
                changed[chance.randrange(len(changed))] = chance.randrange(256)
            with Wire(stand.port) as wire:
                wire.say(bytes(changed))
        assert packets.PINGRESP == steady.answer(packets.packet(packets.PINGREQ)), "the steady device was cut off"
        stand.say_well(steady, other)
    stand.serves(speaker)


# -- what people and programs ask: rows 24, 25, 46 ----------------------------------------------------------

@row(24, 46)
def test_no_word_of_an_address_is_taken_for_a_command(stand: Stand) -> None:
    """Every parameter that the interface knows, with every injection: an answer or a sentence, never another's data."""
    from urllib.parse import quote

    start, end = now_ms() - 3_600_000, now_ms()
    data = "/api/dashboards/microcurrent-safety/data"
    for text in INJECTIONS:
        word = quote(text.encode())
        asked = [f"/api/alerts?{key}={word}" for key in ("state", "device", "severity", "rule", "model", "fw", "assigned_to", "since", "limit", word)]
        asked += [f"/api/quarantine?{key}={word}" for key in ("reason", "device", "limit", "since", "state")]
        asked += [f"{data}?from_ms={start}&to_ms={end}&device_id={word}&model={word}&fw={word}", f"{data}?points={word}", f"{data}?{word}={word}", f"{data}?from_ms={word}&to_ms={word}"]
        asked += [f"/api/alerts/{word}", f"/api/quarantine/{word}", f"/api/dashboards/{word}", f"/api/dashboards/{word}/data", f"/{word}", f"/static/{word}"]
        for path in asked:
            status, headers, body = stand.line.request("GET", path)
            assert status in (200, 400, 404), (status, path, body[:200])
            assert "x-injected" not in headers
            if path.startswith("/api/"):
                assert headers["content-type"].startswith(("application/json", "text/plain")), path
            if status == 200 and path.startswith("/api/quarantine?device="):
                assert [] == json.loads(body)["entries"], path
            if status == 200 and path.startswith(("/api/alerts?device=", "/api/alerts?model=", "/api/alerts?fw=")):
                assert [] == json.loads(body)["alerts"], path
    assert stand.ledger["quarantined"] <= stand.settle()["quarantined"]


@row(24, 25)
def test_the_commands_take_injections_as_words_and_show_bytes_harmlessly(stand: Stand) -> None:
    done = stand.line.command("alerts", "list", "--device", INJECTIONS[1], "--model", INJECTIONS[3])
    assert 0 == done.returncode and "Traceback" not in done.stderr, done.stderr
    assert not any(device_id in done.stdout for device_id in stand.passwords)
    marks = [sha256(each.payload).hexdigest() for each in stand.sent if "terminal codes" in each.case.name]
    entry = next(entry for entry in stand.entries if entry["sha256"] in marks)
    shown = stand.line.command("quarantine", "show", str(entry["id"])).stdout + stand.line.command("quarantine", "list", "--limit", "10000").stdout
    assert "owned" in shown
    assert [] == re.findall(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u202e]", shown)


@row(46)
def test_the_page_answers_no_other_host_no_other_site_and_no_path_out_of_it(stand: Stand) -> None:
    ask = stand.line.request
    for host in ("evil.example", "127.0.0.1.evil.example", "", "localhost@evil.example"):
        assert 400 == ask("GET", "/api/overview", headers={"Host": host})[0], host
    body = json.dumps({"by": "x", "note": "y"}).encode()
    for path in ("/api/alerts/x/ack", "/api/alerts/x/assign", "/api/alerts/x/comment", "/api/webhook/resend"):
        foreign = {"Content-Type": "text/plain", "Origin": "http://evil.example"}
        assert ask("POST", path, body, foreign)[0] in (401, 403), path
    for path in ("/../../../etc/passwd", "/%2e%2e/%2e%2e/%2e%2e/etc/passwd", "/..%2f..%2fetc%2fpasswd", "/static/../../../settings.py", "//etc/passwd", "/%00", "/.env", "/credentials/devices.json"):
        status, _, said = ask("GET", path)
        assert status in (400, 404) and b"root:" not in said, path
    for method in ("PUT", "DELETE", "PATCH", "TRACE", "CONNECT", "X-ODD"):
        assert ask(method, "/api/overview")[0] in (400, 404, 405), method
    stand.serves()


@row(46)
def test_odd_requests_hold_up_nobody(stand: Stand) -> None:
    at = stand.line.address.rsplit(":", 1)
    odd = (
        b"", b"GET", b"GET / HTTP/1.1\r\n", b"\x16\x03\x01\x00", b"GET / HTTP/9.9\r\n\r\n", b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
        b"POST /api/alerts/x/ack HTTP/1.1\r\nHost: localhost\r\nX-Microcurrent: 1\r\nContent-Length: 9999999999\r\n\r\nabc",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X-A: b\r\n" * 5_000 + b"\r\n", b"GET / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\nabc",
    )  # fmt: skip
    with ExitStack() as open_now:
        for each in odd * 5:
            connection = open_now.enter_context(socket.create_connection((LOOPBACK, int(at[1])), timeout=120))
            connection.sendall(each)
        assert 200 == stand.line.request("GET", "/healthz")[0]
    stand.serves()


# -- at the end of each broker's cases ----------------------------------------------------------------------


@row(25)
def test_no_input_has_forged_a_line_of_the_log(stand: Stand) -> None:
    lines = stand.line.log.read_bytes().decode("utf-8").split("\n")
    assert [] == [line for line in lines if line and not line.startswith("timestamp=")]
    assert [] == [line for line in lines if re.search(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202e]", line)]
    assert len(stand.quarantined()) == sum(" event=quarantined " in line for line in lines)


@row(1, 16, 28, 42, 43, 50)
def test_after_all_of_it_the_worker_is_the_same_and_the_store_holds_each_good_message_once(stand: Stand) -> None:
    ledger = stand.settle()
    assert 0 == stand.line.logged("event=restarting")
    assert (stand.published, len(stand.stored)) == (ledger["accepted"], ledger["stored"])
    assert stand.line.reconcile()["ok"]
    stand.line.stop()
    held = held_by_duckdb(stand.line.data)
    assert dict.fromkeys(stand.stored, 1) == dict(held)
