"""LoadGen's single-stream and server scenarios against qyolo; not an MLPerf result.

    .venv/bin/python bench/loadgen.py [MODEL_FOLDER] [--variant int8] [--rate 40] [--seconds 30]

MLPerf's own load generator, pinned in an environment of its own under runs/. Single stream sends
the next query after the response to the last; server sends a Poisson process of --rate queries a
second. Prints LoadGen's latency percentiles in milliseconds, and the queries without a 200.
"""

import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from bench.command_line import print_header, print_row, server_parser
from bench.overhead import jpeg
from bench.peers.environments import PEERS, environment, measured
from bench.serving import model_folder, serve

LOADGEN: Final = "mlcommons-loadgen==6.0.17"
RANKS: Final = ("50.00", "90.00", "99.00")


def main() -> None:
    parser = server_parser(__doc__, seconds=30.0)
    parser.add_argument("--rate", type=float, default=40.0, help="queries a second")
    arguments = parser.parse_args()
    path = f"/v1/models/{arguments.variant}/detect"
    seconds, rate = str(arguments.seconds), str(arguments.rate)
    client = [environment("loadgen", LOADGEN), str(PEERS / "loadgen_client.py")]
    with (
        model_folder(arguments.folder) as folder,
        serve(folder) as server,
        TemporaryDirectory() as scratch,
    ):
        picture = Path(scratch) / "picture.jpg"
        picture.write_bytes(jpeg((640, 480)))
        print_header("scenario", "p50 ms", "p90 ms", "p99 ms", "failed")
        for scenario in ("SingleStream", "Server"):
            out = Path(scratch) / scenario
            out.mkdir()
            target = [str(server.port), path, str(picture)]
            done = measured([*client, *target, scenario, seconds, rate, str(out)])
            name = f"{scenario}, {arguments.rate:g}/s" if scenario == "Server" else scenario
            print_row(name, *(f"{ms:.2f}" for ms in percentiles(out)), done.output["failed"])


def percentiles(folder: Path) -> list[float]:
    """Milliseconds, out of LoadGen's summary."""
    summary = (folder / "mlperf_log_summary.txt").read_text()
    return [
        int(re.findall(rf"{re.escape(rank)} percentile latency \(ns\)\s*:\s*(\d+)", summary)[0])
        / 1e6
        for rank in RANKS
    ]


if __name__ == "__main__":
    main()
