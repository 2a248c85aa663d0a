"""What a server asks of the builder: where a model's repository lies, whether it is current, to make it, what was proved of it.

Only commands that end or become a server use this: a server's supervisor holds nothing of the builder in memory.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from triune_builder.cli import build as build_command
from triune_builder.errors import BuildError
from triune_builder.inputs import Inputs
from triune_builder.inputs import Settings as BuildSettings
from triune_builder.plan import BuildPlan, plan_of, repository_of
from triune_builder.repository.assemble import ENGINE_FOLDER
from triune_builder.targets import find_target
from triune_builder.verify.report import BuildReport
from triune_runtime.interruption import SILENT

from .settings import Setting, Values, settings_of

_WITHOUT = ("model_repository", "force", "dry_run", "as_json")  # of `build`: not of a model, but of one run


class Building:
    """The builder, as a server's commands see it."""

    def __init__(self) -> None:
        self.settings: Mapping[str, Setting] = settings_of(build_command, _WITHOUT)

    def repository(self, values: Values) -> Path:
        """Where the repository of the model that is asked for lies, built or not.

        Raises:
            BuildError: no such target.
        """
        return repository_of(values["model"], values["target"], values["build_dir"])

    def check(self, values: Values) -> None:
        """Make sure that what is asked for can be built, as far as that is known without the model.

        Raises:
            BuildError: a choice that is not known, or a limit out of range.
        """
        self._plan(values)

    def is_current(self, values: Values) -> bool:
        """Whether the repository there is what a build would make now.

        Raises:
            BuildError: what is asked for cannot be built.
        """
        plan = self._plan(values)
        inputs = Inputs(plan, BuildSettings(build_dir=values["build_dir"]), find_target(plan.target))
        return inputs.published() is not None

    def _plan(self, values: Values) -> BuildPlan:
        return plan_of({name: values[name] for name in self.settings if name != "build_dir"})

    def build(self, values: Values) -> Path:
        """Build what is not built yet; shows its progress on stderr. The repository's path.

        Raises:
            SystemExit: it failed, and has said why.
        """
        command = [sys.executable, "-m", "triune_server.entry", "build", "--config=/dev/null", "--json"]
        command += self._options(values.asked(self.settings))
        own = {setting.environment for setting in self.settings.values()}  # their values are among the options
        environment = {name: value for name, value in os.environ.items() if name not in own}
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment | {SILENT: "1"}, check=False)
        if done.returncode:
            raise SystemExit(done.returncode if done.returncode > 0 else 1)
        return Path(json.loads(done.stdout.splitlines()[-1])["repository"])

    def proved(self, repository: Path) -> str:
        """What the build proved of the engine in `repository`, in one line."""
        try:
            return BuildReport.read(repository / ENGINE_FOLDER).summary
        except BuildError:
            return "nothing is known: the report of its build is not there"

    def _options(self, asked: Mapping[str, Any]) -> list[str]:
        options = []
        for name, value in asked.items():
            option = self.settings[name].option
            if isinstance(value, bool):
                options += [option] * value
            else:
                options += [f"{option}={one}" for one in (value if isinstance(value, tuple) else (value,))]
        return options
