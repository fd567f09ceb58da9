import io
import json
import logging
import re

from service.observability.logs import HUMAN, HumanFormatter, JsonFormatter


def written(formatter: logging.Formatter, log: logging.Logger) -> io.StringIO:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter)
    log.handlers, log.propagate = [handler], False
    return stream


def test_json_is_one_object_a_line_for_any_message():
    log = logging.getLogger("tests.json")
    stream = written(JsonFormatter(), log)
    log.warning('a "quoted"\nline %s', "é\u2028", extra={"fields": {"status": 200, "path": "x"}})
    try:
        raise ValueError("two\nlines")
    except ValueError:
        log.exception("failed")
    first, second = map(json.loads, stream.getvalue().splitlines())
    assert first["message"] == 'a "quoted"\nline é\u2028'
    assert (first["level"], first["logger"], first["status"]) == ("warning", "tests.json", 200)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", first["time"])
    assert "two\nlines" in second["exception"]
    assert "Traceback" in second["exception"]


def test_a_human_line_ends_with_the_fields():
    log = logging.getLogger("tests.human")
    stream = written(HumanFormatter(HUMAN), log)
    log.warning("answered", extra={"fields": {"status": 200, "route": "/v1/detect"}})
    log.warning("plain")
    first, second = stream.getvalue().splitlines()
    assert first.endswith("WARNING tests.human: answered status=200 route=/v1/detect")
    assert second.endswith("WARNING tests.human: plain")


def test_a_value_in_a_human_line_cannot_look_like_another_field():
    log = logging.getLogger("tests.quoted")
    stream = written(HumanFormatter(HUMAN), log)
    for value in ("x status=200 key=admin", 'a"b', "two\nlines", "é", "", "a=b"):
        log.warning("answered", extra={"fields": {"client": value, "status": 401}})
        line = stream.getvalue().splitlines()[-1]
        client, _, status = line.partition(" client=")[2].rpartition(" status=")
        assert (json.loads(client), status) == (value, "401")
