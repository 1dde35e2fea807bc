"""Files of a dataset folder: versions, damage, shards and keys."""

from __future__ import annotations

import pytest

from synthforge.data.folder import DatasetFolder
from synthforge.data.storage import Folder
from synthforge.errors import DatasetError
from tests.data.folders import manifest


def test_newer_schemas_and_damaged_manifests_are_refused(place: str) -> None:
    folder = Folder(place)
    folder.publish("dataset.json", manifest().to_bytes().replace(b'"schema_version": 2', b'"schema_version": 3'))
    with pytest.raises(DatasetError, match="newer synthforge"):
        DatasetFolder.open(place)
    for damaged in (b"{", b"[]", b'{"schema_version": 1}'):
        folder.replace("dataset.json", damaged)
        with pytest.raises(DatasetError, match=r"damaged or not a synthforge file"):
            DatasetFolder.open(place)
    with pytest.raises(DatasetError, match=r"no dataset\.json"):
        DatasetFolder.open(f"{place}/elsewhere")
