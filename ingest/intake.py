"""What follows from each delivery: its place, its rows, its judgement. Runs inside one transaction."""

from collections import defaultdict
from collections.abc import Container

from ingest import observe
from ingest.admit import (
    DAY_MS,
    NOBODY,
    REFUSED,
    SEQUENCED,
    STORE_MARGIN_MS,
    WILL,
    Duplicate,
    Kept,
    Outcome,
    Recall,
    Refused,
    admit,
    fingerprint,
    partial_readings,
    readings,
    session_key,
    session_of_refused,
)
from ingest.decode import decode
from ingest.dedupe import TooManyGaps
from ingest.device import Device
from ingest.errors import InvalidMessage
from ingest.glean import condensed, glean
from ingest.journal import Journal, Raw
from ingest.journal.messages import MAX_MS
from ingest.journal.quarantine import BY_LINE, BY_STORE, HEAD_BYTES, HOUR_MS, Act, Extent, State
from ingest.judgement import Desk
from ingest.safety.history import UNWANTED
from ingest.safety.track import Reading
from ingest.security import SecurityLog
from ingest.summaries import Summaries
from ingest.voice import Said
from schemas import topics
from schemas.messages import Online
from schemas.profile import Profiles
from schemas.rejections import Reason
from schemas.security import SecurityKind
from schemas.topics import Stream

MOST_RECORDED = 100
"""Refused messages of a device and hour that stay on record for what can be read of them, once it has too many entries."""

PLAUSIBLE_STEP = 1_000
"""A refused message's number may be rubbish; further ahead than this it is not believed."""


TOLD_BOOTS = 4
"""Of so many boots, the last that spoke, a device is told what is safe when it comes back."""


class Delays:
    """How late messages were received, and whose clock was doubted, since it was last asked."""

    __slots__ = ("_count", "_doubted", "_most_ms", "_sum_ms")

    def __init__(self) -> None:
        self._forget()

    def _forget(self) -> None:
        self._count = self._sum_ms = self._doubted = 0
        self._most_ms: int | None = None

    def add(self, delay_ms: int, clock_ok: bool) -> None:
        self._count += 1
        self._sum_ms += delay_ms
        if self._most_ms is None or delay_ms > self._most_ms:
            self._most_ms = delay_ms
        if not clock_ok:
            self._doubted += 1

    def take(self) -> dict[str, float]:
        """Fields of the measurement `pipeline`; no delays if there was no message."""
        found: dict[str, float] = {"clock_doubted": self._doubted}
        if self._most_ms is not None:
            found |= {"delay_mean_s": self._sum_ms / self._count / 1000, "delay_max_s": self._most_ms / 1000}
        self._forget()
        return found


class Intake:
    """Knows the devices and the desk. `touched` devices are to be written, `changed` ones to be looked at, `acks` to
    be told: by device and boot, the numbers that were heard and are on disk. `registry`: the devices that are known;
    None if there is no list of them."""

    def __init__(
        self, journal: Journal, profiles: Profiles, retention_days: int, summary_retention_days: int, raw_retention_days: int,
        security: SecurityLog | None = None,
    ) -> None:
        self._journal = journal
        self._security = security or SecurityLog()
        self._profiles = profiles
        self._retention_days = retention_days
        self.registry: Container[str] | None = None
        self.devices = {i: Device.from_json(state) for i, state in journal.devices().items()}
        self.desk = Desk(journal, self._replay, profiles, self._lost)
        self._give_lots()
        self.summaries = Summaries(journal, profiles, summary_retention_days, raw_retention_days)
        self.touched: set[Device] = set()
        self.changed: set[Device] = set()
        self.delays = Delays()
        self._recorded: dict[str, tuple[int, int]] = {}
        self.acks: defaultdict[tuple[str, int], set[int]] = defaultdict(set)

    def admit(self, batch: list[Raw], observed_ms: int | None, now_ms: int) -> list[Said]:
        if not batch:
            return []
        said: list[Said] = []
        messages: list[tuple] = []
        outbox: list[tuple] = []
        fresh: dict[tuple[str, int, int, int], bytes] = {}

        def recall(device_id: str, boot_id: int, lane: int, seq: int) -> bytes | None:
            key = (device_id, boot_id, lane, seq)
            return fresh.get(key) or self._journal.payload_of(*key)

        for raw in batch:
            replay = None if raw.replay_of is None else self._journal.entry_of_replay(raw.replay_of)
            if replay is not None and self._lacks_only_the_store(*replay):
                self._store_again(raw, *replay, outbox, now_ms)
                continue
            replayed_ms = None if raw.replay_of is None else now_ms
            outcome = admit(
                raw.topic, raw.payload, raw.retained, raw.received_ms, self.device, recall, self._retention_days, self.registry,
                replayed_ms,
            )
            if replay is not None and type(outcome) is not Refused:
                outcome = self._end_replay(raw, outcome, *replay, recall, now_ms)
            if type(outcome) is Kept:
                decoded, message = outcome.decoded, outcome.decoded.message
                fresh[(decoded.device_id, message.boot_id, outcome.lane, message.seq)] = raw.payload
                outbox.append(
                    (decoded.device_id, raw.id, decoded.stream.value, outcome.event_ms, raw.received_ms, outcome.clock_ok)
                )
                said += self._keep(raw, outcome, messages)
            elif type(outcome) is Duplicate:
                device = self.device(outcome.device_id)
                self._count_duplicate(device, raw)
                self._acknowledge(device, outcome.boot_id, outcome.seq)
            else:
                said += self.refuse(raw, outcome, now_ms, messages)
        self._journal.add_messages(messages)
        self.summaries.mark(messages, observed_ms)
        self._journal.enqueue_messages(outbox)
        return said

    def _give_lots(self) -> None:
        """For devices kept before their lot was."""
        for device_id, lot in self._journal.lots().items():
            if device_id in self.devices:
                self.devices[device_id].lot = lot

    def device(self, device_id: str) -> Device:
        device = self.devices.get(device_id)
        if device is None:
            device = self.devices[device_id] = Device(device_id)
        return device

    def heard(self, device_id: str, received_ms: int) -> None:
        """A device spoke; what it said is judged later."""
        device = self.devices.get(device_id)
        if device is not None and received_ms > device.last_seen_ms:
            device.last_seen_ms = received_ms
            self.touched.add(device)

    def _keep(self, raw: Raw, kept: Kept, messages: list[tuple]) -> list[Said]:
        decoded, message = kept.decoded, kept.decoded.message
        device = self.device(decoded.device_id)
        device.accepted += 1
        self.touched.add(device)
        found = readings(decoded, kept.event_ms, raw.received_ms, self._profiles, raw.replay_of is not None)
        session = session_key(message.session_id, message.boot_id)
        messages.append(
            (
                device.device_id, message.boot_id, kept.lane, message.seq, raw.id, session,
                found[0].t_ms, found[-1].t_ms, kept.event_ms, kept.clock_ok,
            )  # fmt: skip
        )
        _remember(device, decoded.stream, kept, found[-1], raw)
        self.delays.add(raw.received_ms - found[-1].t_ms, kept.clock_ok)
        self._acknowledge(device, message.boot_id, message.seq)
        if decoded.stream is Stream.IDENTITY or decoded.stream is Stream.HEALTH:
            self._note_facts(device, kept)
        if decoded.stream is Stream.STATUS and kept.lane == SEQUENCED and message.samples[0].state == Online.ONLINE:
            self._acknowledge_boots(device)
        if kept.lane != SEQUENCED or decoded.stream is Stream.STATUS:
            return []  # a will speaks of the connection, not of the session
        hole = device.boots[message.boot_id].recent_hole(message.seq)
        return self.desk.take(device.device_id, session, found, hole)

    def _note_facts(self, device: Device, kept: Kept) -> None:
        """What a device tells of itself, as far as its past sessions are judged by it."""
        message, sample = kept.decoded.message, kept.decoded.message.samples[0]
        received_ms = device.last_seen_ms
        if kept.decoded.stream is Stream.IDENTITY:
            if self._journal.put_identity(device.device_id, kept.event_ms, sample.lot, sample.attachment_id):
                self.desk.judge_life(device.device_id, received_ms)
                device.lot = self._journal.lot(device.device_id)
            return
        boot = device.boots[message.boot_id]
        if boot.reset_seq is None or message.seq < boot.reset_seq:
            boot.reset_seq = message.seq
            self._journal.put_boot(device.device_id, message.boot_id, kept.event_ms - message.uptime_ms, sample.reset_reason)
            if sample.reset_reason in UNWANTED:
                self.desk.note_sessions(device.device_id)
                self.desk.judge_life(device.device_id, received_ms)

    def _lost(self, device_id: str, boot_id: int, first: int, last: int) -> int:
        boot = self.device(device_id).boots.get(boot_id)
        return boot.held.missing_within(first, last) if boot else 0

    def _count_duplicate(self, device: Device, raw: Raw) -> None:
        device.accepted += 1
        device.duplicate += 1
        device.last_seen_ms = max(device.last_seen_ms, raw.received_ms)
        self._journal.duplicate += 1
        observe.DUPLICATE.inc()
        self.touched.add(device)

    def _acknowledge(self, device: Device, boot_id: int | None, seq: int) -> None:
        """Have the device told that this is on disk, if it is: what it says again, it was not told."""
        boot = device.boots.get(boot_id)
        if boot is not None and seq in boot.held:
            self.acks[device.device_id, boot_id].add(seq)

    def _acknowledge_boots(self, device: Device) -> None:
        """A device has come back: it may have missed what it was told before, also of boots before this one."""
        for boot_id, boot in list(device.boots.items())[-TOLD_BOOTS:]:
            if boot.held.starts:
                self.acks[device.device_id, boot_id].add(boot.held.highest)

    # -- replays --------------------------------------------------------------------------------

    def _end_replay(self, raw: Raw, outcome: Kept | Duplicate, entry: dict, raw_id: int, recall: Recall, now_ms: int) -> Outcome:
        """A refused message that a person has sent again is kept now, or was on record already. Another one that has
        its number is neither: then it is refused again."""
        if type(outcome) is Kept:
            message = outcome.decoded.message
            self._journal.forget_partial(outcome.decoded.device_id, raw_id)
            self._journal.move(entry, State.REPLAYED, Act.KEPT, now_ms, BY_LINE, f"boot {message.boot_id} seq {message.seq}")
            return outcome
        key = (outcome.device_id, outcome.boot_id)
        if any(recall(*key, lane, outcome.seq) == raw.payload for lane in (SEQUENCED, WILL)):
            self._journal.move(entry, State.REPLAYED, Act.HELD, now_ms, BY_LINE, f"boot {outcome.boot_id} seq {outcome.seq}")
            return outcome
        detail = f"boot {outcome.boot_id} seq {outcome.seq} came before, and can no longer be compared"
        return Refused(outcome.device_id, Reason.CONFLICT, detail, fingerprint(raw.topic, raw.payload), outcome.boot_id, outcome.seq)

    def _lacks_only_the_store(self, entry: dict, raw_id: int) -> bool:
        """Whether it was kept and judged when it came, or when it was replayed; it may have become too old for the store since."""
        return entry["reason"] in BY_STORE or self._journal.place_of(raw_id, _key(entry)) is not None

    def _store_again(self, raw: Raw, entry: dict, raw_id: int, outbox: list[tuple], now_ms: int) -> None:
        """It was kept and judged when it came; only the store did not take it, and is asked once more."""
        device = self.device(entry["device_id"])
        place = self._journal.place_of(raw_id, _key(entry))
        if place is None or place[0] < now_ms - self._retention_days * DAY_MS + STORE_MARGIN_MS:
            reason = entry["reason"] if place is None else Reason.TOO_OLD
            self._refuse_again(raw, entry, device, reason, "its place in time is no longer on record", now_ms)
            return
        self._journal.take_place(raw_id, _key(entry), raw.id)
        _, stream = topics.parse_uplink(raw.topic.decode())
        outbox.append((entry["device_id"], raw.id, stream.value, place[0], raw.received_ms, place[1]))
        device.accepted += 1
        self.touched.add(device)
        self._journal.move(entry, State.REPLAYED, Act.KEPT, now_ms, BY_LINE, "waits for the store")

    def _refuse_again(self, raw: Raw, entry: dict, device: Device, reason: Reason, detail: str, now_ms: int) -> None:
        """The ledger has it as a duplicate: the same bytes are in quarantine already."""
        self._journal.move(entry, State.OPEN, Act.REFUSED, now_ms, BY_LINE, f"{reason}: {detail}", reason, detail)
        self._journal.cut_raw(raw.id, None)
        self._count_duplicate(device, raw)

    def would_become(self, entry: dict, now_ms: int) -> str:
        """What a replay of an entry would end in: `kept`, `held`, the reason it would be refused for, or why it cannot be done."""
        if entry["kept"] != Extent.WHOLE:
            return "not_whole"
        if entry["state"] in (State.WAITING, State.REPLAYED):
            return "not_open"
        _, raw_id = self._journal.entry_of_replay(entry["id"])
        if self._lacks_only_the_store(entry, raw_id):
            return "kept"
        topic, payload = self._journal.delivered(entry["id"])
        copies: dict[str, Device] = {}

        def device_of(device_id: str) -> Device:
            known = self.devices.get(device_id)
            return copies.setdefault(device_id, Device.from_json(known.to_json()) if known else Device(device_id))

        outcome = admit(
            topic, payload, False, entry["received_ms"], device_of, self._journal.payload_of, self._retention_days, self.registry, now_ms
        )
        if type(outcome) is Duplicate:
            return "held"
        return "kept" if type(outcome) is Kept else outcome.reason.value

    # -- refusals -------------------------------------------------------------------------------

    def refuse(self, raw: Raw, refused: Refused, now_ms: int, messages: list[tuple] | None = None) -> list[Said]:
        """Keep it in quarantine, and judge what can still be read of it."""
        device = self.device(refused.device_id or NOBODY)
        replay = None if raw.replay_of is None else self._journal.entry_of_replay(raw.replay_of)
        if replay is not None:
            self._refuse_again(raw, replay[0], device, refused.reason, refused.detail, now_ms)
            return self._judge_at_last(raw, refused, *replay, device, messages)
        if refused.reason is Reason.IDENTITY_MISMATCH:
            self._security.note(SecurityKind.IDENTITY_MISMATCH, raw.received_ms, who=device.device_id, detail=refused.detail)
        identity = (refused.device_id, refused.boot_id, refused.seq)
        room = self._journal.refuse(raw, refused.reason, refused.detail, identity, refused.fingerprint)
        if room is Extent.KNOWN:
            self._journal.cut_raw(raw.id, None)
            self._count_duplicate(device, raw)
            if refused.seq is not None:
                self._acknowledge(device, refused.boot_id, refused.seq)
            return []
        device.accepted += 1
        device.quarantined += 1
        device.last_seen_ms = max(device.last_seen_ms, raw.received_ms)
        if refused.contract is not None:
            device.contract = refused.contract
        self._journal.count_refused(refused.reason)
        observe.QUARANTINED.labels(refused.reason).inc()
        if room is not Extent.COUNTED:
            observe.log().info("quarantined", reason=refused.reason.value, device_id=refused.device_id, detail=refused.detail)
        self.touched.add(device)
        if refused.device_id and refused.boot_id is not None and refused.seq is not None:
            self._hold_refused(device, refused)
        gleaned = refused.gleaned
        if room is not Extent.WHOLE:
            said_of_it = condensed(gleaned, HEAD_BYTES)
            gleaned = glean(said_of_it)  # judged is what will be on record, or it would be taken back when judged again
            self._journal.cut_raw(raw.id, said_of_it)
        found = partial_readings(gleaned, device, raw.received_ms, self._profiles)
        said: list[Said] = []
        on_record = bool(found) and messages is not None
        if on_record:
            session = session_of_refused(gleaned, device)
            found.sort(key=lambda reading: reading.order)
            is_late = room is Extent.COUNTED and self.desk.is_past(device.device_id, session, found[0].t_ms)
            said = self.desk.take(device.device_id, session, found, hole=False)
            on_record = room is not Extent.COUNTED or ((said or is_late) and self._belongs_on_record(device.device_id, raw.received_ms))
        if on_record:
            messages.append(
                (device.device_id, 0, REFUSED, raw.id, raw.id, session, found[0].t_ms, found[-1].t_ms, raw.received_ms, False)
            )
        elif room is Extent.COUNTED:
            self._journal.cut_raw(raw.id, None)
        return said

    def _judge_at_last(self, raw: Raw, refused: Refused, entry: dict, raw_id: int, device: Device, messages: list[tuple] | None) -> list[Said]:
        """What the worker died on was set aside unread; when it is refused for what it says, that is judged."""
        found = partial_readings(refused.gleaned, device, raw.received_ms, self._profiles)
        if entry["reason"] != Reason.CRASH_SUSPECT or not found or messages is None:
            return []
        session = session_of_refused(refused.gleaned, device)
        found.sort(key=lambda reading: reading.order)
        messages.append((device.device_id, 0, REFUSED, raw_id, raw_id, session, found[0].t_ms, found[-1].t_ms, raw.received_ms, False))
        return self.desk.take(device.device_id, session, found, hole=False)

    def _belongs_on_record(self, device_id: str, received_ms: int) -> bool:
        """Of a device with too many refused messages only those stay that set off an alert or came late; so many an hour."""
        hour = received_ms // HOUR_MS
        last_hour, count = self._recorded.get(device_id, (hour, 0))
        self._recorded[device_id] = (hour, count + 1 if hour == last_hour else 1)
        return self._recorded[device_id][1] <= MOST_RECORDED

    def _hold_refused(self, device: Device, refused: Refused) -> None:
        """It is on our disk: the device need not send it for ever."""
        if refused.reason in (Reason.STATE_OVERFLOW, Reason.CONFLICT, Reason.IDENTITY_MISMATCH):
            return
        boot = device.boot(refused.boot_id)
        if refused.seq > boot.held.highest + PLAUSIBLE_STEP:
            return
        try:
            boot.held.add(refused.seq)
        except TooManyGaps:
            return
        self._acknowledge(device, refused.boot_id, refused.seq)

    def _replay(self, device_id: str, session: str, after_ms: int, most: int) -> tuple[list[Reading], int | None, int]:
        """The readings on record of a session, as they were first judged; see `judgement.Replay`."""
        found: list[Reading] = []
        on_record, upto_ms = self._journal.session_messages(device_id, session, after_ms, most)
        until_ms = MAX_MS if upto_ms is None else upto_ms
        for raw, lane, event_ms in on_record:
            if lane == REFUSED:
                found += partial_readings(glean(raw.payload), self.devices.get(device_id), raw.received_ms, self._profiles)
                continue
            try:
                decoded = decode(raw.topic.decode(), raw.payload)
            except InvalidMessage:
                continue  # the contract has become stricter since; it was judged when it came
            if lane == SEQUENCED and decoded.stream is not Stream.STATUS:
                found += readings(decoded, event_ms, raw.received_ms, self._profiles, raw.replay_of is not None)
        return [reading for reading in found if after_ms < reading.t_ms <= until_ms], upto_ms, len(on_record)

    def finish(self, again_most: int) -> list[Said]:
        """End of a batch or a tick: what late data change, about so many messages of it; and which sessions time can still change."""
        said = self.desk.finish(again_most)
        for (device_id, session), unsettled in self.desk.looked_at():
            device = self.device(device_id)
            if unsettled != (session in device.watching):
                (device.watching.append if unsettled else device.watching.remove)(session)
                self.touched.add(device)
        return said

    def put_devices(self) -> None:
        """Write what has changed of the devices."""
        if self.touched:
            self._journal.put_devices([(d.device_id, d.to_json()) for d in self.touched])
            self.changed |= self.touched
            self.touched.clear()


def _key(entry: dict) -> tuple[str, int, int]:
    return entry["device_id"], entry["boot_id"], entry["seq"]


def _remember(device: Device, stream: Stream, kept: Kept, last: Reading, raw: Raw) -> None:
    """What the fleet view shows of a device: the latest by event time. A replay does not say whether it is there now."""
    message, received_ms, is_fresh = kept.decoded.message, raw.received_ms, raw.replay_of is None
    device.last_seen_ms = max(device.last_seen_ms, received_ms)
    device.contract = message.v
    sample = last.sample
    if stream is Stream.STATUS:
        device.online = sample.state == "online" if is_fresh else device.online
        if kept.lane != SEQUENCED:
            return
    elif is_fresh and device.online is not True and received_ms - last.t_ms < 60_000:
        device.online = True
    if last.t_ms < device.last_event_ms:
        return
    device.last_event_ms = last.t_ms
    device.model, device.hw, device.fw = message.model, message.hw, message.fw
    device.session_id = message.session_id
    live = device.live
    if stream is Stream.CURRENT:
        live["i_set_ua"], live["i_peak_ua"], live["i_rms_ua"] = sample.i_set_ua, sample.i_peak_ua, sample.i_rms_ua
    elif stream is Stream.CONTACT:
        live["contact_state"], live["z_ohm"] = sample.state, sample.z_ohm
    elif stream is Stream.RUNTIME:
        live["run_state"], live["zone"] = sample.run_state, sample.zone
    elif stream is Stream.HEALTH:
        live["temp_head_c"], live["battery_mv"] = sample.temp_head_c, sample.battery_mv
        live["charging"] = sample.charging
