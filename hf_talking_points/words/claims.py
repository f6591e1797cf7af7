"""What a text says of a point, and which of it annotation and pixels confirm, contradict or leave open."""

from __future__ import annotations

from dataclasses import dataclass

KINDS = ("object", "part", "side", "color", "texture", "relation", "place")
VERDICTS = ("confirmed", "contradicted", "open")


@dataclass(frozen=True)
class Claim:
    """One thing that a text says.

    Args:
        kind (`str`): one of `KINDS`.
        phrase (`str`): as the text has it.
        verdict (`str`): one of `VERDICTS`.
    """

    kind: str
    phrase: str
    verdict: str
