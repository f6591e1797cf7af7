"""A small grammar of texts: symbols with weighted alternatives, written in text files.

    opening:
        3 There is a {size} {object} {in_image}.
        1 {object}[, {size}]: (look at|find) {the_part}.

A line that ends in a colon names a symbol, the indented lines below it are its alternatives, each with its weight (1
where none is written); an alternative may go on in lines that are indented further. `{name}` is another symbol or a
slot, whose words the writer gives. An alternative applies only where all its slots are known. `[…]` is a clause that
is left out half the time, and where it does not apply; `[80% …]` is said in 80 of 100 texts. `(…|…)` is a choice
between equals. `{?name}` asks that a slot is known and says nothing, `{!name}` that it is not. An alternative "-"
says nothing. A symbol whose line ends in ", each once:" has alternatives that come at most once in a text. Lines that
begin with "#" are comments.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import TypeAlias, overload

import numpy as np

Slots: TypeAlias = Mapping[str, str | Sequence[str] | None]


@dataclass(frozen=True)
class Literal:
    """Words that are said as they stand."""

    words: str


@dataclass(frozen=True)
class Reference:
    """A symbol or slot by its name."""

    name: str


@dataclass(frozen=True)
class Condition:
    """Asks that a slot is known, or that it is not; it says nothing."""

    name: str
    is_known: bool


@dataclass(frozen=True)
class Choice:
    """One of several alternatives.

    Args:
        alternatives (`tuple`): of tuples of items.
        weights (`tuple`): of floats, one for each.
        chance (`float`): in (0, 1], of saying it at all; below 1 it is left out, too, where no alternative applies.
        once (`str`, *optional*): the symbol's name, where each alternative comes at most once in a text.
    """

    alternatives: tuple[tuple[Item, ...], ...]
    weights: tuple[float, ...]
    chance: float = 1.0
    once: str | None = None


Item: TypeAlias = Literal | Reference | Condition | Choice

EACH_ONCE = ", each once"

_TOKEN = re.compile(
    r"\{[^{}]*\}|\[(?:\d+% ?)?|\]|\(|\)|\||[^{}\[\]()|]+"
)  # a reference, a bracket, or words
_WEIGHT = re.compile(r"(\d+(?:\.\d+)?) +(.*)", re.DOTALL)


class Once(Sequence[str]):
    """Phrases that a text says once each, put into words when they are first asked for.

    Args:
        makers (list of functions): each gives a phrase.
    """

    def __init__(self, makers: Sequence[Callable[[], str]]) -> None:
        self.makers = makers
        self.made: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self.makers)

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...

    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        if index not in self.made:
            self.made[index] = self.makers[index]()
        return self.made[index]


class Grammar:
    """Symbols and their alternatives.

    Args:
        source (`str`): in the form that the module describes.

    Raises ValueError naming the line or alternative that cannot be read.
    """

    def __init__(self, source: str) -> None:
        self.symbols: dict[str, Choice] = {}
        for head, lines in _blocks(source).items():
            name = head.removesuffix(EACH_ONCE)
            self.symbols[name] = _alternatives(name, lines, is_once=name != head)

    @property
    def slots(self) -> set[str]:
        """Names that the alternatives use and no symbol has: what a writer can fill in."""
        found: set[str] = set()
        for choice in self.symbols.values():
            found |= _names(choice)
        return found - self.symbols.keys()

    @property
    def literals(self) -> list[str]:
        """All words that the alternatives say themselves."""
        found: list[str] = []
        for choice in self.symbols.values():
            found += _literals(choice)
        return found

    def expand(
        self,
        symbol: str,
        slots: Slots,
        rng: np.random.Generator | None = None,
        first: int | None = None,
    ) -> str | None:
        """Words of a symbol, before [`punctuated`] mends spaces and articles.

        Args:
            symbol (`str`)
            slots (mapping): words of each slot, None where they are not known. Those in a sequence are said once
                each, in their order; a string as often as the alternatives want.
            rng (`np.random.Generator`, *optional*): chooses. Without it the first alternative that applies is taken,
                and clauses that may be left out are said.
            first (`int`, *optional*): number of the symbol's alternative that is said where it applies, counted on
                from the first one where there are not so many.
        Returns:
            `str`, or None where no alternative applies.

        Raises ValueError for an unknown symbol.
        """
        if symbol not in self.symbols:
            raise ValueError(
                f"symbol {symbol!r} is not in the grammar, which has {sorted(self.symbols)}"
            )
        return _Expansion(self.symbols, slots, rng).choose(self.symbols[symbol], first)


class _Expansion:
    """One text on its way: which of the slots' words have been said."""

    def __init__(
        self,
        symbols: Mapping[str, Choice],
        slots: Slots,
        rng: np.random.Generator | None,
    ) -> None:
        self.symbols = symbols
        self.slots = slots
        self.rng = rng
        self.said: dict[str, int] = {}

    def choose(self, choice: Choice, first: int | None = None) -> str | None:
        """Words of an alternative that applies, the `first` or else drawn by weight; None where none applies."""
        is_optional = choice.chance < 1
        if is_optional and self.rng is not None and self.rng.random() >= choice.chance:
            return ""
        left = list(range(len(choice.alternatives)))
        while left:
            if first is None:
                index = self.draw(left, choice.weights)
            else:
                index = first % len(left)
                first = None
            number = left.pop(index)
            mark = f"{choice.once}, {number}"
            if choice.once and mark in self.said:
                continue
            before = self.said.copy()
            words = self.say(choice.alternatives[number])
            if words is not None:
                if choice.once:
                    self.said[mark] = 1
                return words
            self.said = before
        return "" if is_optional else None

    def draw(self, numbers: list[int], weights: tuple[float, ...]) -> int:
        """The index of one of the numbers, by their weights."""
        if self.rng is None or len(numbers) == 1:
            return 0
        target = self.rng.random() * sum(weights[number] for number in numbers)
        for index, number in enumerate(numbers):
            target -= weights[number]
            if target < 0:
                return index
        return len(numbers) - 1  # the sum was rounded

    def say(self, items: tuple[Item, ...]) -> str | None:
        """Words of the items one after the other, None where one of them does not apply."""
        words = []
        for item in items:
            if isinstance(item, Literal):
                found: str | None = item.words
            elif isinstance(item, Choice):
                found = self.choose(item)
            elif isinstance(item, Condition):
                is_known = self.next_words(item.name) is not None
                found = "" if is_known == item.is_known else None
            else:
                found = self.refer(item.name)
            if found is None:
                return None
            words.append(found)
        return "".join(words)

    def refer(self, name: str) -> str | None:
        """Words of a symbol or slot."""
        if name in self.symbols:
            return self.choose(self.symbols[name])
        words = self.next_words(name)
        if words is not None:
            self.said[name] = self.said.get(name, 0) + 1
        return words

    def next_words(self, name: str) -> str | None:
        """What a slot says next."""
        words = self.slots.get(name)
        if words is None or isinstance(words, str):
            return words
        number = self.said.get(name, 0)
        return words[number] if number < len(words) else None


def _blocks(source: str) -> dict[str, list[str]]:
    """The alternatives of each symbol as they are written, those over several lines joined."""
    blocks: dict[str, list[str]] = {}
    name = None
    depth = 0
    for number, line in enumerate(source.splitlines(), start=1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        indent = len(line) - len(line.lstrip())
        if indent == 0:
            name = text.removesuffix(":")
            if name == text or name in blocks:
                raise ValueError(
                    f"line {number}: expected a new symbol and a colon, found {text!r}"
                )
            blocks[name] = []
            depth = 0
        elif name is None:
            raise ValueError(f"line {number}: {text!r} stands before any symbol")
        elif depth and indent > depth:
            blocks[name][-1] += f" {text}"
        else:
            depth = indent
            blocks[name].append(text)
    return blocks


def _alternatives(name: str, lines: list[str], is_once: bool) -> Choice:
    """The choice between a symbol's alternatives."""
    if not lines:
        raise ValueError(f"symbol {name!r} has no alternatives")
    alternatives = []
    weights = []
    for line in lines:
        weighted = _WEIGHT.fullmatch(line)
        weight, text = weighted.groups() if weighted else ("1", line)
        alternatives.append(_items("" if text == "-" else text, f"symbol {name!r}"))
        weights.append(float(weight))
    once = name if is_once else None
    return Choice(tuple(alternatives), tuple(weights), once=once)


def _items(text: str, where: str) -> tuple[Item, ...]:
    """The items of one alternative."""
    tokens = _TOKEN.findall(text)
    if "".join(tokens) != text:
        raise ValueError(f"{where}: a brace is not closed in {text!r}")
    tokens.reverse()  # the next one is popped
    alternatives = _until("", tokens, f"{where}, {text!r}")
    if len(alternatives) > 1:
        raise ValueError(f"{where}: '|' outside brackets in {text!r}")
    return alternatives[0]


def _until(closing: str, tokens: list[str], where: str) -> list[tuple[Item, ...]]:
    """The alternatives up to a closing bracket, or to the end for ""."""
    alternatives = []
    items: list[Item] = []
    while tokens:
        token = tokens.pop()
        if token == closing:
            break
        if token == "|":
            alternatives.append(tuple(items))
            items = []
        elif token == "(":
            items.append(_equals(_until(")", tokens, where)))
        elif token.startswith("["):
            percentage = token[1:].rstrip("% ")
            chance = int(percentage) / 100 if percentage else 0.5
            if not 0 < chance < 1:
                raise ValueError(f"{where}: {token!r} is no chance between 1 and 99 %")
            items.append(_equals(_until("]", tokens, where), chance))
        elif token in ")]":
            raise ValueError(f"{where}: {token!r} closes nothing")
        else:
            items.append(_leaf(token))
    else:
        if closing:
            raise ValueError(f"{where}: {closing!r} is missing")
    alternatives.append(tuple(items))
    return alternatives


def _equals(alternatives: list[tuple[Item, ...]], chance: float = 1.0) -> Choice:
    """A choice between equals."""
    return Choice(tuple(alternatives), (1.0,) * len(alternatives), chance)


def _leaf(token: str) -> Item:
    """A reference, a condition, or words."""
    if not token.startswith("{"):
        return Literal(token)
    name = token[1:-1]
    if name[:1] in ("?", "!"):
        return Condition(name[1:], is_known=name[0] == "?")
    return Reference(name)


def _names(choice: Choice) -> set[str]:
    """All names that a choice refers to."""
    found: set[str] = set()
    for items in choice.alternatives:
        for item in items:
            if isinstance(item, Choice):
                found |= _names(item)
            elif not isinstance(item, Literal):
                found.add(item.name)
    return found


def _literals(choice: Choice) -> list[str]:
    """All words that a choice says itself."""
    found: list[str] = []
    for items in choice.alternatives:
        for item in items:
            if isinstance(item, Choice):
                found += _literals(item)
            elif isinstance(item, Literal):
                found.append(item.words)
    return found


def read_grammar(names: Iterable[str]) -> Grammar:
    """The grammar of several files of `words/grammar` together, by their names without ".txt"."""
    folder = files(__package__).joinpath("grammar")
    sources = []
    for name in names:
        sources.append(folder.joinpath(f"{name}.txt").read_text(encoding="utf-8"))
    return Grammar("\n".join(sources))
