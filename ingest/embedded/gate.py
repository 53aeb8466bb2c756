"""Who comes in at the embedded broker, and as whom: nats-server asks here about every connection.

A device is let in with its password and under its own name alone: the MQTT client id must be the user name, so
nobody takes the session of another, or of the worker. Nothing of a session is touched before that. Asking costs a
connection a millisecond and a message nothing. The worker has an account that the broker checks by itself.

Who is wrong ten times within a minute is not looked at for the rest of it, right or not. A device that has been let
in from an address has tries of its own there, so that a neighbour cannot shut it out.
"""

import asyncio
import base64
import binascii
import hashlib
import json
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import nats
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from ingest import handover, observe
from ingest.broker_log import violation
from ingest.embedded.register import ACCOUNT, GATE_USER, Account, Register
from ingest.errors import Mistake
from ingest.security import SecurityLog
from ingest.tail import Tail
from ingest.throttle import Throttle, source_of
from schemas.security import SecurityKind
from schemas.topics import Stream

MOST_HOMES = 10_000
MOST_WRONG_OF_DEVICE = 30
"""Wrong tries a minute at one device from addresses that it has never come in from."""

LOOK_S = 0.1
CONNECT_S = 2.0
HAND_OVER_S = 1.0
CUT_TWICE_S = 1.0
"""A device that was being let in while it was revoked is cut off at the second look."""

MOST_LISTED = 10_000

_ACCOUNT_PREFIX = 0
_HEADER = b'{"typ":"JWT","alg":"ed25519-nkey"}'
_AUTH_SUBJECT = "$SYS.REQ.USER.AUTH"


@dataclass(frozen=True, slots=True)
class Asked:
    """What a connection says of itself. `host` is its address without port."""

    user: str
    password: str
    client_id: str
    host: str


class Door:
    """Decides. Pure but for the register's file; one thread at a time."""

    def __init__(self, register: Register, security: SecurityLog) -> None:
        self._register = register
        self._security = security
        self._wrong = Throttle()
        self._wrong_of_device = Throttle(MOST_WRONG_OF_DEVICE)
        self._homes: OrderedDict[tuple[str, str], None] = OrderedDict()

    def admits(self, asked: Asked, now_s: float, now_ms: int) -> bool:
        """Whether to let it in; what is refused looks the same to whoever asked. `now_s` is monotonic."""
        source = source_of(asked.host)
        known = asked.user in self._register.accounts()
        who = asked.user if known else ""
        home = (source, asked.user) in self._homes
        counted = (source, asked.user) if home else source
        if self._wrong.shut(counted, now_s) or (known and not home and self._wrong_of_device.shut(asked.user, now_s)):
            self._security.note(SecurityKind.THROTTLED, now_ms, source=source, detail="at the broker")
            return False
        if not self._register.proves(asked.user, asked.password):
            self._security.note(SecurityKind.AUTH_FAILURE, now_ms, who, source, "wrong password at the broker" if known else "unknown at the broker")
        elif asked.client_id != asked.user:
            self._security.note(SecurityKind.FORBIDDEN, now_ms, who, source, f"client id {asked.client_id[:64]!r} is not its own")
        else:
            self._homes[source, asked.user] = None
            self._homes.move_to_end((source, asked.user))
            if len(self._homes) > MOST_HOMES:
                self._homes.popitem(last=False)
            return True
        self._wrong.failed(counted, now_s)
        if known and not home:
            self._wrong_of_device.failed(asked.user, now_s)
        return False


class Issuer:
    """Signs what nats-server wants to have signed: JWTs of NATS, with an ed25519 key of this process."""

    def __init__(self) -> None:
        self._key = Ed25519PrivateKey.generate()
        raw = bytes([_ACCOUNT_PREFIX]) + self._key.public_key().public_bytes_raw()
        self.public = base64.b32encode(raw + binascii.crc_hqx(raw, 0).to_bytes(2, "little")).decode().rstrip("=")

    def admission(self, request: dict[str, Any], device_id: str) -> bytes:
        """The answer that lets a device in, with its rights."""
        rights = permissions(device_id)
        user = {
            "type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1, "allowed_connection_types": ["MQTT"],
            "pub": {"allow": rights["publish"]}, "sub": {"allow": rights["subscribe"]},
        }  # fmt: skip
        signed = self._signed({"sub": request["user_nkey"], "aud": ACCOUNT, "name": device_id, "nats": user})
        answer = {"type": "authorization_response", "version": 2, "jwt": signed}
        return self._signed({"sub": request["user_nkey"], "aud": request["server_id"]["id"], "nats": answer}).encode()

    def _signed(self, claims: dict[str, Any]) -> str:
        claims = {**claims, "iss": self.public, "iat": int(time.time())}
        claims["jti"] = base64.b32encode(hashlib.sha256(json.dumps(claims).encode()).digest()).decode().rstrip("=")
        said = f"{_base64(_HEADER)}.{_base64(json.dumps(claims).encode())}"
        return f"{said}.{_base64(self._key.sign(said.encode()))}"


def permissions(device_id: str) -> dict[str, list[str]]:
    """What a device may say and hear, as NATS subjects: its streams, its acknowledgements, its alerts."""
    own = f"mc.v1.{device_id}"
    # The $MQTT subjects are how the broker delivers QoS 1 to a session; they carry only its own.
    return {"publish": [f"{own}.{stream}" for stream in Stream], "subscribe": [f"{own}.ack", f"{own}.alert", "$MQTT.sub.>"]}


class Gate:
    """The thread that answers the broker, and cuts off who is revoked."""

    def __init__(self, data_dir: Path, log: Path, register: Register, issuer: Issuer, address: Callable[[], str | None], password: str) -> None:
        self._data_dir = data_dir
        self._log = Tail(log)
        self._register = register
        self._security = SecurityLog()
        self._issuer = issuer
        self._address = address
        self._password = password
        self._door = Door(register, self._security)
        self._handed = 0.0
        self._ending: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._guarded, name="gate", daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether it still answers; without it nobody new comes in."""
        return self._thread.is_alive()

    def stop(self) -> None:
        if self._loop is not None and self._ending is not None:
            self._loop.call_soon_threadsafe(self._ending.set)
            self._thread.join(5.0)

    def _guarded(self) -> None:
        try:
            asyncio.run(self._run())
        except BaseException:
            observe.log().exception("gate_died")
            raise

    async def _run(self) -> None:
        self._loop, self._ending = asyncio.get_running_loop(), asyncio.Event()
        while not self._ending.is_set():
            broker = await self._connected()
            if broker is None:
                continue
            try:
                await broker.subscribe(_AUTH_SUBJECT, cb=self._asked)
                await broker.subscribe(f"$SYS.ACCOUNT.{ACCOUNT}.DISCONNECT", cb=self._disconnected)
                await broker.flush()
                await self._hang_up_on_the_early(broker)
                await self._serve(broker)
            except (NatsError, OSError, TimeoutError):
                pass  # the broker has gone, and its supervisor starts it again
            finally:
                await broker.close()
        self._hand_over()

    async def _connected(self) -> Client | None:
        """A connection; None soon after there is none to be had. A broker that has just started is to find us there."""
        address = self._address()
        if address is None:
            await asyncio.sleep(0.01)
            return None
        try:
            # The library would try one address for minutes; the broker is at another one then.
            connecting = nats.connect(
                address, user=GATE_USER, password=self._password, allow_reconnect=False, max_reconnect_attempts=1, reconnect_time_wait=0.01, error_cb=_silent
            )  # fmt: skip
            return await asyncio.wait_for(connecting, CONNECT_S)
        except (NatsError, OSError, TimeoutError):
            await asyncio.sleep(0.01)
            return None

    async def _serve(self, broker: Client) -> None:
        """Until the connection or this gate ends: cut off whose password has ended."""
        let_in = self._register.accounts()
        due: list[tuple[float, str, int]] = []
        while broker.is_connected and not self._ending.is_set():
            now, now_s, now_ms = self._accounts(let_in), time.monotonic(), time.time_ns() // 1_000_000
            ended = [device_id for device_id, account in let_in.items() if account.revoked_ms is None and now.get(device_id) != account]
            # Whoever was being let in at this moment is found at the second look.
            due += [(now_s + after_s, device_id, now_ms) for device_id in ended for after_s in (0.0, CUT_TWICE_S)]
            for _, device_id, before_ms in (each for each in due if each[0] <= now_s):
                await self._cut_off(broker, device_id, before_ms)
            due = [each for each in due if each[0] > now_s]
            let_in = now
            if now_s - self._handed >= HAND_OVER_S:
                self._handed = now_s
                await asyncio.to_thread(self._hand_over)
            try:
                await asyncio.wait_for(self._ending.wait(), LOOK_S)
            except TimeoutError:
                pass

    def _hand_over(self) -> None:
        """Leave for the worker what came together; while it takes nothing up, keep it here."""
        for line in self._log.lines():
            if seen := violation(line):
                self._security.note(seen.kind, time.time_ns() // 1_000_000, seen.who, seen.source, seen.detail)
        if len(handover.waiting(self._data_dir)) >= handover.MOST_FILES:
            return
        events = self._security.take()
        try:
            handover.put(self._data_dir, events)
        except OSError as error:
            observe.log().error("security_events_kept", detail=str(error))
            self._security.note_all(events)

    def _accounts(self, before: dict[str, Account]) -> dict[str, Account]:
        try:
            return self._register.accounts()
        except Mistake as mistake:
            observe.log().error("credentials_unreadable", detail=str(mistake))
            return before

    async def _hang_up_on_the_early(self, broker: Client) -> None:
        """Whoever came while nobody could answer would wait for it, and be refused; hung up on, they come again at once."""
        before_ms = time.time_ns() // 1_000_000
        await self._hang_up(broker, {"limit": MOST_LISTED}, lambda c: c.get("type") == "mqtt" and c.get("account") != ACCOUNT, before_ms)

    async def _cut_off(self, broker: Client, device_id: str, before_ms: int) -> None:
        """End its connections that began before its password ended or was another."""
        await self._hang_up(broker, {"mqtt_client": device_id}, lambda _: True, before_ms)

    async def _hang_up(self, broker: Client, which: dict[str, Any], is_meant: Callable[[dict[str, Any]], bool], before_ms: int) -> None:
        asked = json.dumps({"auth": True, **which}).encode()
        seen = json.loads((await broker.request("$SYS.REQ.SERVER.PING.CONNZ", asked, timeout=5)).data)
        for connection in seen["data"]["connections"]:
            if is_meant(connection) and datetime.fromisoformat(connection["start"]).timestamp() * 1000 <= before_ms:
                kick = f"$SYS.REQ.SERVER.{seen['server']['id']}.KICK"
                await broker.request(kick, json.dumps({"cid": connection["cid"]}).encode(), timeout=5)

    async def _asked(self, message: Msg) -> None:
        """One connection's request; an empty answer refuses it."""
        answer = b""
        try:
            request = json.loads(base64.urlsafe_b64decode(message.data.split(b".")[1] + b"=="))["nats"]
            options, client = request["connect_opts"], request["client_info"]
            asked = Asked(options.get("user", ""), options.get("pass", ""), client.get("mqtt_id", ""), client.get("host", ""))
            if client.get("type") == "mqtt" and self._door.admits(asked, time.monotonic(), time.time_ns() // 1_000_000):
                answer = self._issuer.admission(request, asked.user)
        except (ValueError, KeyError, IndexError, Mistake) as error:
            observe.log().error("gate_cannot_tell", detail=str(error))
        await message.respond(answer)

    async def _disconnected(self, message: Msg) -> None:
        """The broker tells how a connection ended; that another took its place is worth knowing."""
        said = json.loads(message.data)
        if said.get("reason") == "Duplicate Client ID":
            client = said["client"]
            self._security.note(
                SecurityKind.TAKEOVER, time.time_ns() // 1_000_000, client.get("client_id", ""), source_of(client.get("host", "")),
                "another connection with its password took its place; this is where it was",
            )  # fmt: skip


async def _silent(error: Exception) -> None:
    """The library prints what goes wrong; here it is tried again."""


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
