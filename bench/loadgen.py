"""LoadGen's single-stream and server scenarios against qyolo; not an MLPerf result.

    .venv/bin/python bench/loadgen.py [MODEL_FOLDER] [--variant int8] [--rate 40]

MLPerf's own load generator, pinned in a venv of its own under runs/: the next query when the last
is answered, and queries that arrive by chance (Poisson) at `rate` a second. Prints its latency
percentiles.
"""

import argparse
import re
from pathlib import Path
from tempfile import TemporaryDirectory

import overhead
import peers
import serving

LOADGEN = "mlcommons-loadgen==6.0.17"
WANTED = ("50.00", "90.00", "99.00")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", help="default: the detector in the box")
    parser.add_argument("--variant", default="int8")
    parser.add_argument("--rate", type=float, default=40.0, help="queries a second")
    parser.add_argument("--seconds", type=float, default=30.0, help="of each scenario")
    arguments = parser.parse_args()
    client = str(Path(__file__).with_name("loadgen_client.py"))
    python = peers.environment("loadgen", LOADGEN)
    with (
        serving.model_folder(arguments.folder) as folder,
        serving.server(folder) as port,
        TemporaryDirectory() as scratch,
    ):
        picture = Path(scratch) / "picture.jpg"
        picture.write_bytes(overhead.jpeg((640, 480)))
        print("| scenario | p50 ms | p90 ms | p99 ms | not answered |\n|---|---|---|---|---|")
        for scenario in ("SingleStream", "Server"):
            out = Path(scratch) / scenario
            out.mkdir()
            done = peers.measured(
                [
                    *(python, client, str(port), f"/v1/models/{arguments.variant}/detect"),
                    *(str(picture), scenario, str(arguments.seconds), str(arguments.rate)),
                    str(out),
                ]
            )
            cells = " | ".join(f"{ms:.2f}" for ms in percentiles(out))
            name = f"{scenario}, {arguments.rate:g}/s" if scenario == "Server" else scenario
            print(f"| {name} | {cells} | {done.said['failed']} |")


def percentiles(folder: Path) -> list[float]:
    """Milliseconds, out of LoadGen's summary."""
    told = (folder / "mlperf_log_summary.txt").read_text()
    return [
        int(re.findall(rf"{re.escape(share)} percentile latency \(ns\)\s*:\s*(\d+)", told)[0]) / 1e6
        for share in WANTED
    ]


if __name__ == "__main__":
    main()
