"""Tars and their tables: the same bytes for the same samples, plain WebDataset, tears found."""

from __future__ import annotations

from pathlib import Path

import pytest

from synthforge.data.tars import index_tar, table_bytes, write_tar
from synthforge.errors import DatasetError
from tests.data.folders import manifest, samples


def test_torn_tars_are_refused(tmp_path: Path) -> None:
    shard = manifest().segment.shard(0)
    write_tar(tmp_path / "x.tar", samples(shard))
    whole = (tmp_path / "x.tar").read_bytes()
    index_tar(tmp_path / "x.tar", "x")
    for length in (0, 100, 512, 1300, 5000, len(whole) - 1, len(whole) - 512, 10240):
        (tmp_path / "torn.tar").write_bytes(whole[:length])
        with pytest.raises(DatasetError, match=r"torn|not one sample"):
            index_tar(tmp_path / "torn.tar", "torn")


def test_equal_samples_give_equal_bytes(tmp_path: Path) -> None:
    shard = manifest().segment.shard(1)
    for name in ("one", "two"):
        write_tar(tmp_path / name, samples(shard))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    tables = [index_tar(tmp_path / name, name) for name in ("one", "two")]
    assert table_bytes(tables[0]) == table_bytes(tables[1])


def test_the_tar_is_plain_webdataset(tmp_path: Path) -> None:
    import stat
    import tarfile

    shard = manifest().segment.shard(0)
    write_tar(tmp_path / "x.tar", samples(shard))
    with tarfile.open(tmp_path / "x.tar") as tar:
        members = tar.getmembers()
    assert [member.name for member in members[:5]] == ["000000000.png", "000000000.cls", "000000000.txt", "000000000.json", "000000001.png"]
    assert {(member.mtime, member.uid, member.gid, stat.S_IMODE(member.mode)) for member in members} == {(0, 0, 0, 0o644)}
    assert (tmp_path / "x.tar").read_bytes()[257:263] == b"ustar\0"
