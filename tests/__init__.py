"""The tests' process is set up like any other one that imports the runtimes."""

from qyolo.process import set_up_process

set_up_process()
