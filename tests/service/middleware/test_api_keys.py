import hashlib
import subprocess

import pytest

from service.middleware.api_keys import BadKeys, digest_of, read_keys

SECRET = "correct-horse-battery"
DIGEST = hashlib.sha256(SECRET.encode()).hexdigest()


@pytest.mark.parametrize("entry", [SECRET, f"sha256:{DIGEST}", f"sha256:{DIGEST.upper()}"])
def test_a_key_is_kept_as_its_digest_plain_or_hashed(entry):
    digest = bytes.fromhex(DIGEST)
    assert read_keys(entry, None) == {digest: f"key-{DIGEST[:8]}"}
    assert read_keys(f"camera-1:{entry}", None) == {digest: "camera-1"}


def test_keys_of_the_list_and_the_file_may_share_a_name(tmp_path):
    file = tmp_path / "keys"
    file.write_text(f"# the cameras'\n\ncamera:{'b' * 16}  # the new one\n{'c' * 16}\n")
    keys = read_keys(f"camera:{'a' * 16}, door:sha256:{DIGEST}", file)
    names = [keys[digest_of(secret)] for secret in ("a" * 16, "b" * 16, SECRET, "c" * 16)]
    assert names[:3] == ["camera", "camera", "door"]
    assert names[3].startswith("key-")


def test_no_setting_means_no_keys():
    assert not read_keys(None, None)


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
