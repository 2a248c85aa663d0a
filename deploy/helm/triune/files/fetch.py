"""Fetches a model repository: URL SHA256 FOLDER. Nothing is done where it lies; what is not whole is never taken for it."""

import hashlib
import shutil
import sys
import tarfile
import urllib.request
from pathlib import Path

PIECE = 1 << 20


def main(url: str, sha256: str, folder: str) -> str:
    """Have the archive's contents in a folder; what to say of it.

    Raises:
        ValueError: the archive is another than was named.
    """
    place = Path(folder)
    if place.exists():
        return f"{place} is there already"
    packed, unpacked = place.with_name(f"{place.name}.tar"), place.with_name(f"{place.name}.new")
    place.parent.mkdir(parents=True, exist_ok=True)
    found = hashlib.sha256()
    with urllib.request.urlopen(url, timeout=60) as source, packed.open("wb") as out:
        while piece := source.read(PIECE):
            found.update(piece)
            out.write(piece)
    if found.hexdigest() != sha256:
        packed.unlink()
        raise ValueError(f"what is at {url} has SHA-256 {found.hexdigest()}; {sha256} was expected; set engine.archive.sha256")
    shutil.rmtree(unpacked, ignore_errors=True)
    with tarfile.open(packed) as archive:
        archive.extractall(unpacked, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    packed.unlink()
    if not (unpacked / "triune" / "config.pbtxt").is_file():
        shutil.rmtree(unpacked)
        raise ValueError(f"{url} has no triune/config.pbtxt at its top; pack it with: tar -C REPOSITORY -czf FILE .")
    unpacked.rename(place)
    return f"{url} is unpacked in {place}"


if __name__ == "__main__":
    try:
        print(main(*sys.argv[1:]))
    except (OSError, ValueError, tarfile.TarError) as error:
        sys.exit(f"error: {error}")
