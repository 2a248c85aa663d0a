"""The detokenize step: tokens and places in their bytes -> texts. Keeps nothing between chunks."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import RequestError
from ..text.cutter import render
from ..text.vocabulary import TokenBytes


def rendered(token_ids: Sequence[int], byte_range: Sequence[int], token_bytes: TokenBytes) -> dict[str, list[str]]:
    """The texts of a chunk by output name.

    Args:
        token_ids: of all its sequences behind each other.
        byte_range: begin and end of the one text in the tokens' bytes; or four numbers for each text, of which the last two
            are its thinking's, -1 where that is not kept apart.

    Raises:
        RequestError: these are not what generate gives.
    """
    known = all(0 <= token < len(token_bytes) for token in token_ids)
    if not known or (len(byte_range) != 2 and (not byte_range or len(byte_range) % 4)):
        raise RequestError(
            f"token_ids are {list(token_ids[:8])} and byte_range {list(byte_range[:8])}; ids from 0 to "
            f"{len(token_bytes) - 1:,} and 2 numbers, or 4 for each text, are expected",
            "send what generate gives",
            code="invalid_value",
            param="token_ids",
        )
    each = [byte_range[at : at + 4] for at in range(0, len(byte_range), 4)]
    answers = [render(token_ids, one[0], one[1], token_bytes) for one in each]
    thoughts = [render(token_ids, one[2], one[3], token_bytes) for one in each if len(one) == 4 and one[2] >= 0]
    return {"text_output": answers} | ({"reasoning_output": thoughts} if thoughts else {})
