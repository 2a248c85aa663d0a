"""A stand-in for the tritonserver binary: a script that takes the same options and starts one stub per model."""

from __future__ import annotations

import json
import shutil
import signal
import stat
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from types import MappingProxyType

from triune_server.binaries import Binaries
from triune_server.options import ServerOptions

_SCRIPT = """#!{python}
import http.server, json, os, pathlib, signal, socket, socketserver, subprocess, sys, threading, time

options = dict(a[2:].split("=", 1) for a in sys.argv[1:] if a.startswith("--") and "=" in a)
behaviour = json.loads(pathlib.Path(__file__).with_name("behaviour.json").read_text())
if behaviour == "broken":
    print("E1 model_lifecycle.cc: failed to load 'generate': no room")
    sys.exit(1)
started = pathlib.Path(__file__).with_name("started")
started.open("a").write("x")
number = len(started.read_text())
if number in behaviour["dies_starting"]:
    os._exit(9)
if number in behaviour["crashes_starting"]:
    os.abort()
prefix = next(a.split("shm-region-prefix-name=")[1] for a in sys.argv if "shm-region-prefix-name" in a)
(pathlib.Path(behaviour["shm"]) / f"{{prefix}}region").touch()
stub = subprocess.Popen([behaviour["stub"], "600"])
if fate := behaviour["stub_fates"].get(str(number)):
    stub.send_signal(fate)
    signal.pause()  # waits for what it says, and never asks whether it lives

answered = threading.Event()

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path.endswith(("/ready", "/live")) else 404)
        self.send_header("content-length", "0")
        self.end_headers()
        answered.set()
    def log_message(self, *a):
        pass

def beat():  # for the stub, which cannot itself, while it is not stopped
    while True:
        if pathlib.Path(f"/proc/{{stub.pid}}/stat").read_text().rpartition(")")[2].split()[0] != "T":
            late_s = behaviour["late_s"] if answered.is_set() else 0
            os.write(int(os.environ["TRIUNE_PULSE_FD"]), f"{{stub.pid}} {{late_s}}\\n".encode())
        time.sleep(0.1)

threading.Thread(target=beat, daemon=True).start()

def stop(*_):
    stub.terminate()
    stub.wait()
    os._exit(0)

signal.signal(signal.SIGTERM, (lambda *_: None) if behaviour["deaf"] else stop)
class Server(socketserver.ThreadingUnixStreamServer):
    def get_request(self):
        return super().get_request()[0], ("unix", 0)

server = Server(options["http-address"].removeprefix("unix:"), Handler)
threading.Thread(target=server.serve_forever).start()
if behaviour["dies"]:
    threading.Event().wait(0.5)
    os._exit(9)
while True:
    signal.pause()
"""


def fake_server(
    folder: Path,
    shared_memory: Path,
    *,
    broken: bool = False,
    dies: bool = False,
    dies_starting: Collection[int] = (),
    crashes_starting: Collection[int] = (),
    stub_fates: Mapping[int, signal.Signals] = MappingProxyType({}),
    deaf: bool = False,
    late_s: int = 0,
) -> Binaries:
    """A server in `folder` that shares its memory in `shared_memory`.

    Args:
        dies_starting: its starts with these numbers do not come up.
        crashes_starting: in its starts with these numbers it aborts.
        stub_fates: what its stub gets in its starts with these numbers, which then wait for it for ever.
        deaf: it does not end when asked to.
        late_s: for how long its stub says that its work stands still, once the server has answered somebody.
    """
    stub = folder / "triton_python_backend_stub"
    shutil.copy2("/bin/sleep", stub)
    behaviour = "broken" if broken else {
        "stub": str(stub), "dies": dies, "dies_starting": list(dies_starting), "shm": str(shared_memory), "deaf": deaf,
        "late_s": late_s, "stub_fates": dict(stub_fates),
        "crashes_starting": list(crashes_starting),
    }  # fmt: skip
    (folder / "behaviour.json").write_text(json.dumps(behaviour))
    server = folder / "tritonserver"
    server.write_text(_SCRIPT.format(python=sys.executable))
    server.chmod(server.stat().st_mode | stat.S_IXUSR)
    return Binaries(server, folder, (), Path(sys.executable).parent)


def options(http_port: int, grpc_port: int, metrics_port: int) -> ServerOptions:
    return ServerOptions(
        repository=Path("none"), http_port=http_port, grpc_port=grpc_port, metrics_port=metrics_port, openai_port=0
    )
