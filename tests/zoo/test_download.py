import os
import socket
import subprocess
import sys

import pytest

from service.progress import Progress
from tests.zoo.web import serving
from zoo import download as module
from zoo.download import download
from zoo.errors import DownloadFailed

BODY = os.urandom(900_000)


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch):
    monkeypatch.setattr(module, "PAUSE_S", 0.0)


@pytest.fixture
def web():
    with serving({"/model.onnx": BODY}) as web:
        yield web


def fetched(web, folder):
    return download(f"{web.url}/model.onnx", folder / "model.onnx", lambda _: None)


def test_the_part_holds_every_byte_and_the_target_is_left_to_the_caller(web, tmp_path):
    part = fetched(web, tmp_path / "new" / "folder")
    assert part.read_bytes() == BODY
    assert [path.name for path in part.parent.iterdir()] == ["model.onnx.part"]


def test_progress_counts_bytes_up_to_the_total(web, tmp_path):
    steps: list[Progress] = []
    download(f"{web.url}/model.onnx", tmp_path / "model.onnx", steps.append)
    assert steps[-1] == Progress("download", len(BODY), len(BODY))
    assert [step.done for step in steps] == sorted(step.done for step in steps)


def test_a_cut_connection_is_gone_on_with_where_it_broke_off(web, tmp_path):
    web.cuts = [300_000, 200_000]
    assert fetched(web, tmp_path).read_bytes() == BODY
    assert web.asked == ["", "bytes=300000-", "bytes=500000-"]


def test_a_later_call_goes_on_with_what_an_earlier_one_left(web, tmp_path):
    web.cuts = [400_000] + [0] * module.ATTEMPTS
    with pytest.raises(DownloadFailed, match=r"broke off after 400000 of 900000 bytes.*go on"):
        fetched(web, tmp_path)
    web.asked.clear()
    assert fetched(web, tmp_path).read_bytes() == BODY
    assert web.asked == ["bytes=400000-"]


def test_a_file_that_changed_in_between_is_fetched_anew(web, tmp_path):
    web.cuts = [400_000] + [0] * module.ATTEMPTS
    with pytest.raises(DownloadFailed):
        fetched(web, tmp_path)
    other = os.urandom(700_000)
    web.files["/model.onnx"], web.etag = other, '"two"'
    assert fetched(web, tmp_path).read_bytes() == other


def test_a_file_that_shrank_in_between_is_fetched_anew(web, tmp_path):
    web.cuts = [400_000] + [0] * module.ATTEMPTS
    with pytest.raises(DownloadFailed):
        fetched(web, tmp_path)
    web.files["/model.onnx"] = b"short"
    assert fetched(web, tmp_path).read_bytes() == b"short"


@pytest.mark.parametrize("etag", [None, 'W/"weak"'])
def test_without_a_strong_etag_two_versions_are_never_mixed(web, tmp_path, etag):
    web.etag, web.cuts = etag, [400_000]
    assert fetched(web, tmp_path).read_bytes() == BODY
    assert web.asked == ["", ""]


def test_a_server_that_knows_no_ranges_starts_anew(web, tmp_path):
    web.ranges, web.cuts = False, [400_000]
    assert fetched(web, tmp_path).read_bytes() == BODY


def test_a_busy_server_is_asked_again(web, tmp_path):
    web.statuses = [503, 429]
    assert fetched(web, tmp_path).read_bytes() == BODY


def test_a_missing_file_is_final_and_the_message_says_what_to_do(web, tmp_path):
    target = tmp_path / "gone.onnx"
    with pytest.raises(DownloadFailed, match=r"404.*put it here: ") as failure:
        download(f"{web.url}/gone.onnx", target, lambda _: None)
    assert str(target) in str(failure.value)
    assert len(web.asked) == 1


def test_offline_the_message_names_the_address_and_the_place(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    address = f"http://127.0.0.1:{port}/model.onnx"
    with pytest.raises(DownloadFailed, match="refused") as failure:
        download(address, tmp_path / "model.onnx", lambda _: None)
    assert address in str(failure.value)
    assert str(tmp_path / "model.onnx") in str(failure.value)


def test_a_file_larger_than_the_disk_is_refused_before_it_fills_it(web, tmp_path, monkeypatch):
    real = module.shutil.disk_usage

    def nearly_full(path):
        return real(path)._replace(free=100_000)

    monkeypatch.setattr(module.shutil, "disk_usage", nearly_full)
    with pytest.raises(DownloadFailed, match=r"room for 0\.1 MB, 0\.9 MB are needed"):
        fetched(web, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_up_meanwhile_ends_it_with_a_clear_message(web, tmp_path):
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
    done = subprocess.run(
        [sys.executable, "-c", program, f"{web.url}/model.onnx", str(target)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "model.onnx.part cannot be written: File too large" in done.stdout
    assert not target.exists()
    assert fetched(web, tmp_path).read_bytes() == BODY  # once there is room
