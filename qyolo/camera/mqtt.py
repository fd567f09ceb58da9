"""Publish what a camera sees to an MQTT broker, as Home Assistant discovers it.

Topics: qyolo/CAMERA/available, qyolo/CAMERA/CLASS/occupancy and qyolo/CAMERA/CLASS/count are
retained, qyolo/CAMERA/events is not. The fields of the discovery messages are those of
https://www.home-assistant.io/integrations/mqtt/#mqtt-discovery.
"""

import json
import re
import threading
from importlib.metadata import version
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

from qyolo.camera.link import FIRST_WAIT_S, LONGEST_WAIT_S, Link
from qyolo.errors import CommandError

PORTS: Final = {"mqtt": 1883, "mqtts": 8883}
DISCOVERY: Final = "homeassistant"  # Home Assistant's default prefix
AT_LEAST_ONCE: Final = 1
ENTITIES: Final = (
    ("binary_sensor", "occupancy", {"device_class": "occupancy"}),
    ("sensor", "count", {"state_class": "measurement", "unit_of_measurement": "objects"}),
)


class Publisher:
    """A camera's states. What changes while the broker is away is published when it is back."""

    def __init__(self, url: str | None, password: str | None, camera: str) -> None:
        """Connects in a thread; without a URL it publishes nothing.

        Raises CommandError if `url` is not that of a broker.
        """
        self._camera, self._lock = camera, threading.Lock()
        self._retained: dict[str, str] = {}  # the retained messages by their topic
        self._client = Client(CallbackAPIVersion.VERSION2, f"qyolo-{camera}")
        self.available(False)
        if url is None:
            return
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port or PORTS[parts.scheme]
        except (KeyError, ValueError):
            host, port = "", 0
        if not host:  # without the URL, which may hold a password
            raise CommandError("--mqtt: not mqtt://USER:<password>@HOST:1883, or mqtts:// for TLS")
        self._link = Link(f"MQTT broker {host}:{port}")
        if parts.username is not None:
            secret = unquote(parts.password) if parts.password else password
            self._client.username_pw_set(unquote(parts.username), secret)
        if parts.scheme == "mqtts":
            self._client.tls_set()
        self._client.will_set(self._topic("available"), "offline", AT_LEAST_ONCE, retain=True)
        self._client.reconnect_delay_set(FIRST_WAIT_S, LONGEST_WAIT_S)  # type: ignore[arg-type]  # floats work
        self._client.on_connect = self._connected
        self._client.on_connect_fail = self._failed
        self._client.on_disconnect = self._disconnected
        self._client.connect_async(host, port)
        self._client.loop_start()

    def discover(self, class_name: str) -> None:
        """Tell Home Assistant of a class: a binary sensor for its presence, one for its count."""
        device, level = f"qyolo_{self._camera}", slug(class_name)
        for component, kind, fields in ENTITIES:
            config: dict[str, Any] = {
                "name": f"{class_name[:1].upper()}{class_name[1:]} {kind}",
                "unique_id": f"{device}_{level}_{kind}",
                "state_topic": self._topic(level, kind),
                "availability_topic": self._topic("available"),
                "device": {"identifiers": [device], "name": self._camera, "manufacturer": "qyolo"},
                "origin": {"name": "qyolo", "sw_version": version("qyolo")},
                **fields,
            }
            self._retain(
                f"{DISCOVERY}/{component}/{device}/{level}_{kind}/config", json.dumps(config)
            )

    def count(self, class_name: str, count: int) -> None:
        self._retain(self._topic(slug(class_name), "occupancy"), "ON" if count else "OFF")
        self._retain(self._topic(slug(class_name), "count"), str(count))

    def available(self, is_available: bool) -> None:
        self._retain(self._topic("available"), "online" if is_available else "offline")

    def event(self, document: str) -> None:
        """Publish an event, which is lost while the broker is away."""
        self._client.publish(self._topic("events"), document)

    def close(self) -> None:
        """Say that the camera is unavailable: at a clean end the broker forgets the will."""
        self.available(False)
        self._client.disconnect()
        self._client.loop_stop()

    def _topic(self, *levels: str) -> str:
        return "/".join(("qyolo", self._camera, *levels))

    def _retain(self, topic: str, payload: str) -> None:
        with self._lock:
            if self._retained.get(topic) == payload:
                return
            self._retained[topic] = payload
            if self._client.is_connected():
                self._client.publish(topic, payload, AT_LEAST_ONCE, retain=True)

    def _connected(self, client: Client, user: Any, flags: Any, reason: Any, _: Any) -> None:
        if reason.is_failure:
            self._link.down(str(reason).lower())
            return
        self._link.up()
        with self._lock:
            # False before True: a state is there before it is said to be available.
            for topic in sorted(self._retained, key=self._topic("available").__eq__):
                client.publish(topic, self._retained[topic], AT_LEAST_ONCE, retain=True)

    def _disconnected(self, client: Client, user: Any, flags: Any, reason: Any, _: Any) -> None:
        if reason.is_failure and self._link.reason is None:
            self._failed()

    def _failed(self, *_: Any) -> None:
        self._link.down("not reachable")


def slug(name: str) -> str:
    """The name of a class as a level of a topic: a-z, 0-9, _ and -; other letters in hex."""
    return re.sub(
        r"[^a-z0-9_-]", lambda each: "_" if each[0] < "\x80" else f"{ord(each[0]):x}", name.lower()
    )
