"""What anyone may ask, whatever keys there are, and what is asked too often to be worth a line."""

from typing import Final

SAMPLES: Final = frozenset({"/healthz", "/readyz", "/v2/health/live", "/v2/health/ready"})
METRICS: Final = "/metrics"
PAGES: Final = frozenset({"/", "/docs", "/openapi.json"})
PAGE_FILES: Final = "/page/"


def is_public(path: str) -> bool:
    """Probes, and the pages that ask for a key themselves."""
    return path in SAMPLES or path in PAGES or path.startswith(PAGE_FILES)


def is_routine(path: str) -> bool:
    """Asked by machines every few seconds."""
    return path in SAMPLES or path == METRICS
