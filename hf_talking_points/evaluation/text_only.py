"""A predictor that reads the text and sees no picture: what a localizer must beat to show that it looks."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

BATCH_SIZE = 256
EMBEDDING_WIDTH = 128


class TextOnlyPredictor:
    """Regresses the normalized point from the word n-grams of a description, with a small MLP that can combine them.

    Args:
        longest (`int`): n-grams of one to this many words.
        at_least (`int`): n-grams seen in fewer train texts are left out.
        epochs (`int`)
        seed (`int`)
    """

    def __init__(
        self, longest: int = 6, at_least: int = 20, epochs: int = 6, seed: int = 0
    ) -> None:
        self.longest = longest
        self.at_least = at_least
        self.epochs = epochs
        self.seed = seed

    def ngrams(self, text: str) -> set[str]:
        """The different n-grams of a text."""
        words = re.findall(r"\w+", text.lower())
        found = set()
        for length in range(1, self.longest + 1):
            for start in range(len(words) - length + 1):
                found.add(" ".join(words[start : start + length]))
        return found

    def indices(self, texts: Sequence[str]) -> list[torch.Tensor]:
        """For each text the numbers of its n-grams that are known, ascending."""
        rows = []
        for text in texts:
            known = self.ngrams(text) & self.vocabulary.keys()
            numbers = sorted(self.vocabulary[ngram] for ngram in known)
            rows.append(torch.tensor(numbers, dtype=torch.long))
        return rows

    def fit(self, texts: Sequence[str], points: np.ndarray) -> TextOnlyPredictor:
        """
        Args:
            texts (list of `str`)
            points (array of shape `(n, 2)`): x / width and y / height.
        Returns:
            itself.

        Raises ValueError for no texts.
        """
        if not texts:
            raise ValueError("no texts: there is nothing to fit")
        self.vocabulary = self._frequent_ngrams(texts)
        torch.manual_seed(self.seed)
        self._build()
        rows = self.indices(texts)
        targets = torch.tensor(np.asarray(points), dtype=torch.float32)
        batches = self._batches(len(rows))
        optimizer = torch.optim.AdamW(self._parameters(), 3e-3, weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, 3e-3, total_steps=len(batches)
        )
        for batch in tqdm(batches, desc="Fitting the text-only predictor"):
            chosen = [rows[index] for index in batch]
            loss = (self(chosen) - targets[batch]).abs().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        return self

    def _frequent_ngrams(self, texts: Sequence[str]) -> dict[str, int]:
        """N-gram -> its number, in alphabetical order."""
        counts: Counter[str] = Counter()
        for text in texts:
            counts.update(self.ngrams(text))
        frequent = sorted(
            ngram for ngram, count in counts.items() if count >= self.at_least
        )
        return {ngram: number for number, ngram in enumerate(frequent)}

    def _build(self) -> None:
        """Fresh weights."""
        self.bag = nn.EmbeddingBag(len(self.vocabulary), EMBEDDING_WIDTH, mode="sum")
        nn.init.normal_(self.bag.weight, std=0.02)
        self.mlp = nn.Sequential(
            nn.LayerNorm(EMBEDDING_WIDTH),
            nn.Linear(EMBEDDING_WIDTH, 256),
            nn.GELU(),
            nn.Linear(256, 2),
        )

    def _parameters(self) -> list[nn.Parameter]:
        return [*self.bag.parameters(), *self.mlp.parameters()]

    def _batches(self, number: int) -> torch.Tensor:
        """Which texts each step sees, of shape `(steps, batch size)`: whole batches of a new order in each epoch."""
        batch_size = min(BATCH_SIZE, number)
        used = number // batch_size * batch_size
        epochs = [torch.randperm(number)[:used] for _ in range(self.epochs)]
        return torch.cat(epochs).view(-1, batch_size)

    def __call__(self, rows: Sequence[torch.Tensor]) -> torch.Tensor:
        """Points `(len(rows), 2)` of texts, given by the numbers of their n-grams."""
        lengths = torch.tensor([0] + [len(row) for row in rows])
        offsets = lengths[:-1].cumsum(0)
        return self.mlp(self.bag(torch.cat(list(rows)), offsets)).sigmoid()

    @torch.no_grad()
    def predict(self, texts: Sequence[str]) -> np.ndarray:
        """Points of texts, array of shape `(n, 2)`, x / width and y / height."""
        rows = self.indices(texts)
        points = []
        for start in range(0, len(rows), 1024):
            points.append(self(rows[start : start + 1024]))
        return torch.cat(points).numpy()
