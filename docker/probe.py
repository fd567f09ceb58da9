"""Exit code 0 if the server in this container answers a path with 200: probe.py /healthz."""

import os
import sys
from urllib.request import urlopen

TIMEOUT_S = 4  # less than Docker's timeout, so that the reason is in its log

address = f"http://127.0.0.1:{os.environ.get('QYOLO_PORT', 8000)}{sys.argv[1]}"
try:
    urlopen(address, timeout=TIMEOUT_S).close()
except OSError as exc:
    sys.exit(f"{address}: {exc}")
