import hashlib
import platform
from importlib.metadata import version

from quantizer.versions import sha256_of, source_digest, versions


def test_versions_name_python_and_the_packages_that_decide_a_build():
    found = versions()
    assert found["python"] == platform.python_version()
    for package in ("qyolo", "numpy", "onnx", "onnxruntime", "openvino", "pillow"):
        assert found[package] == version(package)


def test_the_digest_of_the_source_is_stable():
    assert source_digest() == source_digest()
    assert len(source_digest()) == 64


def test_a_file_is_digested_by_its_contents(tmp_path):
    (tmp_path / "file").write_bytes(b"abc")
    assert sha256_of(tmp_path / "file") == hashlib.sha256(b"abc").hexdigest()
