"""Consumers that keep nothing: the ceiling that broker, library and machine set in this run.

`paho`: the library as it comes: MQTT 5, QoS 1, automatic acknowledgement, its own loop.
`receiver`: the worker's receiving thread; what it delivers is acknowledged and forgotten.

Runs until its standard input is closed, then prints one JSON line.
"""

import argparse
import json
import os
import sys
import threading
import time

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from ingest import observe
from ingest.clock import WallClock
from ingest.mqtt import Receiver
from ingest.mqtt_client import Endpoint
from ingest.pulse import WORKER_PREFIX
from ingest.settings import Settings
from schemas import topics

TAKEN = "bench/taken"
TELL_EVERY = 1_000
CONNECT_S = 10.0
RECEIVE_MAXIMUM = Settings.model_fields["mqtt_receive_maximum"].default


class Count:
    """How many messages have come, and when."""

    def __init__(self) -> None:
        self.messages = 0
        self.first = self.last = 0.0

    def add(self, messages: int) -> bool:
        """Count; True whenever the fleet should be told."""
        before = self.messages // TELL_EVERY
        self.messages += messages
        if messages:
            self.last = time.time()
            self.first = self.first or self.last
        return self.messages // TELL_EVERY > before


def through_paho(port: int, count: Count) -> None:
    client = paho.Client(CallbackAPIVersion.VERSION2, client_id="bench-null", protocol=paho.MQTTv5)

    def on_connect(client, userdata, flags, reason, properties) -> None:
        client.subscribe([(f, SubscribeOptions(qos=1)) for f in topics.uplink_filters()])

    def on_subscribe(client, userdata, mid, reasons, properties) -> None:
        print("{}", flush=True)

    def on_message(client, userdata, message) -> None:
        if count.add(1):
            client.publish(TAKEN, b"%d" % count.messages)

    client.on_connect, client.on_subscribe, client.on_message = on_connect, on_subscribe, on_message
    properties = Properties(PacketTypes.CONNECT)
    properties.ReceiveMaximum = RECEIVE_MAXIMUM
    client.connect("127.0.0.1", port, 30, clean_start=True, properties=properties)
    threading.Thread(target=client.loop_forever, daemon=True).start()
    sys.stdin.read()


def through_receiver(port: int, count: Count) -> None:
    observe.configure_logging("warning")
    sys.setswitchinterval(0.001)  # as the worker has it
    bell = threading.Event()
    endpoint = Endpoint("127.0.0.1", port, f"{WORKER_PREFIX}bench-receiver", receive_maximum=RECEIVE_MAXIMUM)
    receiver = Receiver(endpoint, WallClock(), bell.set, expects_session=False)

    def consume() -> None:
        while True:
            deliveries = receiver.take(500)
            if not deliveries:
                bell.wait(0.1)
                bell.clear()
                continue
            receiver.ack(deliveries)
            if count.add(sum(d.pulse_ms is None for d in deliveries)):
                receiver.publish(TAKEN, b"%d" % count.messages)

    threading.Thread(target=consume, daemon=True).start()
    receiver.start()
    deadline = time.monotonic() + CONNECT_S
    while not receiver.link.connected:
        if time.monotonic() > deadline:
            raise SystemExit("ceiling: the broker does not answer")
        time.sleep(0.01)
    print("{}", flush=True)
    sys.stdin.read()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("through", choices=("paho", "receiver"))
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args()
    count = Count()
    {"paho": through_paho, "receiver": through_receiver}[options.through](options.port, count)
    print(json.dumps({"messages": count.messages, "first": count.first, "last": count.last}), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
