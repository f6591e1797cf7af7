"""A predictor that reads the text and sees no picture: what a localizer must beat to show that it looks."""

import re

import numpy as np
import torch
from torch import nn
from tqdm import tqdm


class TextOnlyPredictor:
    """Regresses the normalised point from the word n-grams of a description, with a small MLP that can combine them.

    Args:
        longest (`int`): n-grams of one to this many words.
        at_least (`int`): n-grams seen in fewer train texts are left out.
    """

    def __init__(self, longest=6, at_least=20, epochs=6, seed=0):
        self.longest, self.at_least, self.epochs, self.seed = longest, at_least, epochs, seed

    def ngrams(self, text):
        words = re.findall(r"\w+", text.lower())
        return {
            " ".join(words[i : i + n])
            for n in range(1, self.longest + 1)
            for i in range(len(words) - n + 1)
        }

    def indices(self, texts):
        return [
            torch.tensor(
                sorted(self.vocabulary[g] for g in self.ngrams(text) if g in self.vocabulary)
            )
            for text in texts
        ]

    def fit(self, texts, points):
        """points: array of shape `(n, 2)`, x / width and y / height."""
        counts = {}
        for text in texts:
            for ngram in self.ngrams(text):
                counts[ngram] = counts.get(ngram, 0) + 1
        self.vocabulary = {
            g: i for i, g in enumerate(sorted(g for g, c in counts.items() if c >= self.at_least))
        }
        torch.manual_seed(self.seed)
        self.bag = nn.EmbeddingBag(len(self.vocabulary), 128, mode="sum")
        nn.init.normal_(self.bag.weight, std=0.02)
        self.mlp = nn.Sequential(
            nn.LayerNorm(128), nn.Linear(128, 256), nn.GELU(), nn.Linear(256, 2)
        )
        rows, targets = self.indices(texts), torch.tensor(np.asarray(points), dtype=torch.float32)
        steps = self.epochs * (len(rows) // 256)
        optimizer = torch.optim.AdamW(
            [*self.bag.parameters(), *self.mlp.parameters()], 3e-3, weight_decay=0.01
        )
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
        order = torch.cat(
            [torch.randperm(len(rows))[: len(rows) // 256 * 256] for _ in range(self.epochs)]
        ).view(steps, 256)
        for batch in tqdm(order, desc="Fitting the text-only predictor"):
            loss = (self(rows, batch) - targets[batch]).abs().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        return self

    def __call__(self, rows, batch):
        chosen = [rows[i] for i in batch]
        offsets = torch.tensor([0, *map(len, chosen)])[:-1].cumsum(0)
        return self.mlp(self.bag(torch.cat(chosen), offsets)).sigmoid()

    @torch.no_grad()
    def predict(self, texts):
        """-> array of shape `(n, 2)`, x / width and y / height."""
        rows = self.indices(texts)
        return torch.cat(
            [self(rows, batch) for batch in torch.arange(len(rows)).split(1024)]
        ).numpy()
