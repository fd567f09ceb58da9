"""Run every query of the dashboard on a Prometheus; exit code 1 if one returns no data.

queries.py http://127.0.0.1:9090
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode
from urllib.request import urlopen

DASHBOARD = Path(__file__).parent / "observe/grafana/dashboards/qyolo.json"
# The values of Grafana's variables: all of each, and four scrapes of 15 seconds.
NAMES = ("$instance", "$model", "$variant", "$stage")
VARIABLES = {"$__rate_interval": "1m"} | dict.fromkeys(NAMES, ".*")


def expressions() -> Iterator[tuple[str, str]]:
    """The title of each panel with each of its queries."""
    for panel in json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]:
        for target in panel.get("targets", ()):
            text = target["expr"]
            for name, value in VARIABLES.items():
                text = text.replace(name, value)
            yield panel["title"], text


def answer(prometheus: str, expression: str) -> list[dict]:
    """The series of an instant query, without those that are not a number."""
    address = f"{prometheus}/api/v1/query?{urlencode({'query': expression})}"
    with urlopen(address, timeout=30) as response:
        found = json.load(response)["data"]["result"]
    return [each for each in found if each["value"][1] != "NaN"]


def main(prometheus: str) -> int:
    """Print a line for each query."""
    empty = 0
    for title, expression in expressions():
        found = answer(prometheus, expression)
        empty += not found
        shown = f"{len(found)} series, {float(found[0]['value'][1]):.4g}" if found else "NOTHING"
        print(f"{title:55} {shown:28} {expression}")
    return int(empty > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1].rstrip("/")))
