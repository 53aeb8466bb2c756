"""The seeded bugs: for each, what is replaced where, and the tests that must fail then."""

import ast
from dataclasses import dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True)
class Bug:
    """`changes` are (what stands in the file exactly once, what takes its place). `caught_by` is below tests/."""

    name: str
    does: str
    file: str
    changes: tuple[tuple[str, str], ...]
    caught_by: tuple[str, ...]

    def misfits(self, root: Path) -> list[str]:
        """Why the bug cannot be put into this tree, or not be caught by what is named."""
        path = root / self.file
        text = path.read_text() if path.exists() else ""
        problems = []
        for old, _ in self.changes:
            if text.count(old) != 1:
                problems.append(f"{self.file} holds this {text.count(old)} times instead of once; mend tests/mutants/bugs.py: {old!r}")
        for test in self.caught_by:
            file, _, name = test.partition("::")
            if name not in _functions(root / "tests" / file):
                problems.append(f"there is no test tests/{test}")
        return problems

    def put_into(self, root: Path) -> dict[Path, str]:
        """Change the files of a tree; returns what they held before."""
        path = root / self.file
        before = text = path.read_text()
        for old, new in self.changes:
            if text.count(old) != 1:
                raise ValueError(f"{self.name}: {self.file} holds this {text.count(old)} times: {old!r}")
            text = text.replace(old, new)
        path.write_text(text)
        return {path: before}


@cache
def _functions(path: Path) -> set[str]:
    if not path.exists():
        return set()
    return {node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)}


def bug(name: str, does: str, file: str, *changes: tuple[str, str], by: str | tuple[str, ...]) -> Bug:
    return Bug(name, does, file, changes, (by,) if isinstance(by, str) else by)


CRASH = "unit/test_journal_crash.py::test_what_was_acknowledged_survives_every_death_and_every_loss_of_power"
COURSE = "unit/test_journal.py::test_every_message_is_somewhere_after_any_course_of_events"

BUGS: tuple[Bug, ...] = (
    # -- what is promised, and when -----------------------------------------------------------------
    bug(
        "ack-before-commit", "the broker is told that it may forget a message before the message is on disk",
        "ingest/pipeline.py",
        ("        source.ack(deliveries)\n", ""),
        ("        self._taken = deliveries = self._taken or source.take(ACCEPT_MOST)\n",
         "        self._taken = deliveries = self._taken or source.take(ACCEPT_MOST)\n        source.ack(deliveries)\n"),
        by=("unit/test_line.py::test_a_delivery_is_acked_only_after_it_is_on_disk", CRASH),
    ),
    bug(
        "ack-out-of-order", "acknowledgements leave in another order than the messages came in",
        "ingest/mqtt.py", ("epoch, mid = acks.popleft()", "epoch, mid = acks.pop()"),
        by="unit/test_receiver.py::test_messages_are_acknowledged_when_they_are_handed_back_and_in_the_order_of_their_arrival",
    ),
    bug(
        "no-epoch-check", "an acknowledgement of a connection that is gone is sent on the next, where its number is another message's",
        "ingest/mqtt.py", ("            if epoch == self._epoch:\n", "            if epoch:\n"),
        by="unit/test_receiver.py::test_an_acknowledgement_of_a_connection_that_is_gone_is_not_sent_on_the_next",
    ),
    bug(
        "ack-by-the-library", "paho acknowledges a message when it has handed it over",
        "ingest/mqtt_client.py", ("manual_ack=True", "manual_ack=False"),
        by="unit/test_receiver.py::test_messages_are_acknowledged_when_they_are_handed_back_and_in_the_order_of_their_arrival",
    ),
    bug(
        "told-before-commit", "alerts are told before they are on record, where a death takes them back",
        "ingest/pipeline.py", ("            self._intake.put_devices()\n            self._report()\n", "            self._intake.put_devices()\n            self._say()\n            self._report()\n"),
        by=CRASH,
    ),
    bug(
        "durable-ack-beyond", "a device is told that the next number is on disk as well",
        "ingest/dedupe.py", ("return [(self.held.highest, holes)]", "return [(self.held.highest + 1, holes)]"),
        by="unit/test_dedupe.py::test_durable_acknowledgements_promise_what_was_heard_and_nothing_that_is_not_held",
    ),
    bug(
        "durable-ack-without-holes", "a device is told that all before a number is on disk, though some never came",
        "ingest/dedupe.py", ("return [(self.held.highest, holes)]", "return [(self.held.highest, [])]"),
        by="unit/test_dedupe.py::test_durable_acknowledgements_promise_what_was_heard_and_nothing_that_is_not_held",
    ),
    # -- the disk -----------------------------------------------------------------------------------
    bug(
        "synchronous-off", "SQLite leaves it to the operating system when anything reaches the disk",
        "ingest/journal/__init__.py", ('"synchronous=FULL"', '"synchronous=OFF"'), by=CRASH,
    ),
    bug(
        "synchronous-normal", "SQLite does not sync its log at each commit",
        "ingest/journal/__init__.py", ('"synchronous=FULL"', '"synchronous=NORMAL"'), by=CRASH,
    ),
    bug(
        "processed-outside", "the mark of how far the inbox is processed is written after the transaction that it belongs to",
        "ingest/journal/__init__.py",
        ('                    (self.processed_upto, "processed_upto"),\n', ""),
        ("                self._refused = refused\n\n", '                self._refused = refused\n        self._set("processed_upto", self.processed_upto)\n\n'),
        by=CRASH,
    ),
    bug(
        "step-not-undone", "what a failed transaction has written stays",
        "ingest/journal/part.py", ('            self._db.execute("ROLLBACK")\n', '            self._db.execute("COMMIT")\n'),
        by="unit/test_journal.py::test_a_step_that_fails_has_not_happened",
    ),
    bug(
        "damage-not-looked-for", "after a power cut a damaged journal is used as if it were sound",
        "ingest/journal/__init__.py", ('            if verdict != "ok":\n', "            if not verdict:\n"),
        by="unit/test_journal_crash.py::test_a_journal_that_is_damaged_after_a_power_cut_is_refused_in_one_sentence",
    ),
    bug(
        "two-owners", "a second worker may open the journal of the first",
        "ingest/lock.py", ("fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)", "fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)"),
        by="unit/test_journal.py::test_a_second_owner_is_refused_with_the_number_of_the_first_and_the_exit_code_for_it",
    ),
    bug(
        "directory-not-synced", "the directory of a new journal may be gone after a power cut, and the journal with it",
        "ingest/lock.py", ("                os.fsync(holder)\n", "                pass\n"),
        by="unit/test_lock.py::test_a_new_directory_is_synced_into_those_that_hold_it_before_it_is_used",
    ),
    # -- once, and not twice ------------------------------------------------------------------------
    bug(
        "no-dedupe", "a message that comes again is taken for a new one",
        "ingest/admit.py", ("    known = message.seq in seen\n", "    known = False\n"),
        by="unit/test_admit.py::test_a_message_is_kept_once_and_known_afterwards",
    ),
    bug(
        "dedupe-by-time", "a message that comes again after an hour is taken for a new one",
        "ingest/admit.py", ("    known = message.seq in seen\n", "    known = message.seq in seen and received_ms - message.ts_ms < 3_600_000\n"),
        by="unit/test_admit.py::test_a_message_that_comes_again_is_known_however_late",
    ),
    bug(
        "conflict-taken-for-duplicate", "another payload under a known number is counted as a duplicate, and gone",
        "ingest/admit.py", ("if first is not None and first != payload:", "if first is None:"),
        by="unit/test_admit.py::test_the_same_identity_with_another_payload_is_a_conflict_and_the_first_stands",
    ),
    bug(
        "offset-not-kept", "DuckDB does not note how far it got, so that a worker that died stores again",
        "ingest/sinks/duckdb.py", ('self._db.execute("INSERT INTO ingest_offset VALUES (?, ?)", [self._uuid, entries[-1].id])', "pass"),
        by="unit/test_duckdb.py::test_a_replacement_and_the_offset_are_one_transaction",
    ),
    bug(
        "offset-before-the-rows", "DuckDB notes how far it got before it has the rows",
        "ingest/sinks/duckdb.py",
        ('        self._db.execute("BEGIN")\n        for stream', '        self._db.execute("INSERT INTO ingest_offset VALUES (?, ?)", [self._uuid, entries[-1].id])\n        self._db.execute("BEGIN")\n        for stream'),
        by="unit/test_duckdb.py::test_the_offset_is_that_of_the_rows_that_are_there_wherever_a_write_fails",
    ),
    # -- what the store says ------------------------------------------------------------------------
    bug(
        "drop-on-422", "what the store refuses as unprocessable counts as stored",
        "ingest/sinks/influx.py", ('            return Reason.SINK_REJECTED_422, f"422: {said}"\n', "            return None\n"),
        by="unit/test_influx.py::test_of_what_the_store_refuses_exactly_that_is_returned_and_the_rest_is_held",
    ),
    bug(
        "drop-whole-batch", "one message that the store refuses takes all that were sent with it along",
        "ingest/sinks/influx.py",
        ("        if len(entries) == 1:\n            reason, detail = verdict\n            refused.append(RefusedEntry(entries[0], reason, detail))\n            return\n",
         "        if entries:\n            reason, detail = verdict\n            refused.extend(RefusedEntry(entry, reason, detail) for entry in entries)\n            return\n"),
        by="unit/test_influx.py::test_of_what_the_store_refuses_exactly_that_is_returned_and_the_rest_is_held",
    ),
    bug(
        "batching-write-api", "writes are left to the client library, which says nothing of those that fail",
        "ingest/sinks/influx.py", ("write_options=SYNCHRONOUS", "write_options=None or __import__('influxdb_client').WriteOptions(batch_size=500)"),
        by="unit/test_influx.py::test_what_the_store_cannot_take_now_is_unavailable_and_none_of_it_is_given_up",
    ),
    bug(
        "drop-on-401", "a wrong token has messages set aside instead of held back",
        "ingest/sinks/influx.py", ("if status in (401, 403, 404):", "if status in (403, 404):"),
        by="unit/test_influx.py::test_what_the_store_cannot_take_now_is_unavailable_and_none_of_it_is_given_up",
    ),
    bug(
        "drop-on-503", "what an overloaded store does not take counts as refused",
        "ingest/sinks/influx.py",
        ("if status in (429, 503):", "if status == 429:"), ("not 400 <= status < 500:", "500 <= status < 503:"),
        by="unit/test_influx.py::test_what_the_store_cannot_take_now_is_unavailable_and_none_of_it_is_given_up",
    ),
    bug(
        "page-of-a-proxy", "a 200 of whoever answers in the place of the store counts as written",
        "ingest/sinks/influx.py", ("if status != 204:", "if not 200 <= status < 300:"),
        by="unit/test_influx.py::test_an_answer_of_somebody_else_is_no_proof_and_no_fault_of_a_message",
    ),
    bug(
        "schema-incident-ignored", "a bucket that refuses every device has all messages set aside",
        "ingest/sinks/influx.py", ("INCIDENT_DEVICES = 3\n", "INCIDENT_DEVICES = 3_000\n"),
        by="unit/test_influx.py::test_a_store_that_refuses_many_devices_is_at_fault_itself",
    ),
    bug(
        "few-blame-their-device", "twenty messages that a store refuses as it comes back are their device's fault",
        "ingest/drain.py", ("            if self._is_doubtful(refused):\n", "            if False:\n"),
        by="unit/test_drain.py::test_a_bucket_at_fault_is_known_though_those_who_wait_longest_are_all_of_one_device",
    ),
    bug(
        "refusal-believed-once", "what a bucket refuses just before it is mended is set aside",
        "ingest/drain.py", ("        return before is None or not now <= before\n", "        return before is None\n"),
        by="unit/test_drain.py::test_a_bucket_that_is_mended_in_the_middle_of_a_write_costs_no_message",
    ),
    bug(
        "held-for-a-few", "three bad messages among the first after an outage hold back all others for good",
        "ingest/drain.py", ("self._doubted = set() if isinstance(error, BucketAtFault) else None", "self._doubted = None"),
        by="unit/test_drain.py::test_a_few_bad_messages_among_the_first_after_an_outage_hold_back_nothing",
    ),
    bug(
        "settle-before-204", "messages count as stored before the store has said so",
        "ingest/drain.py", ("                refused = self._sink.write(entries)\n", "                self._core.request(lambda e=entries: self._core.settle(e, [], fingerprint), write=True)\n                refused = self._sink.write(entries)\n"),
        by="unit/test_drain.py::test_nothing_counts_as_stored_before_the_store_has_said_so",
    ),
    bug(
        "skip-after-failure", "what the store could not take is left behind, and the next is sent",
        "ingest/drain.py",
        ("                self._wait_out(error)\n                coming = ", "                self._upto = entries[-1].id\n                self._wait_out(error)\n                coming = "),
        by="unit/test_drain.py::test_what_the_store_could_not_take_is_sent_again_until_it_does",
    ),
    # -- the ledger ---------------------------------------------------------------------------------
    bug(
        "settle-too-much", "one entry more than the store has confirmed leaves the outbox",
        "ingest/journal/outbox.py", ("BETWEEN ? AND ?\", (entries[0].id, entries[-1].id))", "BETWEEN ? AND ?\", (entries[0].id, entries[-1].id + 1))"),
        by="unit/test_journal.py::test_what_the_store_has_not_confirmed_stays_in_the_outbox",
    ),
    bug(
        "stored-counted-twice", "each stored message counts twice",
        "ingest/journal/outbox.py", ("        self.stored += messages\n", "        self.stored += 2 * messages\n"), by=COURSE,
    ),
    bug(
        "duplicates-not-counted", "a duplicate is thrown away without being counted",
        "ingest/intake.py", ("        self._journal.duplicate += 1\n", ""), by=COURSE,
    ),
    bug(
        "device-counts-lost", "what the store already held at the start is not counted for its device",
        "ingest/pipeline.py", ("        self._intake.put_devices()  # at the start there is no turn of the line around this\n", ""),
        by="unit/test_journal.py::test_what_the_store_held_is_counted_for_its_device_though_the_worker_dies_at_once",
    ),
    bug(
        "prune-what-waits", "a raw message is deleted by age though the store has not got it",
        "ingest/journal/messages.py", ("min((SELECT coalesce(min(raw_id), ?) FROM outbox), ?)", "max(?, ?)"),
        by="unit/test_journal.py::test_pruning_never_removes_what_is_not_yet_stored",
    ),
    # -- quarantine ---------------------------------------------------------------------------------
    bug(
        "quarantine-without-bytes", "of a refused message only the fact is kept",
        "ingest/journal/quarantine.py", ('"INSERT INTO quarantine_payload VALUES (?, ?)", (cursor.lastrowid, kept)', '"INSERT INTO quarantine_payload VALUES (?, ?)", (cursor.lastrowid, b"")'),
        by=CRASH,
    ),
    bug(
        "crash-suspects-forgotten", "a message that kills the worker is tried for ever",
        "ingest/pipeline.py", ("MOST_ATTEMPTS = 3\n", "MOST_ATTEMPTS = 3_000\n"),
        by="unit/test_journal.py::test_a_message_that_kills_the_worker_again_and_again_is_set_aside",
    ),
    bug(
        "attempts-not-kept", "how often a message was tried is forgotten when the worker dies of it",
        "ingest/journal/messages.py",
        ("SET times = times + 1 WHERE", "SET times = 1 WHERE"),
        by="unit/test_journal.py::test_a_message_that_kills_the_worker_again_and_again_is_set_aside",
    ),
    bug(
        "quota-loses-the-fact", "of a device that floods quarantine, what comes beyond its share is not even counted",
        "ingest/journal/quarantine.py", ('"UPDATE quarantine SET more = more + 1, received_ms', '"UPDATE quarantine SET more = more + 0, received_ms'),
        by="unit/test_quarantine.py::test_beyond_its_entries_a_device_is_counted_by_reason_and_hour_and_every_message_is_accounted_for",
    ),
    bug(
        "replay-not-deduped", "a message that the device has sent again meanwhile is stored again when it is replayed",
        "ingest/admit.py",
        ("        device = device_of(decoded.device_id)\n", "        device = device_of(decoded.device_id) if replayed_ms is None else Device(decoded.device_id)\n"),
        by="unit/test_quarantine.py::test_what_the_device_said_again_meanwhile_is_on_record_already",
    ),
    # -- a full disk --------------------------------------------------------------------------------
    bug(
        "stopped-and-acknowledged", "while there is no room, messages are acknowledged and thrown away",
        "ingest/pipeline.py",
        ("        source = self.source\n        if source is None or self.disk.pressure.level is Level.STOPPED or",
         "        source = self.source\n        if source is not None and self.disk.pressure.level is Level.STOPPED:\n            source.ack(source.take(ACCEPT_MOST))\n"
         "        if source is None or self.disk.pressure.level is Level.STOPPED or"),
        by="unit/test_pressure.py::test_what_finds_no_room_is_not_acknowledged_and_goes_on_when_there_is_some",
    ),
    bug(
        "pressure-unseen", "a journal that fills its disk goes on accepting until it cannot finish what it has",
        "ingest/pressure.py", ("        if amounts.used >= share * amounts.limit or amounts.free < least:\n", "        if amounts.used >= share * amounts.limit:\n"),
        by="unit/test_pressure.py::test_a_level_follows_from_what_is_free_too",
    ),
    # -- alarms -------------------------------------------------------------------------------------
    bug(
        "suspect-never-read", "what the worker died on is never searched for danger, not even when a person sends it through again",
        "ingest/intake.py", ('        if entry["reason"] != Reason.CRASH_SUSPECT or not found', '        if entry["reason"] or not found'),
        by="unit/test_quarantine.py::test_danger_in_what_the_worker_died_on_is_told_when_it_is_replayed_though_it_is_refused",
    ),
    bug(
        "alert-after-store", "an alert is told only when the store has all that came before it",
        "ingest/pipeline.py", ("        if self.notices.may_wait:\n            waiting", "        if self.notices.may_wait and not self.journal.outbox:\n            waiting"),
        by="unit/test_line.py::test_alarms_go_out_while_the_store_is_down",
    ),
    bug(
        "reject-before-alarm", "a refused message is set aside without a look at what it says",
        "ingest/intake.py", ("            said = self.desk.take(device.device_id, session, found, hole=False)\n", ""),
        by="unit/test_alarm_before_reject.py::test_the_message_is_cut_off_after_the_danger",
    ),
    bug(
        "notice-outside-the-step", "an alert is told and forgotten at once, whether the broker has it or not",
        "ingest/pipeline.py", ("                source.publish(topic, payload, token=notice_id)\n", "                source.publish(topic, payload)\n                self.journal.drop_notices([notice_id])\n"),
        by="unit/test_line.py::test_an_alert_is_published_until_the_broker_has_it",
    ),
    bug(
        "notice-dropped-while-away", "what is to be told while the broker is away is told to nobody",
        "ingest/mqtt.py", ("        self._outgoing.append((token, topic, payload, 0 if token is None else 1))\n", "        if self.link.connected:\n            self._outgoing.append((token, topic, payload, 0 if token is None else 1))\n"),
        by="unit/test_receiver.py::test_what_is_said_while_the_broker_is_away_is_told_when_it_is_back",
    ),
    # -- the broker ---------------------------------------------------------------------------------
    bug(
        "clean-start", "each connection begins with a new session, and the broker throws away what waited",
        "ingest/mqtt_client.py", ("clean_start=False, properties=properties", "properties=properties"),
        by="unit/test_receiver.py::test_every_connection_asks_for_the_session_that_the_broker_keeps",
    ),
    bug(
        "no-session-expiry", "the broker forgets the session when the connection ends",
        "ingest/mqtt_client.py", ("            properties.SessionExpiryInterval = SESSION_EXPIRY_S\n", ""),
        by="unit/test_receiver.py::test_every_connection_asks_for_the_session_that_the_broker_keeps",
    ),
    bug(
        "subscribed-at-qos-0", "the broker may drop messages on their way to the worker",
        "ingest/mqtt_client.py", ("SubscribeOptions(qos=1, retainHandling=2)", "SubscribeOptions(qos=0, retainHandling=2)"),
        by="unit/test_receiver.py::test_every_connection_asks_for_the_session_that_the_broker_keeps",
    ),
    bug(
        "session-lost-unnoticed", "a broker that has lost its sessions is not told from one that kept them",
        "ingest/mqtt.py", ("        if self._expects_session and not flags.session_present:\n", "        if self._expects_session and flags is None:\n"),
        by="unit/test_receiver.py::test_a_session_that_the_broker_has_lost_is_noticed",
    ),
    bug(
        "session-fought-for", "two workers of one name take the session from each other as fast as they can, and deliver nothing",
        "ingest/patience.py", ("if no := max(self._refusals, self._takeovers):", "if no := self._refusals:"),
        by="unit/test_patience.py::test_who_was_taken_over_waits_the_longer_the_more_often_although_it_gets_in_each_time",
    ),
    # -- bad input ----------------------------------------------------------------------------------
    bug(
        "retained-taken", "what the broker retained of the past is taken for a fresh reading",
        "ingest/admit.py", ("        if retained:\n", "        if retained is None:\n"),
        by="unit/test_admit.py::test_what_the_broker_retained_is_refused_and_not_marked_as_seen",
    ),
    bug(
        "last-key-wins", "of a key that a message says twice, the last is taken and the first never seen",
        "ingest/decode.py", ('    if payload.count(b":") != keys:\n', '    if payload.count(b":") < keys:\n'),
        by="unit/test_decode.py::test_a_key_said_twice_is_refused_wherever_it_stands",
    ),
    bug(
        "clock-believed", "a device whose clock is a day ahead stores its readings in the future",
        "ingest/admit.py", ("AHEAD_MS = 60_000\n", "AHEAD_MS = 172_800_000\n"),
        by="unit/test_admit.py::test_a_clock_that_cannot_be_right_gives_way_to_the_uptime_since_receipt",
    ),
    bug(
        "stranger-stored", "a device that is not on the list of known ones is stored like any other",
        "ingest/admit.py", ("    if device_id is not None and device_id not in registry:\n", "    if device_id is None:\n"),
        by="unit/test_registry.py::test_only_what_known_devices_send_is_stored",
    ),
    # -- telling people -----------------------------------------------------------------------------
    bug(
        "webhook-no-is-yes", "what a webhook could not take now is thrown away",
        "ingest/notify.py", ("if 400 <= status < 500 and status not in MAY_HEAL:", "if status >= 400:"),
        by="unit/test_notify.py::test_a_receiver_that_fails_gets_the_same_again_until_it_takes_it",
    ),
    bug(
        "webhook-key-anew", "a webhook cannot know that it has heard the same before",
        "ingest/notify.py", ('"Idempotency-Key": entry.key,', '"Idempotency-Key": f"{entry.key}-{time.time_ns()}",'),
        by="unit/test_notify.py::test_what_was_not_delivered_when_the_worker_died_is_delivered_by_the_next_under_the_same_key",
    ),
    # -- who gets in --------------------------------------------------------------------------------
    bug(
        "no-throttle", "passwords may be guessed as fast as the line can answer",
        "ingest/throttle.py", ("return failures is not None and len(failures) == self._most and", "return failures is not None and len(failures) > self._most and"),
        by="unit/test_access.py::test_of_a_thousand_tries_in_any_minute_ten_are_looked_at",
    ),
    bug(
        "client-id-not-bound", "a device may take the session of another, or of the worker, by its client id",
        "ingest/embedded/gate.py", ("        elif asked.client_id != asked.user:\n", "        elif not asked.client_id:\n"),
        by="unit/test_access.py::test_the_client_id_is_the_name_and_a_right_password_under_another_is_a_wrong_try",
    ),
    bug(
        "page-without-password", "whoever knows a path needs no login",
        "ingest/web_access.py", ('if scope["type"] == "http" and scope["path"] not in OPEN:', 'if scope["type"] == "http" and scope["path"] == "/":'),
        by="system/test_access_page.py::test_nothing_is_told_or_done_without_a_login",
    ),
    # -- blindness ----------------------------------------------------------------------------------
    bug(
        "blindness-not-said", "what the line cannot see raises no alert",
        "ingest/safety/line.py", ("return self._open(now_ms, now_s, ripe) if ripe else []", "return []"),
        by=("unit/test_blindness.py::test_it_is_raised_once_something_was_unseen_for_the_hold",
            "unit/test_lookout.py::test_a_broker_that_lost_the_session_is_told_once_with_the_time_of_which_messages_may_be_missing"),
    ),
    bug(
        "canary-not-missed", "nobody misses a canary that does not come through",
        "ingest/lookout.py", ("        since = canary.missing_since if canary is not None else None ", "        since = None "),
        by="unit/test_lookout.py::test_a_canary_that_is_stuck_says_where",
    ),
    bug(
        "attempts-not-recorded", "attempts to get in leave nothing on record",
        "ingest/lookout.py", ("            self._journal.note_security(event)\n", "            pass\n"),
        by="unit/test_lookout.py::test_events_are_on_record_by_who_and_hour_and_bounded",
    ),
    # -- silence ------------------------------------------------------------------------------------
    bug(
        "silence-shown-as-well", "a running device that says nothing is shown as well",
        "ingest/standing.py", ('        return "silent"\n', '        return "ok"\n'),
        by="unit/test_reports.py::test_a_running_device_that_says_nothing_becomes_silent_by_time_alone",
    ),
    bug(
        "unknown-shown-as-well", "a device that no profile judges is shown as well",
        "ingest/standing.py", ('        return "unknown"\n', '        return "ok"\n'),
        by="unit/test_standing.py::test_only_a_device_that_is_there_heard_judged_and_without_danger_is_well",
    ),
    bug(
        "silence-not-said", "a running device that says nothing more raises no alert",
        "ingest/judgement.py", ("        if not watch.waiting:\n            said += self._look_at_the_end(watch, observed_until_ms)\n", ""),
        by="unit/test_judgement.py::test_silence_is_said_when_fifteen_seconds_and_the_lateness_allowed_have_passed_and_been_heard",
    ),
    bug(
        "silence-forgotten", "a device that fell silent before the worker died is not missed by the next",
        "ingest/pipeline.py", ("self._to_resume = [(d.device_id, s) for d in self.devices.values() for s in d.watching]", "self._to_resume = []"),
        by="unit/test_judgement.py::test_a_silence_is_still_said_after_the_worker_has_come_back",
    ),
    bug(
        "missing-not-counted", "numbers that a device never sent are not missed",
        "ingest/dedupe.py", ("        return self.ends[-1] + 1 - sum(", "        return 0 * sum("),
        by="unit/test_dedupe.py::test_holes_are_what_lacks_below_the_highest",
    ),
    bug(
        "silence-without-hearing", "while the worker itself hears nothing, devices are called silent",
        "ingest/pipeline.py", ("        tick = self._tick_due()\n", "        self.observed_until_ms = self.clock.now_ms()\n        tick = self._tick_due()\n"),
        by="unit/test_judgement.py::test_while_the_line_itself_cannot_hear_nothing_is_called_silence",
    ),
    # -- turns --------------------------------------------------------------------------------------
    bug(
        "flood-first", "everybody waits for the device that sends most",
        "ingest/backlog.py", ("        sharing = sharing and len(self._inbox) > most\n", "        sharing = False\n"),
        by="unit/test_backlog.py::test_a_danger_behind_a_flood_is_told_in_the_turn_in_which_it_is_accepted",
    ),
    bug(
        "out-of-order", "what a device says is processed before what it said earlier and is set aside",
        "ingest/backlog.py", ("if device_id in aside or had[device_id] >= share:", "if had[device_id] >= share:"),
        by="unit/test_backlog.py::test_every_message_has_its_turn_once_and_a_device_keeps_its_order_over_deaths",
    ),
    bug(
        "set-aside-pruned", "what waits for its turn is deleted by age",
        "ingest/journal/messages.py", ("(self.processed_upto, self.first_unprocessed(), before_ms, most)", "(self.processed_upto, self.processed_upto, before_ms, most)"),
        by="unit/test_backlog.py::test_what_is_set_aside_is_not_pruned",
    ),
    bug(
        "waiting-called-silent", "a device whose messages wait for their turn is called silent",
        "ingest/pipeline.py", ("self._desk.tick(self.observed_until_ms, self.backlog.aside)", "self._desk.tick(self.observed_until_ms)"),
        by="unit/test_backlog.py::test_a_device_is_not_called_silent_while_its_messages_wait_and_others_are",
    ),
    bug(
        "past-at-once", "everybody waits while a long session is judged again",
        "ingest/pipeline.py", ("            return AGAIN_MOST\n", "            return 1_000_000\n"),
        by="unit/test_backlog.py::test_a_long_past_is_judged_again_in_pieces_between_which_others_are_heard",
    ),
    bug(
        "late-again-forgotten", "data that come late while their session is judged again are not judged",
        "ingest/safety/watch.py", ("if self.again is not None and t_ms > self.again.upto_ms:", "if self.again is not None:"),
        by="unit/test_backlog.py::test_late_data_of_a_time_just_judged_again_is_judged_too",
    ),
    bug(
        "judged-without-its-past", "a session is judged while its past is still being read",
        "ingest/safety/watch.py", ("        return self.again is not None and self.again.reload\n", "        return False\n"),
        by="unit/test_backlog.py::test_a_session_whose_past_is_being_read_again_is_not_judged_without_it",
    ),
    bug(
        "silence-waits-for-time", "a silence is not said when what waited is processed, but when somebody speaks again",
        "ingest/pipeline.py", ("self._ticked_ms = None if self.backlog.aside else self.observed_until_ms", "self._ticked_ms = self.observed_until_ms"),
        by="unit/test_backlog.py::test_a_silence_is_said_as_soon_as_what_waited_is_processed",
    ),
    bug(
        "checkpoint-of-half-a-moment", "a checkpoint lacks a reading of its own millisecond, which is forgotten at the next start",
        "ingest/safety/watch.py", ("if self.waiting and self.waiting[0].t_ms <= self.track.frontier_ms:", "if False:"),
        by="unit/test_judgement.py::test_a_silence_ends_with_the_reading_that_ended_it_though_a_checkpoint_of_its_millisecond_lacks_it",
    ),
    bug(
        "stands-and-is-taken-back", "danger that stands is withdrawn when a long session is taken up after a death",
        "ingest/judgement.py", ("alerts_of_session(*key), watch.track.frontier_ms)", "alerts_of_session(*key), again.after_ms)"),
        by="unit/test_watch.py::test_danger_that_stands_is_not_taken_back_when_a_long_session_is_taken_up_again",
    ),
    bug(
        "refused-counts-as-told", "an alert that the broker does not take counts as told",
        "ingest/mqtt.py", ("        if reason.is_failure:\n            if not self._turned_away:", "        if False:\n            if not self._turned_away:"),
        by="unit/test_receiver.py::test_an_alert_that_the_broker_does_not_take_is_offered_again",
    ),
    bug(
        "sessions-fill-the-memory", "a device that begins sessions without end fills the memory of the worker",
        "ingest/judgement.py", ("            if len(self._of_device.get(device_id, ())) > MOST_OF_ONE:\n", "            if False:\n"),
        by="unit/test_judgement.py::test_a_device_that_begins_sessions_without_end_is_judged_in_each_and_does_not_fill_the_memory",
    ),
    bug(
        "one-keeps-all", "while the oldest watch waits for something, no other is put away",
        "ingest/judgement.py", ("                self._watches.move_to_end(key)\n            else:\n", "                break\n            else:\n"),
        by="unit/test_judgement.py::test_all_watches_are_bounded_though_the_oldest_still_wait_for_something",
    ),
    bug(
        "sessions-kept-at-hand", "the memory grows with each session until twenty thousand are kept",
        "ingest/judgement.py", ("        while len(self._over) > MOST_OVER:\n", "        while False:\n"),
        by="unit/test_judgement.py::test_sessions_that_are_over_are_put_away_and_late_data_take_them_up_again",
    ),
)  # fmt: skip
