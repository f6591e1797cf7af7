"""What all teachers that ask a model share: the questions, the check of the answers, the rule-based text instead."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..prompts import Message, ask, fading_crop, prompt_hash, ring_point
from ..words.claims import Claim
from ..words.facts import PointFacts
from ..words.writer import write
from .checks import check, fact_lines

PROMPTS = Path(__file__).parent / "prompts"
SEEN_PROMPTS = ("context", "local", "fuse")
REWORDING_PROMPTS = ("reword", "reword_within", "reword_surroundings")

# the numbers of the questions about one point, of which each has a seed of its own
CONTEXT_QUESTION = 0
LOCAL_QUESTION = 1
TEXT_QUESTION = 2

FindFalse = Callable[[str], Sequence[Claim]]
ShowPoint = Callable[[Image.Image, tuple[float, float]], Image.Image]


@dataclass(frozen=True)
class PointQuery:
    """One point to be described.

    Args:
        image (PIL RGB image)
        point (`tuple`): (x, y) in pixels of `image`.
        facts ([`PointFacts`])
        style (`str`): one of the teacher's `styles`.
        seed (`int` or tuple of `int`): for `np.random.default_rng`.
        false_claims (callable, *optional*): what of a text is false of the point, as [`false_claims`] gives it; a
            model's answer is held to the facts alone without it.
    """

    image: Image.Image = field(repr=False)
    point: tuple[float, float]
    facts: PointFacts
    style: str = "full"
    seed: int | tuple[int, ...] = 0
    false_claims: FindFalse | None = field(default=None, repr=False)


def check_styles(queries: Sequence[PointQuery], styles: Sequence[str]) -> None:
    """Raises ValueError naming the first query whose style is none of `styles`."""
    for index, query in enumerate(queries):
        if query.style not in styles:
            raise ValueError(
                f"query {index} asks for style {query.style!r}: this teacher writes {styles}"
            )


def reword_prompt(facts: PointFacts) -> str:
    """The prompt file whose worked examples have the same facts."""
    if facts.object is None:
        return "reword_surroundings"
    return "reword_within" if facts.in_part else "reword"


def subject(facts: PointFacts) -> str:
    """What a point is on, as a question about a picture says it."""
    if facts.object is None:
        return "a point of a thing or surface"
    return f"the {facts.part} of a {facts.object}"


def question_seed(query: PointQuery, number: int) -> int:
    """A seed for one of the questions about a query."""
    seed = query.seed if isinstance(query.seed, tuple) else (query.seed,)
    return int(np.random.SeedSequence([*seed, number]).generate_state(1)[0])


def fault_of_answer(
    text: str, query: PointQuery, vocabulary: Iterable[str], seen: str
) -> str:
    """Why a model's answer must not stand for a point, "" where nothing speaks against it: [`check`] of its facts, and
    what annotation or pixels contradict."""
    if fault := check(text, query.facts, vocabulary, seen):
        return fault
    for claim in query.false_claims(text) if query.false_claims else ():
        return f"false {claim.kind}: {claim.phrase!r}"
    return ""


class FusingTeacher:
    """What the teachers that ask a model share: the questions, the check, the fallback to the rule-based text.

    With a vision model it writes style "full": the model sees the photo with the point ringed ("context") and the
    fading crop around it ("local"), and the text model fuses both with the facts. Without one it writes style
    "reworded" from the facts alone. "rule" is the rule-based text, "fused" the model's answer, and "fallback" why
    "description" is the former, "" where it is the latter.

    Args:
        vision (`str`, *optional*), text (`str`): names of the models.
        queries_at_once (`int`): queries whose pictures are made and shown together.
    """

    columns: tuple[str, ...]
    styles: tuple[str, ...]

    def __init__(self, vision: str | None, text: str, queries_at_once: int) -> None:
        self.vision = vision
        self.text = text
        self.queries_at_once = queries_at_once
        if vision:
            self.styles = ("full",)
            self.columns = (
                "description",
                "rule",
                "context",
                "local",
                "fused",
                "fallback",
            )
            self.prompts = SEEN_PROMPTS
        else:
            self.styles = ("reworded",)
            self.columns = ("description", "rule", "fused", "fallback")
            self.prompts = REWORDING_PROMPTS
        self.info: dict[str, Any] = {
            "vision": vision,
            "text": text,
            "prompts": prompt_hash(PROMPTS, self.prompts),
        }

    def answer(
        self, model: str, chats: list[list[Message]], seeds: list[int]
    ) -> list[str]:
        """Answers to `chats`, in their order.

        Args:
            model (`str`): "vision" or "text".
            chats (`list`): as of [`ask`].
            seeds (`list[int]`): one for each chat, from which sampling draws.
        """
        raise NotImplementedError

    def __call__(
        self, queries: Sequence[PointQuery], vocabulary: Iterable[str] = ()
    ) -> list[dict[str, str]]:
        """A dict with the keys `columns` for each query.

        `vocabulary` holds names of objects and parts, of which any but the point's own counts as invented.
        """
        check_styles(queries, self.styles)
        vocabulary = tuple(vocabulary)
        rows = []
        for query in queries:
            rng = np.random.default_rng(query.seed)
            rows.append({"rule": write(query.facts, "full", rng)})
        if self.vision:
            for start in range(0, len(queries), self.queries_at_once):
                stop = start + self.queries_at_once
                self.look(queries[start:stop], rows[start:stop])
        fused = self.fuse(queries, rows)
        for query, row, text in zip(queries, rows, fused):
            seen = f"{row['context']} {row['local']}" if self.vision else ""
            row["fused"] = text.strip()
            row["fallback"] = fault_of_answer(row["fused"], query, vocabulary, seen)
            row["description"] = row["rule"] if row["fallback"] else row["fused"]
        return [{name: row[name] for name in self.columns} for row in rows]

    def look(
        self, queries: Sequence[PointQuery], rows: Sequence[dict[str, str]]
    ) -> None:
        """Adds to `rows` what the vision model says of the whole photos and of the crops."""
        self.look_at("context", ring_point, CONTEXT_QUESTION, queries, rows)
        self.look_at("local", fading_crop, LOCAL_QUESTION, queries, rows)

    def look_at(
        self,
        prompt: str,
        show: ShowPoint,
        number: int,
        queries: Sequence[PointQuery],
        rows: Sequence[dict[str, str]],
    ) -> None:
        """Adds to `rows`, under the name of the prompt, what the vision model says of what `show` makes."""
        chats = []
        for query in queries:
            picture = show(query.image, query.point)
            chats.append(
                ask(PROMPTS, prompt, image=picture, subject=subject(query.facts))
            )
        seeds = [question_seed(query, number) for query in queries]
        for row, text in zip(rows, self.answer("vision", chats, seeds)):
            row[prompt] = " ".join(text.split())

    def fuse(
        self, queries: Sequence[PointQuery], rows: Sequence[dict[str, str]]
    ) -> list[str]:
        """The text model's answers."""
        chats = []
        for query, row in zip(queries, rows):
            prompt = "fuse" if self.vision else reword_prompt(query.facts)
            words = {
                "facts": fact_lines(query.facts),
                "context": row.get("context"),
                "local": row.get("local"),
            }
            rng = np.random.default_rng(query.seed)
            chats.append(ask(PROMPTS, prompt, rng, **words))
        seeds = [question_seed(query, TEXT_QUESTION) for query in queries]
        return self.answer("text", chats, seeds)
