"""Heartbeats: who writes to a folder now."""

from __future__ import annotations

from synthforge.data.storage import Folder


def test_heartbeats_tell_who_lives(place: str) -> None:
    import json
    import time

    from synthforge.data.heartbeats import Heartbeat, live_writers

    folder = Folder(place)
    log = folder.within("_log")
    old = {"writer": "elsewhere.00-1", "shards": [3], "images": 1, "images_per_second": 2.0, "started": 0.0}
    log.replace("writer-elsewhere.00-1-aa.json", json.dumps(old | {"beat": time.time() - 1000}).encode())
    log.replace("writer-elsewhere.00-2-bb.json", json.dumps(old | {"writer": "elsewhere.00-2", "beat": time.time()}).encode())
    with Heartbeat(folder) as heartbeat:
        heartbeat.tell(images=10, rate=3.0)
        heartbeat.claim(5)
        heartbeat.claim(6)
        assert sorted(shard for beat in live_writers(log) for shard in beat.shards) == [3, 5, 6]
        assert heartbeat.claimed_by_others() == {3}
        heartbeat.drop(5)
        assert [beat.writer for beat in heartbeat.others()] == ["elsewhere.00-2"]
    assert [beat.writer for beat in live_writers(log)] == ["elsewhere.00-2"]
    assert "writer-elsewhere.00-1-aa.json" not in log.list()  # the dead are cleared away by the next writer
