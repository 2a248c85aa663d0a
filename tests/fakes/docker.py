"""A stand-in for the program docker with its compose plugin: writes down how it is called, and plays what it is told to.

Its containers are those of a compose project with a server and gateways, as docker's own `inspect` shows them.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

PROGRAM = """#!{python} -I
import json, os, sys, time
from pathlib import Path

folder, arguments = Path({folder!r}), sys.argv[1:]
play = json.loads((folder / "play.json").read_text())
containers = json.loads((folder / "containers.json").read_text())
said = {{name: value for name, value in os.environ.items() if name.startswith(("TRIUNE_", "COMPOSE_"))}}
with (folder / "calls").open("a") as calls:
    print(json.dumps([arguments, said]), file=calls)


def end(code=0, out="", err=""):
    sys.stdout.write(out)
    sys.stderr.write(err)
    sys.exit(code)


def option(name):
    return [one.partition("=")[2] for one in arguments if one.startswith(name + "=")]


def container(service, number, ports):
    project = option("--project-name")[0]
    return {{
        "Id": service + str(number), "Name": "/" + project + "-" + service + "-" + str(number),
        "Config": {{"Labels": {{
            "com.docker.compose.project": project, "com.docker.compose.service": service,
            "com.docker.compose.project.config_files": ",".join(option("--file")),
        }}}},
        "State": {{"Status": "running", "ExitCode": 0, "Health": {{"Status": "healthy"}}}} | play["states"].get(service, {{}}),
        "NetworkSettings": {{"Ports": {{
            str(inside) + "/tcp": [{{"HostIp": said["TRIUNE_HOST"], "HostPort": str(port)}}] for inside, port in ports.items()
        }}}},
        "Mounts": [{{"Destination": "/models", "Source": said["TRIUNE_REPOSITORY"]}}],
    }}


def up():
    if play["up"] == "ctrl-C":
        os.kill(os.getppid(), 2)
        time.sleep(5)
    ports = said.get("TRIUNE_OPENAI_PORTS") or said.get("TRIUNE_OPENAI_PORT") or "0"
    first = int(ports.partition("-")[0])
    number = 0 if "--scale=gateway=0" in arguments else int(said.get("TRIUNE_GATEWAYS") or 1)
    made = [container("server", 1, {{
        8000: said["TRIUNE_HTTP_PORT"], 8001: said["TRIUNE_GRPC_PORT"], 8002: said["TRIUNE_METRICS_PORT"]
    }})] + [container("gateway", 1 + n, {{8003: first + n}}) for n in range(number)]
    (folder / "containers.json").write_text(json.dumps(made))
    end(play["up"], err=play["said"])


if play["daemon"] is None and arguments[0] not in ("compose", "buildx"):
    end(1, err="Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?\\n")
if arguments[0] == "compose":
    if play["compose"] is None:
        end(1, err="docker: unknown command: docker compose\\n")
    verb = next(one for one in arguments[1:] if not one.startswith("-"))
    if verb == "version":
        end(out=play["compose"] + "\\n")
    if verb == "up":
        up()
    if verb == "down":
        (folder / "containers.json").write_text("[]")
        end()
    if verb == "logs":
        end(out="server-1  | of the stack\\n")
elif arguments[0] == "info":
    end(out=json.dumps({{"ServerVersion": play["daemon"], "SecurityOptions": play["security"], "OperatingSystem": "Debian"}}))
elif arguments[:2] == ["image", "inspect"]:
    end(0 if arguments[-1] in play["images"] else 1)
elif arguments[0] == "ps":
    project = arguments[-1].rpartition("=")[2]
    end(out="".join(
        one["Id"] + "\\n" for one in containers if one["Config"]["Labels"]["com.docker.compose.project"] == project
    ))
elif arguments[0] == "inspect":
    end(out=json.dumps([one for one in containers if one["Id"] in arguments]))
elif arguments[0] == "events":
    end(out="".join(json.dumps(event) + "\\n" for event in play["events"]))
elif arguments[0] == "logs":
    end(out=play["logs"].get(arguments[-1], ""))
elif arguments[0] in ("version", "buildx", "build"):
    end(0 if play["buildx"] or arguments[0] != "buildx" else 1)
end(1, err="docker: " + arguments[0] + " is not played")
"""


class FakeDocker:
    """One in a folder; `play` changes what it does from then on."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.bin = folder, folder / "bin"
        self.bin.mkdir(parents=True)
        program = self.bin / "docker"
        program.write_text(PROGRAM.format(python=sys.executable, folder=str(folder)), "utf-8")
        program.chmod(0o755)
        self._play: dict[str, Any] = {
            "compose": "2.30.1", "buildx": True, "daemon": "26.1.5", "security": [], "images": ["triune-cpu:0.1.0"],
            "up": 0, "said": "",
            "states": {}, "events": [], "logs": {},
        }  # fmt: skip
        self.play()
        self.containers = []

    def play(self, **instead: Any) -> None:
        """What it does: versions, the images that are there, what `up` ends with and says, states, events, logs."""
        self._play |= instead
        (self.folder / "play.json").write_text(json.dumps(self._play), "utf-8")

    @property
    def containers(self) -> list[dict[str, Any]]:
        """Those that there are, as `docker inspect` shows them."""
        found: list[dict[str, Any]] = json.loads((self.folder / "containers.json").read_text("utf-8"))
        return found

    @containers.setter
    def containers(self, found: list[dict[str, Any]]) -> None:
        (self.folder / "containers.json").write_text(json.dumps(found), "utf-8")

    def calls(self, *words: str) -> list[tuple[list[str], dict[str, str]]]:
        """Those with all of these words: arguments, and what the environment said of settings."""
        file = self.folder / "calls"
        every = [json.loads(line) for line in file.read_text("utf-8").splitlines()] if file.exists() else []
        return [(arguments, said) for arguments, said in every if set(words) <= set(arguments)]
