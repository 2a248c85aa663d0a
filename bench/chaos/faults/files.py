"""Files of the repository and of the run folder that are damaged: under a server that runs, and before one starts."""

from __future__ import annotations

from ..scene import Scene
from ..server import NotWell
from .signals import find

_FILES = (
    "generate/1/engine.json", "generate/1/model.onnx", "generate/1/model.data", "generate/1/tokenizer.json",
    "generate/config.pbtxt", "tokenize/1/model.py", "detokenize/config.pbtxt", "triune/config.pbtxt",
)  # fmt: skip
_WAYS = ("cut", "empty", "garbage", "gone")


def damage_under_a_server(scene: Scene) -> None:
    """Damage a file of the repository, then have the server start again."""
    _damage(scene)
    find(scene, scene.chance.choice(("generate", "tritonserver"))).kill()
    scene.wait(5.0)
    scene.server.restore()


def damage_before_start(scene: Scene) -> None:
    """Start it from a repository with a damaged file: it says so, or it is well."""
    _damage(scene)
    size = scene.server.log.stat().st_size
    scene.server.begin()
    scene.undo.callback(scene.server.restore)
    code = _wait_ended_or_well(scene)
    said = scene.server.log.read_bytes()[size:].decode("utf-8", "replace")
    if "Traceback" in said:
        scene.problems.append(f"traceback: {said[said.index('Traceback') :][:300]!r}")
    if code and "error:" not in said:
        scene.problems.append(f"no reason: it ended with code {code} and said {said[-200:]!r}")


def damaged_state(scene: Scene) -> None:
    """Start it where the state of an earlier one is no state."""
    state = scene.server.run_folder / "triune.json"
    state.write_bytes(scene.chance.choice((b"", b"{", b"[]", b'{"pid": 1}', b'{"pid": -1, "created": 0}', b"\xff\xfe")))
    scene.server.begin()


def _damage(scene: Scene) -> None:
    file = scene.server.repository / scene.chance.choice(_FILES)
    way = scene.chance.choice(_WAYS)
    scene.note(f"{file.relative_to(scene.server.repository)}: {way}")
    whole = file.read_bytes()
    file.unlink()  # other links keep what they have, as of a file that is replaced
    if way != "gone":
        file.write_bytes({"cut": whole[: len(whole) // 2], "empty": b"", "garbage": _garbage(scene, whole)}[way])


def _garbage(scene: Scene, whole: bytes) -> bytes:
    return scene.chance.randbytes(min(len(whole), 1 << 16))


def _wait_ended_or_well(scene: Scene) -> int | None:
    """Its exit code; None if it serves after all, or if neither is so within a minute."""
    try:
        scene.server.wait_well(60.0)
    except NotWell as error:
        if scene.server.family():
            scene.problems.append(f"hang: neither served nor ended within 60 s: {error}")
    return scene.server.process.poll() if scene.server.process is not None else None
