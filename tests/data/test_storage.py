"""One folder on any store: create-only publishing, stores that cannot do it, temporary files of dead writers."""

from __future__ import annotations

from pathlib import Path

import pytest

from synthforge.data.storage import Folder
from synthforge.errors import PlaceError


def test_create_only_publishing_keeps_what_is_there(place: str, tmp_path: Path) -> None:
    folder = Folder(place)
    assert folder.publish("a", b"first") is True
    assert folder.publish("a", b"second") is False
    assert folder.read("a") == b"first"
    large = tmp_path / "large"
    large.write_bytes(b"l" * 3_000_000)
    assert folder.publish("b", large)
    assert not folder.publish("b", large)
    assert folder.list() == {"a": 5, "b": 3_000_000}
    assert folder.read_range("b", 10, 5) == b"lllll"
    folder.remove("a")
    folder.remove("a")
    assert not folder.exists("a")
    with pytest.raises(FileNotFoundError):
        folder.read("a")


def test_stores_without_create_only_writing_need_a_promise() -> None:
    with pytest.raises(PlaceError, match="no create-only writing"):
        Folder("memory://x").require_writable()
    promised = Folder("memory://x", single_writer=True)
    promised.require_writable()
    assert promised.publish("a", b"1")
    assert not promised.publish("a", b"2")


def test_unknown_stores_and_places_that_are_files(tmp_path: Path) -> None:
    with pytest.raises(PlaceError, match="not an address"):
        Folder("nonsense://x")
    (tmp_path / "file").write_text("")
    with pytest.raises(PlaceError, match="a folder is needed"):
        Folder(str(tmp_path / "file")).require_writable()


def test_litter_of_the_dead_is_swept_and_of_the_living_is_not(tmp_path: Path) -> None:
    from synthforge.data.storage import TEMPORARY, writer_name

    host = writer_name().rpartition("-")[0]
    (tmp_path / f"{TEMPORARY}{host}-999999999-aa-train-000000.tar").write_bytes(b"half")
    (tmp_path / f"{TEMPORARY}{writer_name()}-bb-train-000001.tar").write_bytes(b"half")
    (tmp_path / f"{TEMPORARY}elsewhere.1234-77-cc-train-000002.tar").write_bytes(b"half")
    folder = Folder(str(tmp_path))
    assert folder.sweep() == 1
    assert len(list(tmp_path.iterdir())) == 2
    assert folder.list() == {}
