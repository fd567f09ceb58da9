"""Triton Inference Server around the detector: `triton_server.py PORT INSTANCES HOME`.

HOME is an environment that has nvidia-pytriton: its wheel brings the server's program and its
Python backend. An instance of the model is a process with the packages of the Python that runs this
script. gRPC and metrics are off.
"""

import os
import shutil
import sys
import sysconfig
from pathlib import Path

PEERS = Path(__file__).parent
STUB = "triton_python_backend_stub"
MODEL = "detector"
CONFIG = """
backend: "python"
max_batch_size: 0
input {{ name: "image", data_type: TYPE_UINT8, dims: -1 }}
output [
  {{ name: "boxes", data_type: TYPE_FP32, dims: [ -1, 4 ] }},
  {{ name: "scores", data_type: TYPE_FP32, dims: -1 }}
]
instance_group {{ count: {instances}, kind: KIND_CPU }}
"""


def main() -> None:
    port, instances, home = sys.argv[1:]
    site_packages = sysconfig.get_path("purelib", "venv", {"base": home})
    triton = Path(site_packages) / "pytriton" / "tritonserver"
    install_stub(triton)
    repository = Path(home) / f"models-{instances}"
    write_model(repository / MODEL, instances)
    command = [
        str(triton / "bin" / "tritonserver"),
        *("--model-repository", str(repository), "--backend-directory", str(triton / "backends")),
        *("--http-address", "127.0.0.1", "--http-port", port),
        *("--allow-grpc", "false", "--allow-metrics", "false", "--exit-timeout-secs", "1"),
    ]
    # The stub embeds Python: it needs libpython, and the folders to import from.
    libraries = sysconfig.get_config_var("LIBDIR")
    packages = os.pathsep.join((os.environ["PYTHONPATH"], sysconfig.get_path("purelib")))
    environment = {"LD_LIBRARY_PATH": libraries, "PYTHONPATH": packages}
    os.execve(command[0], command, os.environ | environment)


def install_stub(triton: Path) -> None:
    """Copy the stub of this version of Python beside the backend, which looks for it there."""
    installed = triton / "backends" / "python" / STUB
    if not installed.exists():  # one that runs cannot be overwritten
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        shutil.copy(triton / "python_backend_stubs" / version / STUB, installed)


def write_model(folder: Path, instances: str) -> None:
    """A model's folder in a repository."""
    (folder / "1").mkdir(parents=True, exist_ok=True)
    (folder / "config.pbtxt").write_text(CONFIG.format(instances=instances))
    shutil.copy(PEERS / "triton_model.py", folder / "1" / "model.py")


if __name__ == "__main__":
    main()
