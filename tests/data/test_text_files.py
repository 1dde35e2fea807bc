"""Text files as editors save them."""

from __future__ import annotations

import codecs
from pathlib import Path

import pytest

from synthforge.data.text_files import lines_of, text_of
from synthforge.errors import DatasetError


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", [b"", codecs.BOM_UTF8])
def test_neither_byte_order_mark_nor_line_ends_are_part_of_the_text(tmp_path: Path, mark: bytes, end: str) -> None:
    path = tmp_path / "names.txt"
    path.write_bytes(mark + end.join(["猫", "", " two words ", "a\u2028b", ""]).encode())
    assert text_of(path) == "猫\n\n two words \na\u2028b\n"
    assert lines_of(str(path)) == ["猫", "two words", "a\u2028b"]


@pytest.mark.parametrize("data", ["Bär\n".encode("latin-1"), "cat\n".encode("utf-16"), "cat\n".encode("utf-16-le"), b"\x89PNG"])
def test_what_is_not_utf8_is_told_with_the_file_and_the_remedy(tmp_path: Path, data: bytes) -> None:
    (path := tmp_path / "names.txt").write_bytes(data)
    with pytest.raises(DatasetError, match=r"^[^\n]*names\.txt.*: not UTF-8.*; save it as UTF-8$"):
        lines_of(path)


def test_the_line_of_the_first_wrong_character_is_named(tmp_path: Path) -> None:
    (path := tmp_path / "names.txt").write_bytes(b"cat\ndog\nB\xe4r\n")
    with pytest.raises(DatasetError, match=r"names\.txt: not UTF-8 \(line 3\)"):
        text_of(path)


def test_files_that_are_missing_or_can_not_be_read(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        text_of(tmp_path / "none.txt")
    with pytest.raises(DatasetError, match="can't be read"):
        text_of(tmp_path)
