"""Starts runc, without what a root that lacks CAP_SYS_RESOURCE cannot give: raised limits, a lowered score for the killer."""

import json
import os
import resource
import sys
from pathlib import Path


def may_raise_limits() -> bool:
    """Whether this process may raise a limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NICE)
    try:
        resource.setrlimit(resource.RLIMIT_NICE, (soft, hard + 1))
    except (OSError, ValueError):
        return False
    resource.setrlimit(resource.RLIMIT_NICE, (soft, hard))
    return True


def without_limits(process: dict[str, object]) -> None:
    """Take out of a process's settings what cannot be had."""
    process.pop("rlimits", None)
    if int(str(process.get("oomScoreAdj", 0))) < 0:
        del process["oomScoreAdj"]


if not may_raise_limits():
    for option, name in (("--bundle", "config.json"), ("--process", "")):  # of `create`, of `exec`
        if option in sys.argv and (file := Path(sys.argv[sys.argv.index(option) + 1]) / name).is_file():
            config = json.loads(file.read_text("utf-8"))
            without_limits(config.get("process", config))
            file.write_text(json.dumps(config), "utf-8")
os.execvp("runc", ["runc", *sys.argv[1:]])
