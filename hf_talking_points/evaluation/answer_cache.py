"""Answers of models, kept on disk, so that an evaluation that was cut off goes on."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from ..models.images import content_key

# a question is a point (x, y) for a describer, a text for a localizer; an answer is the other
Question = Any
Answer = Any


class AnswerCache:
    """Answers of describers and localizers in one SQLite file, by the model's fingerprint, the image's content, and
    the question.

    A process that is killed loses at most one image's answers.

    Args:
        file (`str` or `Path`): is made where there is none.
    Attributes:
        seconds (`dict`): a model's fingerprint -> what each of its answers that were asked for here took when it was
            computed.
    """

    def __init__(self, file: str | Path) -> None:
        self.connection = sqlite3.connect(file)
        self.connection.execute(
            "CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, answer TEXT, seconds REAL)"
        )
        self.seconds: dict[str, list[float]] = defaultdict(list)

    def close(self) -> None:
        self.connection.close()

    def __len__(self) -> int:
        """How many answers there are."""
        return self.connection.execute("SELECT count(*) FROM answers").fetchone()[0]

    def answers(
        self, model: Any, image: Image.Image, questions: Sequence[Question]
    ) -> list[Answer]:
        """What a model answers to questions about one image; it is asked only for what is not known yet.

        Args:
            model: a describer or a localizer, see [`hf_talking_points.evaluation.protocol`].
            image (PIL RGB image)
            questions (list of points or of texts)
        Returns:
            list of texts or of [x, y], one for each question.

        Raises ValueError where the model gives another number of answers than it was asked questions.
        """
        image_key = content_key(image)
        keys = [
            answer_key(model.fingerprint, image_key, question) for question in questions
        ]
        unknown: dict[str, Question] = {}
        for key, question in zip(keys, questions):
            if self._find(key) is None:
                unknown[key] = question
        if unknown:
            self._ask(model, image, unknown)
        answers = []
        for key in keys:
            stored = self._find(key)
            assert stored is not None  # it was asked for above
            answers.append(json.loads(stored[0]))
            self.seconds[model.fingerprint].append(stored[1])
        return answers

    def _find(self, key: str) -> tuple[str, float] | None:
        query = "SELECT answer, seconds FROM answers WHERE key = ?"
        return self.connection.execute(query, (key,)).fetchone()

    def _ask(
        self, model: Any, image: Image.Image, questions: dict[str, Question]
    ) -> None:
        """Asks the model and stores its answers; `questions` has their keys."""
        start = time.perf_counter()
        answers = model(image, list(questions.values()))
        seconds = (time.perf_counter() - start) / len(questions)
        if len(answers) != len(questions):
            raise ValueError(
                f"{model.name} gave {len(answers)} answers to {len(questions)} questions about one image"
            )
        rows = []
        for key, answer in zip(questions, answers):
            if not isinstance(answer, str):
                answer = [float(value) for value in answer]
            rows.append((key, json.dumps(answer), seconds))
        with self.connection:
            self.connection.executemany("INSERT INTO answers VALUES (?, ?, ?)", rows)


def answer_key(fingerprint: str, image_key: str, question: Question) -> str:
    """Under which an answer is kept: a hash of the model's fingerprint, the image's [`content_key`] and the
    question."""
    return hashlib.sha256(
        json.dumps([fingerprint, image_key, question]).encode()
    ).hexdigest()
