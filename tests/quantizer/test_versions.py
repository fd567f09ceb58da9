import hashlib
import platform
from importlib.metadata import version

from quantizer.versions import sha256_of, source_digest, versions


def test_versions_name_python_and_the_packages_that_decide_a_build():
    found = versions()
    assert found["python"] == platform.python_version()
    for package in ("qyolo", "numpy", "onnx", "onnxruntime", "openvino", "pillow"):
        assert found[package] == version(package)


def test_files_are_digested_by_their_contents(tmp_path):
    (tmp_path / "file").write_bytes(b"abc")
    assert sha256_of(tmp_path / "file") == hashlib.sha256(b"abc").hexdigest()
    assert len(source_digest()) == 64
