"""Run: pytest tests/builder/test_config_docs.py"""

from __future__ import annotations

from support.config_tables import FAMILIES, PAGE, page
from triune_builder.graph.arch import ARCHITECTURES


def test_the_page_of_keys_is_what_the_builder_reads() -> None:
    assert set(FAMILIES) == set(ARCHITECTURES)
    assert PAGE.read_text("utf-8") == page(), "write it anew: see tests/support/config_tables.py"
