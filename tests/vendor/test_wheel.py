import shutil
import subprocess

import pytest

from tests.vendor.stubs import Elf, write_stubs
from tests.vendor.wheel import Unreadable, find_wheel

needs_gcc = pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")


def compiled(folder, name: str, source: str, *options: str):
    code = folder / f"{name}.c"
    code.write_text(source)
    made = folder / f"{name}.so"
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", made, code, *options], check=True)
    return made


@needs_gcc
def test_the_stubs_have_every_symbol_that_is_missing_and_no_other(tmp_path):
    named = "-Wl,-soname,libnvthing.so"
    vendor = compiled(tmp_path, "libnvthing", "int far(void) { return 1; }", named)
    module = compiled(
        tmp_path,
        "module",
        '#include <stdio.h>\nint far(void); int near_by(void) { puts(""); return far(); }',
        str(vendor),
    )
    assert Elf(module).undefined == ["far"]
    assert "libc.so.6" in Elf(module).needed
    stubs = tmp_path / "stubs"
    stubs.mkdir()
    write_stubs(module, stubs)
    assert (stubs / "stub.c").read_text() == "void *far(void) { return 0; }\n"
    assert Elf(stubs / "libnvthing.so").undefined == []


def test_a_file_that_is_no_library_is_refused(tmp_path):
    path = tmp_path / "text.so"
    path.write_text("not a library")
    with pytest.raises(ValueError, match=r"text\.so is not a 64-bit"):
        Elf(path)


@needs_gcc
def test_a_missing_wheel_is_told_of(tmp_path):
    (tmp_path / "10").mkdir()
    (tmp_path / "10" / "tensorrt_cu13_bindings-10.0-cp38-none-any.whl").touch()
    with pytest.raises(Unreadable, match=r"no wheel in .*/10 fits cp3\d+: make test"):
        find_wheel("10", tmp_path)
