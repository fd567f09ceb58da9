"""The tests' process is set up like any other one that imports the runtimes.

numpy multiplies matrices on one thread, in child processes too: there is a worker for each core,
and threads that wait for a core of another worker take its time.
"""

import os

from qyolo.process import set_up_process

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read when numpy is imported
set_up_process()
