import os
import socket

import pytest

from service.progress import Progress
from tests.processes import run_python
from tests.zoo.web import serving
from zoo import download as module
from zoo.download import download
from zoo.errors import DownloadFailed

BODY = os.urandom(900_000)


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch):
    monkeypatch.setattr(module, "PAUSE_S", 0.0)


@pytest.fixture
def web():
    with serving({"/model.onnx": BODY}) as web:
        yield web


def fetched(web, folder):
    return download(f"{web.url}/model.onnx", folder / "model.onnx", lambda _: None)


def test_all_bytes_are_in_the_part_file_and_the_target_is_not_written(web, tmp_path):
    steps: list[Progress] = []
    target = tmp_path / "new" / "folder" / "model.onnx"
    part = download(f"{web.url}/model.onnx", target, steps.append)
    assert part.read_bytes() == BODY
    assert [path.name for path in part.parent.iterdir()] == ["model.onnx.part"]
    assert steps[-1] == Progress("download", len(BODY), len(BODY))
    assert [step.done for step in steps] == sorted(step.done for step in steps)


def test_an_interrupted_download_resumes_at_its_last_byte(web, tmp_path):
    web.cuts = [300_000, 200_000]
    assert fetched(web, tmp_path).read_bytes() == BODY
    assert web.asked == ["", "bytes=300000-", "bytes=500000-"]


def test_a_later_call_resumes_a_failed_download(web, tmp_path):
    web.cuts = [400_000] + [0] * module.ATTEMPTS
    with pytest.raises(DownloadFailed, match=r"closed after 400000 of 900000 bytes.*to resume"):
        fetched(web, tmp_path)
    web.asked.clear()
    assert fetched(web, tmp_path).read_bytes() == BODY
    assert web.asked == ["bytes=400000-"]


@pytest.mark.parametrize(
    ("body", "etag"), [(os.urandom(700_000), '"two"'), (b"short", '"one"')], ids=["new", "shorter"]
)
def test_a_file_that_changed_is_downloaded_from_its_start(web, tmp_path, body, etag):
    web.cuts = [400_000] + [0] * module.ATTEMPTS
    with pytest.raises(DownloadFailed):
        fetched(web, tmp_path)
    web.files["/model.onnx"], web.etag = body, etag
    assert fetched(web, tmp_path).read_bytes() == body


@pytest.mark.parametrize(
    ("failures", "asked"),
    [
        ({"etag": None, "cuts": [400_000]}, ["", ""]),  # two versions must never mix
        ({"etag": 'W/"weak"', "cuts": [400_000]}, ["", ""]),
        ({"ranges": False, "cuts": [400_000]}, ["", "bytes=400000-"]),
        ({"statuses": [503, 429]}, ["", "", ""]),
    ],
    ids=["no etag", "weak etag", "no range support", "busy"],
)
def test_a_download_that_cannot_resume_starts_again(web, tmp_path, failures, asked):
    vars(web).update(failures)
    assert fetched(web, tmp_path).read_bytes() == BODY
    assert web.asked == asked


def test_a_missing_file_is_not_retried_and_the_error_says_what_to_do(web, tmp_path):
    target = tmp_path / "gone.onnx"
    with pytest.raises(DownloadFailed, match=r"404.*save it as ") as failure:
        download(f"{web.url}/gone.onnx", target, lambda _: None)
    assert str(target) in str(failure.value)
    assert len(web.asked) == 1


def test_without_a_server_the_error_names_the_address_and_the_target(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    address = f"http://127.0.0.1:{port}/model.onnx"
    with pytest.raises(DownloadFailed, match="refused") as failure:
        download(address, tmp_path / "model.onnx", lambda _: None)
    assert address in str(failure.value)
    assert str(tmp_path / "model.onnx") in str(failure.value)


def test_a_file_larger_than_the_free_disk_is_not_downloaded(web, tmp_path, monkeypatch):
    real = module.shutil.disk_usage

    def nearly_full(path):
        return real(path)._replace(free=100_000)

    monkeypatch.setattr(module.shutil, "disk_usage", nearly_full)
    with pytest.raises(DownloadFailed, match=r"has 0\.1 MB free, 0\.9 MB are needed"):
        fetched(web, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_during_the_download_is_a_clear_error(web, tmp_path):
    """The kernel refuses to write past a limit, as it does on a full disk."""
    program = (
        "import resource, signal, sys\n"
        "from pathlib import Path\n"
        "from zoo.download import download\n"
        "from zoo.errors import DownloadFailed\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))\n"
        "try:\n"
        "    download(sys.argv[1], Path(sys.argv[2]), lambda _: None)\n"
        "except DownloadFailed as exc:\n"
        "    print(exc)\n"
    )
    target = tmp_path / "model.onnx"
    printed = run_python(program, f"{web.url}/model.onnx", target)
    assert "model.onnx.part cannot be written: File too large" in printed
    assert not target.exists()
    assert fetched(web, tmp_path).read_bytes() == BODY  # with the limit gone


@pytest.mark.parametrize("endless", [False, True], ids=["declared", "endless"])
@pytest.mark.parametrize("before", [b"", b"some bytes of an earlier download"])
def test_a_download_stops_at_the_size_and_leaves_nothing(web, tmp_path, endless, before):
    web.endless = endless
    if before:
        (tmp_path / "model.onnx.part").write_bytes(before)
        (tmp_path / "model.onnx.part.tag").write_text(web.etag)
    most: list[int] = []
    with pytest.raises(DownloadFailed, match="more than the 800000 bytes"):
        download(
            f"{web.url}/model.onnx",
            tmp_path / "model.onnx",
            lambda step: most.append(step.done),
            len(BODY) - 100_000,
        )
    assert max(most, default=0) < len(BODY)
    assert list(tmp_path.iterdir()) == []
    assert len(web.asked) == 1


def test_a_file_of_exactly_the_size_is_downloaded(web, tmp_path):
    part = download(f"{web.url}/model.onnx", tmp_path / "model.onnx", lambda _: None, len(BODY))
    assert part.read_bytes() == BODY
