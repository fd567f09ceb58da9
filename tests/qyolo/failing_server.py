"""A server whose engine hangs or raises from the first image on; argv[1] says which."""

import sys
import threading
from pathlib import Path

from qyolo.errors import CommandError
from qyolo.serving import run_server
from service.app import local_backend
from service.errors import EngineFailed
from service.lifecycle import FolderSource
from service.settings import Settings
from tests.fakes import FakeEngine, variants_of
from tests.service.live import FP32_RAW


class Failing(FakeEngine):
    """Works for a blank image alone if it is to hang, never if it is to raise."""

    def infer(self, tensor):
        if sys.argv[1] == "hang" and tensor.any():
            threading.Event().wait()
        if sys.argv[1] == "raise":
            raise EngineFailed("broken")
        return super().infer(tensor)


settings = Settings()
variants = variants_of({"fp32": Failing(FP32_RAW)})
try:
    run_server(settings, FolderSource(Path()), local_backend(settings, lambda *_: variants))
except CommandError:
    sys.exit(2)  # as the command line does
