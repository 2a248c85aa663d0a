"""Files by which a server says that it is about to stop, hangs or is full, or is asked for a profile. Quick to import."""

from __future__ import annotations

from pathlib import Path


def draining_file(run_folder: Path) -> Path:
    """The file that is there from the moment on in which new requests are refused."""
    return run_folder.absolute() / "draining"


def stalled_file(run_folder: Path) -> Path:
    """The file that is there while a process gives no sign of life, and says which."""
    return run_folder.absolute() / "stalled"


def room_files(run_folder: Path) -> Path:
    """What the paths of links begin with that engines make while they are served: to where they say how much room they have."""
    return run_folder.absolute() / "room"


def profile_files(run_folder: Path) -> Path:
    """What the paths begin with of the question for a profile, and of what engines answer."""
    return run_folder.absolute() / "profile"


def forget_room(run_folder: Path) -> None:
    """Remove what engines have left that were killed."""
    for link in run_folder.glob(f"{room_files(run_folder).name}-*"):
        link.unlink(missing_ok=True)
