"""What texts say that annotation or pixels contradict, as rows and reports hold it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from datasets import List, Value

from ..words.claims import KINDS, Claim, check_claims, false_claims
from ..words.facts import Scene
from .photos import AnnotatedObject, PartPoint

FALSE_CLAIMS = List({"kind": Value("string"), "phrase": Value("string")})


def false_claims_of(
    text: str, scene: Scene, annotated: AnnotatedObject | None, point: PartPoint
) -> list[Claim]:
    """What a text says of a point that annotation or pixels contradict."""
    return false_claims(check_claims(text, scene, annotated, point))


def false_claim_rows(
    text: str, scene: Scene, annotated: AnnotatedObject | None, point: PartPoint
) -> list[dict[str, str]]:
    """What a text says of a point that annotation or pixels contradict: a dict with "kind" and "phrase" each."""
    claims = false_claims_of(text, scene, annotated, point)
    return [{"kind": claim.kind, "phrase": claim.phrase} for claim in claims]


def false_shares(claims: Sequence[Iterable[dict[str, Any]]]) -> dict[str, float]:
    """The share of texts, in percent, that have a false claim of each kind.

    Args:
        claims (list): of each text, its [`false_claim_rows`]. There must be a text.
    Returns:
        `dict` with the keys `KINDS`.
    """
    shares = {}
    for kind in KINDS:
        having = sum(any(claim["kind"] == kind for claim in row) for row in claims)
        shares[kind] = 100 * having / len(claims)
    return shares
