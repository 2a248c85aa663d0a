"""What a server serves, as its run folder says. Run: pytest tests/server/test_view.py"""

from __future__ import annotations

from pathlib import Path

import pytest

from triune_server.errors import ServerError
from triune_server.view import View


def test_what_is_not_served_cannot_be_withdrawn_and_no_name_is_said_to_be_none(tmp_path: Path) -> None:
    view = View(tmp_path)
    for name, message in (("x", "^x is not being served; served: "), ("", "^no model was named; served: ")):
        with pytest.raises(ServerError, match=message) as caught:
            view.withdraw(name)
        assert "NAME=" in (caught.value.hint or "")
