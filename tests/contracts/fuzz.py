"""Damaged and hostile inputs for every reader, by number: case 17 is the same on every machine.

    python -m tests.contracts.fuzz --cases 50000

Each batch runs in a process of its own, with limits of time and memory. A case fails if anything but one of our own
errors is raised, if a file outside the cache is written or changed, or if an image of an undamaged sample is lost.
"""

from __future__ import annotations

import argparse
import io
import json
import resource
import subprocess
import sys
import tarfile
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from synthforge.data.images import decode
from synthforge.data.opening import open_collection
from synthforge.errors import DatasetError, SynthforgeError

BATCH = 250
MEMORY_BYTES = 4 << 30
"""Address space of a batch."""
SECONDS = 120
"""For a batch."""
SAMPLES = 4
Rng = np.random.Generator


def picture(rng: Rng) -> bytes:
    """A small image file in a random format."""
    buffer = io.BytesIO()
    pixels = rng.integers(0, 256, (int(rng.integers(1, 24)), int(rng.integers(1, 24)), 3), dtype=np.uint8)
    image_format = str(rng.choice(["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF"]))
    Image.fromarray(pixels).save(buffer, image_format)
    return buffer.getvalue()


def damaged(data: bytes, rng: Rng) -> bytes:
    """Some bytes changed, cut out, doubled or cut off."""
    content = bytearray(data)
    for _ in range(int(rng.integers(1, 6))):
        if not content:
            break
        at, size = int(rng.integers(len(content))), int(rng.integers(1, 64))
        match int(rng.integers(5)):
            case 0:
                content[at : at + size] = rng.bytes(min(size, len(content) - at))
            case 1:
                del content[at : at + size]
            case 2:
                content[at:at] = content[at : at + size]
            case 3:
                content[at] = int(rng.choice([0, 0x7F, 0x80, 0xFF]))
            case _:
                del content[at:]
    return bytes(content)


# Cases: each writes an input into a folder, and returns its path and how many images must be found (None: any number)

Case = tuple[Path, int | None]


def sound_tar(folder: Path, rng: Rng) -> Case:
    """A whole tar with strange, but valid members."""
    path = folder / "set.tar"
    tar_format = int(rng.choice([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]))
    mode = str(rng.choice(["w", "w", "w:gz", "w:bz2", "w:xz"]))
    with tarfile.open(path, mode, format=tar_format) as file:  # type: ignore[call-overload]
        for number in range(SAMPLES):
            long = "d" * int(rng.integers(1, 60)) + "/" if rng.random() < 0.3 else ""
            long = long * int(rng.integers(1, 8)) if tar_format != tarfile.USTAR_FORMAT else long
            key = f"{long}{number}" + ("é" if rng.random() < 0.2 and tar_format != tarfile.USTAR_FORMAT else "")
            for name, data in ((f"{key}.png", picture(rng)), (f"{key}.cls", str(rng.integers(3)).encode())):
                member = tarfile.TarInfo(name)
                member.size, member.mtime = len(data), int(rng.integers(2**31))
                if tar_format == tarfile.PAX_FORMAT and rng.random() < 0.3:
                    member.pax_headers = {"comment": "x" * int(rng.integers(1, 5000)), "SCHILY.xattr.user.a": "b"}
                file.addfile(member, io.BytesIO(data))
            if rng.random() < 0.4:
                link = tarfile.TarInfo(str(rng.choice(["../out.png", "/tmp/out.png", f"{number}.seg.png", "link.png"])))
                link.type = rng.choice([tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE])
                link.linkname = "../../outside" if rng.random() < 0.5 else f"{number}.png"
                file.addfile(link)
    return path, SAMPLES


def torn_tar(folder: Path, rng: Rng) -> Case:
    """A damaged tar."""
    path, _ = sound_tar(folder, rng)
    path.write_bytes(damaged(path.read_bytes(), rng))
    return path, None


def hostile_header(folder: Path, rng: Rng) -> Case:
    """A tar with one header that lies: giant or negative sizes, loops of long names."""
    path, _ = sound_tar(folder, rng)
    if path.read_bytes()[257:262] != b"ustar":  # compressed
        return torn_tar(folder, rng)
    content = bytearray(path.read_bytes())
    at = int(rng.integers(max(1, len(content) // 512))) * 512
    sizes = [b"77777777777\0", b"\x80" + b"\0" * 3 + rng.bytes(8), b"\xff" * 12, b"-0000000001\0", b"00000000000\0"]
    content[at + 124 : at + 136] = sizes[int(rng.integers(len(sizes)))]
    content[at + 156 : at + 157] = rng.choice([b"0", b"x", b"g", b"L", b"K", b"S", b"V", b"7"])
    header = bytes(content[at : at + 512])
    checksum = sum(header[:148]) + 8 * 32 + sum(header[156:])
    content[at + 148 : at + 156] = f"{checksum:06o}\0 ".encode()
    path.write_bytes(content)
    return path, None


def image_folder(folder: Path, rng: Rng) -> Case:
    """An image folder with damaged images among whole ones, and other files."""
    place = folder / "folder"
    for number in range(SAMPLES):
        of_class = place / str(rng.choice(["cat", "dog", "猫", "__x", "a b"]))
        of_class.mkdir(parents=True, exist_ok=True)
        (of_class / f"{number}.png").write_bytes(picture(rng))
        (of_class / f"bad{number}.jpg").write_bytes(damaged(picture(rng), rng))
        (of_class / f"other{number}").write_bytes(rng.bytes(int(rng.integers(0, 200))))
    return place, None


def parquet(folder: Path, rng: Rng) -> Case:
    """A table with strange or damaged content."""
    path = folder / "set.parquet"
    cells = [picture(rng) if rng.random() < 0.8 else rng.bytes(20) for _ in range(SAMPLES)]
    column: list[Any] = [{"bytes": cell, "path": None} for cell in cells] if rng.random() < 0.7 else list(cells)
    labels: list[Any] = [
        [int(value) for value in rng.integers(0, 3, SAMPLES)],
        [float(value) for value in rng.random(SAMPLES)],
        [None] * SAMPLES,
        ["cat"] * SAMPLES,
    ][int(rng.integers(4))]
    pq.write_table(pa.table({"image": column, "label": labels}), path)
    if rng.random() < 0.7:
        path.write_bytes(damaged(path.read_bytes(), rng))
    return path, None


def side_files(folder: Path, rng: Rng) -> Case:
    """A whole tar beside damaged side files."""
    path, num = sound_tar(folder, rng)
    names = json.dumps(["a", "b", "c"])
    contents = {"_info.json": json.dumps({"classes": ["a", "b", "c"]}), "classes.txt": "a\nb\nc\n", "set_stats.json": "{}"}
    name = str(rng.choice(list(contents)))
    (folder / name).write_bytes(damaged(contents[name].encode(), rng))
    (folder / "sizes.json").write_bytes(damaged(names.encode(), rng))
    return path.parent, None if name == "classes.txt" or name == "_info.json" else num


READERS: list[Callable[[Path, Rng], Case]] = [sound_tar, torn_tar, hostile_header, image_folder, parquet, side_files]


def recipe(folder: Path, rng: Rng) -> None:
    """A damaged recipe; raises RecipeError for most."""
    from synthforge.recipe.load import load_recipe

    path = folder / "recipe.yaml"
    source = Path(__file__).parents[2] / "recipes" / "digits.yaml"
    path.write_bytes(damaged(source.read_bytes(), rng))
    load_recipe(path)


def read(place: Path, cache: Path) -> int:
    """Open a set and decode all that can be; returns the number of images."""
    collection = open_collection(str(place), cache)
    num = 0
    for block in collection.blocks:
        collection.rows(block)
        list(collection.locations(block))
        for data in collection.images(block):
            num += 1
            try:
                decode(data)
            except DatasetError:
                continue
    collection.part()
    return num


def problem_of(number: int) -> str | None:
    """What is wrong with a case; None if it holds."""
    rng = np.random.default_rng(number)
    with tempfile.TemporaryDirectory(prefix="fuzz") as root:
        folder, cache = Path(root, "inputs"), Path(root, "cache")
        folder.mkdir()
        try:
            if number % (len(READERS) + 1) == len(READERS):
                recipe(folder, rng)
                return None
            place, wanted = READERS[number % (len(READERS) + 1)](folder, rng)
            before = _contents(Path(root), without=cache)
            try:
                found = read(place, cache)
                if wanted is not None and found != wanted:
                    return f"{found} of {wanted} images found"
            except SynthforgeError as error:
                if wanted is not None:
                    return f"refused: {error}"
                if "\n" in str(error):
                    return f"more than one line: {error!r}"
            if _contents(Path(root), without=cache) != before:
                return "a file outside the cache was written"
        except SynthforgeError:
            return None
        except BaseException:  # noqa: BLE001 - whatever it is, it is a finding
            return " | ".join(line.strip() for line in traceback.format_exc().splitlines()[-5:])
    return None


def _contents(root: Path, without: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in root.rglob("*") if path.is_file() and not path.is_relative_to(without)}


def findings(first: int, num: int) -> Iterator[dict[str, Any]]:
    """The cases that fail, by number, each batch in a process of its own."""
    for start in range(first, first + num, BATCH):
        end = min(start + BATCH, first + num)
        command = [sys.executable, "-m", "tests.contracts.fuzz", "--from", str(start), "--cases", str(end - start), "--here"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, cwd=Path(__file__).parents[2], check=False)
        except subprocess.TimeoutExpired as error:
            yield {"batch": start, "problem": f"took more than {SECONDS} s; at {(error.stdout or b'')[-200:]!r}"}
            continue
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        if done.returncode or len(lines) != end - start:
            yield {"batch": start, "problem": f"died with status {done.returncode} at case {start + len(lines)}: {done.stderr[-500:]}"}
        yield from (line for line in lines if line["problem"])


def main() -> None:
    """Run cases and print those that fail."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--from", dest="first", type=int, default=0, help="number of the first case")
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--here", action="store_true", help="in this process; a line for each case")
    asked = parser.parse_args()
    if asked.here:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
        for number in range(asked.first, asked.first + asked.cases):
            print(json.dumps({"case": number, "problem": problem_of(number)}), flush=True)
        return
    failed = 0
    for finding in findings(asked.first, asked.cases):
        failed += 1
        print(json.dumps(finding), flush=True)
    print(f"{asked.cases:,} cases, {failed:,} failed")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
