"""Empty libraries in place of NVIDIA's, so that what was linked against those can be imported."""

import shutil
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

VENDOR: Final = "libnv"  # how the names of the libraries begin that are not to be had
PYTHON: Final = ("Py", "_Py")  # the interpreter's own symbols

SECTION: Final = struct.Struct("<IIQQQQIIQQ")
SYMBOL: Final = struct.Struct("<IBBHQQ")
DYNAMIC: Final = struct.Struct("<qQ")
SHT_DYNAMIC, SHT_DYNSYM, SHT_VERSIONS = 6, 11, 0x6FFFFFFF
DT_NEEDED, GLOBAL, UNVERSIONED = 1, 1, 1


class Elf:
    """The dynamic part of a 64-bit little-endian library."""

    def __init__(self, path: Path) -> None:
        self._bytes = path.read_bytes()
        if self._bytes[:6] != b"\x7fELF\x02\x01":
            raise ValueError(f"{path.name} is not a 64-bit little-endian ELF file")
        (offset,) = struct.unpack_from("<Q", self._bytes, 40)
        size, count = struct.unpack_from("<HH", self._bytes, 58)
        assert size == SECTION.size
        self._sections = [
            SECTION.unpack_from(self._bytes, offset + index * size) for index in range(count)
        ]

    @property
    def needed(self) -> list[str]:
        """The libraries that it names."""
        (section,) = self._of_kind(SHT_DYNAMIC)
        entries = DYNAMIC.iter_unpack(self._content(section))
        return [self._name(section, value) for tag, value in entries if tag == DT_NEEDED]

    @property
    def undefined(self) -> list[str]:
        """The symbols that it takes from elsewhere, but for weak ones and those with a version.

        libc and libstdc++ version all that they have.
        """
        (section,) = self._of_kind(SHT_DYNSYM)
        symbols = list(SYMBOL.iter_unpack(self._content(section)))
        versions = [UNVERSIONED] * len(symbols)
        for table in self._of_kind(SHT_VERSIONS):
            versions = [version for (version,) in struct.iter_unpack("<H", self._content(table))]
        return [
            self._name(section, name)
            for (name, info, _, index, _, _), version in zip(symbols, versions, strict=True)
            if index == 0 and info >> 4 == GLOBAL and version <= UNVERSIONED
        ]

    def _of_kind(self, kind: int) -> Iterator[tuple[int, ...]]:
        return (section for section in self._sections if section[1] == kind)

    def _content(self, section: tuple[int, ...]) -> bytes:
        return self._bytes[section[4] : section[4] + section[5]]

    def _name(self, section: tuple[int, ...], offset: int) -> str:
        start = self._sections[section[6]][4] + offset
        return self._bytes[start : self._bytes.index(b"\0", start)].decode()


def write_stubs(module: Path, folder: Path) -> None:
    """Into the folder: every vendor library that the module needs. Functions in them return 0."""
    elf = Elf(module)
    names = [name for name in elf.undefined if not name.startswith(PYTHON)]
    source = folder / "stub.c"
    source.write_text("".join(f"void *{name}(void) {{ return 0; }}\n" for name in sorted(names)))
    first, *others = [name for name in elf.needed if name.startswith(VENDOR)]
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", folder / first, source], check=True)
    for name in others:
        shutil.copy(folder / first, folder / name)
