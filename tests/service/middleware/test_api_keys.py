import hashlib
import subprocess

import pytest

from service.middleware.api_keys import BadKeys, Keys, read_keys

SECRET = "correct-horse-battery"
DIGEST = hashlib.sha256(SECRET.encode()).hexdigest()


@pytest.mark.parametrize("entry", [SECRET, f"sha256:{DIGEST}", f"sha256:{DIGEST.upper()}"])
def test_a_key_is_recognised_plain_and_hashed(entry):
    assert read_keys(entry, None).name_of(SECRET) == f"key-{DIGEST[:8]}"
    assert read_keys(f"camera-1:{entry}", None).name_of(SECRET) == "camera-1"


@pytest.mark.parametrize("presented", ["", SECRET[:-1], SECRET + "x", DIGEST, f"sha256:{DIGEST}"])
def test_any_other_secret_is_unknown(presented):
    assert read_keys(f"sha256:{DIGEST}", None).name_of(presented) is None


def test_keys_of_the_list_and_the_file_may_share_a_name(tmp_path):
    file = tmp_path / "keys"
    file.write_text(f"# the cameras'\n\ncamera:{'b' * 16}  # the new one\n{'c' * 16}\n")
    keys = read_keys(f"camera:{'a' * 16}, door:sha256:{DIGEST}", file)
    assert [keys.name_of(each) for each in ("a" * 16, "b" * 16, SECRET)] == [
        "camera",
        "camera",
        "door",
    ]
    assert keys.name_of("c" * 16).startswith("key-")


def test_no_setting_means_no_keys():
    assert not read_keys(None, None)
    assert not Keys()


@pytest.mark.parametrize(
    "entry", ["short", "two words and more", "a name:" + SECRET, f"sha256:{DIGEST[:40]}", "x:" * 20]
)
def test_an_invalid_key_is_rejected_and_not_repeated(entry):
    with pytest.raises(BadKeys, match="API key 2 is not") as caught:
        read_keys(f"{SECRET},{entry}", None)
    assert entry not in str(caught.value)


def test_a_setting_without_keys_is_an_error(tmp_path):
    (tmp_path / "empty").write_text("# none yet\n")
    for listed, file in (("", None), (None, tmp_path / "empty")):
        with pytest.raises(BadKeys, match="none is given"):
            read_keys(listed, file)
    with pytest.raises(BadKeys, match="cannot be read"):
        read_keys(None, tmp_path / "missing")


def test_the_documented_command_hashes_as_the_server_does():
    line = f"printf %s {SECRET} | sha256sum"
    hashed = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=True).stdout
    assert hashed.split()[0] == DIGEST
