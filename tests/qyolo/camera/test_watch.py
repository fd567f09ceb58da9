"""A camera, a qyolo server, a broker: what is published, and what happens when one is away."""

import io
import json
import logging
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager

import numpy as np
import pytest
from PIL import Image

from qyolo.camera.mqtt import slug
from qyolo.camera.source import Source
from qyolo.client import Connection
from service.progress import Progress
from tests import plain_http
from tests.fakes import HeldSource, yolov5_raw
from tests.qyolo.camera.parts import (
    Broker,
    camera,
    free_port,
    jpegs_of,
    needs_broker,
    watching,
    write_video,
)
from tests.qyolo.commands import environment, inline, qyolo
from tests.service.live import post, serving, serving_folder, two_variants
from tests.service.pictures import gradient, jpeg
from tests.service.tiny import write_model_folder
from tests.waiting import WAIT_LIMIT_S, wait_until

ACCOUNT = "camera:a%20secret"
NOBODY = yolov5_raw([])
PERSON = yolov5_raw([(32.0, 32.0, 16.0, 8.0, 0.9, 0)])
TWO = yolov5_raw([(32.0, 32.0, 16.0, 8.0, 0.9, 0), (12.0, 32.0, 8.0, 8.0, 0.8, 0)])


@pytest.fixture(autouse=True)
def _logged(caplog):
    caplog.set_level(logging.INFO, "qyolo.camera")


def changes(caplog, peer: str) -> list[str]:
    """What the log says of a connection, without its address."""
    lines = [line for line in caplog.messages if line.startswith(peer)]
    return [line.removesuffix("; trying again").rpartition(": ")[2] for line in lines]


@pytest.fixture(scope="module")
def server():
    """A server, and its engine, whose boxes a test chooses."""
    variants, _, int8 = two_variants()
    with serving(variants) as live:
        yield live, int8


@pytest.fixture
def detector(server):
    live, engine = server
    engine.raw = NOBODY
    return live.port, engine


@pytest.fixture
def broker(tmp_path):
    broker = Broker(tmp_path)
    broker.start()
    yield broker
    broker.close()


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("video") / "Front Door.mp4", 20)


# ---------------------------------------------------------------------------- home assistant


@needs_broker
def test_home_assistant_discovers_the_classes_and_follows_their_objects(detector, broker):
    port, engine = detector
    mqtt = {"mqtt": broker.url, "mqtt_password": "a secret"}
    with camera() as url, watching(url, port, classes="person, traffic light", **mqtt):
        broker.wait_for(available="online", person__occupancy="OFF", person__count="0")
        engine.raw = TWO
        broker.wait_for(person__occupancy="ON", person__count="2")
        engine.raw = PERSON
        broker.wait_for(person__occupancy="ON", person__count="1")
        engine.raw = NOBODY
        broker.wait_for(person__occupancy="OFF", person__count="0", traffic_light__occupancy="OFF")
        wait_until(lambda: len(broker.events) == 3)
    broker.wait_for(available="offline")
    found = [(each["event"], each["class"], each["count"]) for each in broker.events]
    assert found == [("appeared", "person", 2), ("left", "person", 1), ("left", "person", 0)]
    assert broker.events[0]["scores"] == [0.9, 0.8]
    assert broker.events[0]["camera"] == "door"
    configs = {topic: text for topic, text in broker.topics.items() if topic.endswith("/config")}
    assert set(configs) == {
        f"homeassistant/{component}/qyolo_door/{name}_{kind}/config"
        for component, kind in (("binary_sensor", "occupancy"), ("sensor", "count"))
        for name in ("person", "traffic_light")
    }
    sensor = json.loads(configs["homeassistant/binary_sensor/qyolo_door/person_occupancy/config"])
    assert sensor["name"] == "Person occupancy"
    assert sensor["device_class"] == "occupancy"
    assert sensor["state_topic"] in broker.topics
    assert sensor["availability_topic"] == "qyolo/door/available"
    assert sensor["device"]["identifiers"] == ["qyolo_door"]
    entities = [json.loads(config) for config in configs.values()]
    assert len({each["unique_id"] for each in entities}) == len(entities)


@needs_broker
def test_without_classes_one_is_discovered_when_it_is_seen(detector, broker):
    port, engine = detector
    mqtt = {"mqtt": f"mqtt://{ACCOUNT}@127.0.0.1:{broker.port}"}
    with camera() as url, watching(url, port, **mqtt):
        # What an earlier run left with the broker is cleared.
        broker.wait_for(available="online", dog__occupancy="OFF", person__occupancy="OFF")
        assert not [topic for topic in broker.topics if topic.endswith("/config")]
        engine.raw = PERSON
        broker.wait_for(person__occupancy="ON")
    configs = [topic for topic in broker.topics if topic.endswith("/config")]
    assert len(configs) == 2
    assert all("person" in topic for topic in configs)


@needs_broker
def test_a_broker_that_returns_gets_everything_again(detector, broker, caplog):
    port, engine = detector
    mqtt = {"mqtt": broker.url, "mqtt_password": "a secret"}
    with camera() as url, watching(url, port, classes="person", **mqtt):
        broker.wait_for(available="online", person__occupancy="OFF")
        before = {topic for topic in broker.topics if topic.startswith("homeassistant/")}
        broker.kill()
        engine.raw = PERSON
        wait_until(lambda: changes(caplog, "MQTT")[-1] == "not reachable")
        time.sleep(0.7)  # more than one attempt
        broker.start()
        broker.wait_for(available="online", person__occupancy="ON", person__count="1")
        assert before <= set(broker.topics)
    assert changes(caplog, "MQTT") == ["connected", "not reachable", "connected"]
    assert changes(caplog, "source") == ["connected"]


@needs_broker
def test_a_broker_that_refuses_the_password_is_asked_again(detector, broker, caplog):
    port, _ = detector
    with camera() as url, watching(url, port, mqtt=broker.url, mqtt_password="wrong"):
        wait_until(lambda: changes(caplog, "MQTT") != [])
        time.sleep(0.7)
    assert changes(caplog, "MQTT") == ["not authorized"]
    assert "wrong" not in caplog.text


@needs_broker
def test_a_killed_process_is_unavailable(detector, broker, video):
    port, engine = detector
    engine.raw = PERSON
    options = ("--server", f"http://127.0.0.1:{port}", "--mqtt", broker.url, "--name", "door")
    command = [sys.executable, "-m", "qyolo", "watch", str(video), "--loop", *options]
    env = environment(QYOLO_MQTT_PASSWORD="a secret")
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as process:
        event = json.loads(process.stdout.readline())
        broker.wait_for(available="online", person__occupancy="ON")
        process.kill()
    broker.wait_for(available="offline")
    assert (event["event"], event["class"], event["camera"]) == ("appeared", "person", "door")


# -------------------------------------------------------------------------------- reconnects


@needs_broker
def test_a_camera_that_returns_is_opened_again(detector, broker, caplog):
    port, engine = detector
    engine.raw = PERSON
    at, mqtt = free_port(), {"mqtt": broker.url, "mqtt_password": "a secret"}
    with ExitStack() as switched_on:
        url = switched_on.enter_context(camera(at))
        with watching(url, port, **mqtt):
            broker.wait_for(available="online", person__occupancy="ON")
            switched_on.close()
            broker.wait_for(available="offline", person__occupancy="ON")
            switched_on.enter_context(camera(at))
            broker.wait_for(available="online", person__occupancy="ON")
            first, *attempts, last = changes(caplog, "source")
    assert (first, last) == ("connected", "connected")
    # The end of the stream, and then the same failure each time.
    assert len(attempts) <= 2
    assert "secret" not in caplog.text


@needs_broker
def test_a_server_that_returns_is_asked_again_and_events_go_on(broker, caplog):
    """On the same port, first with a person in the picture and then with nobody."""
    at, mqtt = free_port(), {"mqtt": broker.url, "mqtt_password": "a secret"}

    @contextmanager
    def started(raw):
        variants, _, int8 = two_variants()
        int8.raw = raw
        with serving(variants, port=at):
            yield

    with camera() as url, ExitStack() as watched:
        with started(PERSON):
            watched.enter_context(watching(url, at, **mqtt))
            broker.wait_for(available="online", person__occupancy="ON")
        broker.wait_for(available="offline", person__occupancy="ON")
        with started(NOBODY):
            broker.wait_for(available="online", person__occupancy="OFF")
            wait_until(lambda: len(broker.events) == 2)
    assert [each["event"] for each in broker.events] == ["appeared", "left"]
    states = changes(caplog, "server")
    assert (states[0], states.count("connected"), "connection refused" in states) == (
        "connected",
        2,
        True,
    )


def test_a_server_that_builds_is_waited_for(caplog):
    held = HeldSource(Progress("quantizing"))
    with serving(source=held) as live, camera() as url, watching(url, live.port):
        wait_until(lambda: changes(caplog, "server") == ["status 503, Not ready"])


def test_an_overloaded_server_is_asked_when_it_wants_to_be(caplog):
    variants, _, int8 = two_variants()
    with serving(variants, capacity=1) as live, ThreadPoolExecutor(1) as pool:
        int8.gate.clear()
        pool.submit(post, live.client, jpeg())
        assert int8.entered.wait(WAIT_LIMIT_S)
        with camera() as url, watching(url, live.port):
            wait_until(lambda: len(changes(caplog, "server")) == 2)
            time.sleep(1.2)  # its Retry-After is a second
            int8.gate.set()
            wait_until(lambda: len(changes(caplog, "server")) == 3)
    states = changes(caplog, "server")
    assert states == ["connected", "status 429, Server at capacity", "connected"]


def test_an_idle_connection_that_the_server_has_closed_is_no_failure(detector):
    with closing(Connection(f"http://127.0.0.1:{detector[0]}", None, WAIT_LIMIT_S)) as server:
        assert server.ask("GET", "/v1/models", {}).is_ok
        server._connection.sock.shutdown(socket.SHUT_RDWR)
        assert server.ask("POST", "/v1/detect", {}, jpeg()).is_ok


# ----------------------------------------------------------------------------------- the end


def test_a_file_ends_the_command_and_events_are_lines_of_json(video, tmp_path):
    """The server runs a real engine."""
    write_model_folder(tmp_path)
    with serving_folder(tmp_path) as live:
        server = f"http://127.0.0.1:{live.port}"
        ran = qyolo("watch", video, "--conf", 0.05, "--confirm", 1, QYOLO_SERVER=server)
    assert ran.code == 0, ran.err
    events = [json.loads(line) for line in ran.out.splitlines()]
    assert events
    assert {each["camera"] for each in events} == {"front_door"}
    assert "Traceback" not in ran.err


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_command_even_if_the_camera_is_silent(detector, signum):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        options = ("--server", f"http://127.0.0.1:{detector[0]}")
        command = [sys.executable, "-m", "qyolo", "watch", url, *options]
        with subprocess.Popen(command, env=environment(), stderr=subprocess.PIPE) as process:
            connection, _ = silent.accept()
            stopped = time.monotonic()
            process.send_signal(signum)
            assert process.wait(WAIT_LIMIT_S) == 0
            assert time.monotonic() - stopped < 5
            connection.close()
            assert b"Traceback" not in process.stderr.read()


def test_a_looped_file_goes_on(detector, tmp_path, capsys):
    port, engine = detector
    engine.raw = PERSON
    short = write_video(tmp_path / "short.mp4", 4)
    with watching(short, port, loop=True):
        wait_until(lambda: "appeared" in capsys.readouterr().out)
        engine.raw = NOBODY
        wait_until(lambda: "left" in capsys.readouterr().out)


# -------------------------------------------------------------------------------- the source


def test_only_the_newest_frame_is_kept_and_a_file_plays_at_its_own_speed(video):
    started = time.monotonic()
    with closing(Source(str(video), loop=False)) as source:
        first = source.newest(64, 5)
        time.sleep(0.5)
        second = source.newest(64, 5)
        while not source.has_ended:
            source.newest(64, 0.1)
    assert 0.9 <= time.monotonic() - started < 5
    assert first.shape == second.shape == (32, 64, 3)
    # Frame 10 of 20, and not the second one; 13 is a frame's step.
    assert second.mean() - first.mean() > 5 * 13


def test_a_small_frame_is_not_enlarged(video):
    with closing(Source(str(video), loop=False)) as source:
        assert source.newest(640, 5).shape == (100, 200, 3)


def test_colours_are_those_of_the_video(tmp_path):
    path = tmp_path / "red.mp4"
    red = np.full((64, 64, 3), (200, 30, 30), np.uint8)
    write_video(path, 4, size=(64, 64), pixels=red)
    with closing(Source(str(path), loop=False)) as source:
        shown = source.newest(64, 5)
    assert np.abs(shown.mean((0, 1)) - red.mean((0, 1))).max() < 6


# ------------------------------------------------------------------------------------- mjpeg


def stream(caplog) -> str:
    """Its address, as soon as the log has it."""
    wait_until(lambda: any("stream with boxes" in line for line in caplog.messages))
    return next(line for line in caplog.messages if "stream with boxes" in line).split()[-1]


def test_the_stream_shows_boxes(detector, caplog):
    port, engine = detector
    engine.raw = PERSON
    with camera() as url, watching(url, port, mjpeg_port=0):
        address = stream(caplog)

        def shown() -> bool:
            return plain_http.get(f"{address}/snapshot.jpg").status_code == 200

        wait_until(shown)
        kind, content = "", b""
        with plain_http.client() as client, client.stream("GET", address) as answer:
            kind = answer.headers["content-type"]
            for chunk in answer.iter_bytes():
                content += chunk
                if len(jpegs_of(content)) > 2:
                    break
        snapshot = plain_http.get(f"{address}/snapshot.jpg").content
    assert kind == "multipart/x-mixed-replace; boundary=frame"
    for picture in (jpegs_of(content)[0], snapshot):
        image = np.asarray(Image.open(io.BytesIO(picture)), int)
        plain = np.asarray(gradient(200, 100).resize((64, 32)), int)
        assert image.shape == plain.shape
        differs = np.abs(image - plain).max(-1) > 60
        assert differs[13, 24:40].all()  # the upper edge of the box, or its label
        assert not differs[:, :20].any()


def test_an_open_stream_does_not_keep_the_command(detector, caplog):
    with camera() as url, plain_http.client() as client:
        with watching(url, detector[0], mjpeg_port=0):
            address = stream(caplog)
            answer = client.send(client.build_request("GET", address), stream=True)
            stopped = time.monotonic()
        assert time.monotonic() - stopped < 3
        answer.close()


# -------------------------------------------------------------------------------- bad input


def refused(*arguments: object, **settings: object) -> str:
    """The one line of a command that ends with code 2."""
    ran = inline("watch", *arguments, **settings)
    assert ran.code == 2, ran.err
    (line,) = [each for each in ran.err.splitlines() if each.startswith("qyolo: ")]
    return line


@pytest.fixture
def _signals():
    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)
    logging.basicConfig(force=True)


@pytest.mark.usefixtures("_signals")
def test_what_the_user_can_fix_ends_the_command_with_the_reason(server, video, tmp_path):
    at = {"QYOLO_SERVER": f"http://127.0.0.1:{server[0].port}"}
    assert "no 'dgo'; it has person, traffic light, dog" in refused(video, "--classes", "dgo", **at)
    assert "404, Unknown variant" in refused(video, "--variant", "int4", **at)
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    assert f"cannot read {broken}: Invalid data" in refused(broken, **at)
    assert "cannot read missing.mp4: No such file" in refused("missing.mp4", **at)
    assert "--server ftp://x" in refused(video, "--server", "ftp://x")
    for broker in (f"http://{ACCOUNT}@x", "mqtt://", f"mqtt://{ACCOUNT}@x:port"):
        line = refused(video, "--mqtt", broker, **at)
        assert "mqtt://USER:<password>@HOST:1883" in line
        assert "secret" not in line
    line = refused(video, "--mjpeg-port", 0, "--mjpeg-host", "0.0.0.0", **at)
    assert "--insecure" in line
    with socket.create_server(("127.0.0.1", 0)) as taken:
        line = refused(video, "--mjpeg-port", taken.getsockname()[1], **at)
        assert "cannot listen on 127.0.0.1" in line


@pytest.mark.usefixtures("_signals")
def test_a_server_with_keys_needs_the_right_one(video, capsys):
    key = "a-key-of-the-camera"
    with serving(api_keys=key) as live:
        at = {"QYOLO_SERVER": f"http://127.0.0.1:{live.port}"}
        line = refused(video, "--api-key", "another-key-that-is-wrong", **at)
        assert "401" in line
        assert "QYOLO_API_KEY" in line
        assert "another" not in line
        assert inline("watch", video, **at, QYOLO_API_KEY=key).code == 0


def test_the_packages_are_needed_only_to_watch(monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    for name in [each for each in sys.modules if each.startswith("qyolo.camera.")]:
        monkeypatch.delitem(sys.modules, name)
    assert "pip install 'qyolo[camera]'" in refused("video.mp4")


@pytest.mark.parametrize(
    ("name", "level"),
    [("person", "person"), ("traffic light", "traffic_light"), ("a/b+#", "a_b__"), ("人", "4eba")],
)
def test_a_class_is_a_level_of_a_topic(name, level):
    assert slug(name) == level
