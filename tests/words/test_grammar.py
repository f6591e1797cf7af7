import numpy as np
import pytest

from hf_talking_points.words.grammar import Grammar, read_grammar

ANIMALS = """
# how a point is told
text:
    3 The {name}['s {part}].
    1 {name}, {part}.
rest:
    {once}[ and {once}]
    -
greeting:
    (Hello|Good
        day), {name}
"""


def grammar_of(*alternatives: str) -> Grammar:
    """A grammar with the alternatives of one symbol, "text"."""
    return Grammar("text:\n    " + "\n    ".join(alternatives))


def all_texts(
    grammar: Grammar, slots: dict, symbol: str = "text", count: int = 200
) -> set[str | None]:
    rng = np.random.default_rng(0)
    texts = set()
    for _ in range(count):
        texts.add(grammar.expand(symbol, slots, rng))
    return texts


def test_alternatives_and_optional_clauses():
    texts = all_texts(Grammar(ANIMALS), {"name": "dog", "part": "ear"})
    assert texts == {"The dog.", "The dog's ear.", "dog, ear."}


def test_the_first_alternative_with_its_clauses_without_a_generator():
    assert Grammar(ANIMALS).expand("text", {"name": "dog", "part": "ear"}) == (
        "The dog's ear."
    )


def test_an_alternative_applies_only_where_its_slots_are_known():
    assert all_texts(Grammar(ANIMALS), {"name": "dog"}) == {"The dog."}
    assert all_texts(Grammar(ANIMALS), {"part": "ear", "name": None}) == {None}


def test_an_alternative_goes_on_in_lines_indented_further():
    texts = all_texts(Grammar(ANIMALS), {"name": "you"}, "greeting")
    assert texts == {"Hello, you", "Good day, you"}


@pytest.mark.parametrize("first", range(7))
def test_the_alternative_that_is_asked_for_is_said_where_it_applies(first):
    grammar = grammar_of("one", "two {name}", "three")
    rng = np.random.default_rng(0)
    texts = ["one", "two dog", "three"]
    assert grammar.expand("text", {"name": "dog"}, rng, first) == texts[first % 3]
    if first % 3 == 1:
        others = {grammar.expand("text", {}, rng, first) for _ in range(50)}
        assert others == {"one", "three"}


def test_weights():
    grammar = grammar_of("9 often", "1 rarely")
    rng = np.random.default_rng(0)
    often = sum(grammar.expand("text", {}, rng) == "often" for _ in range(2000))
    assert often == pytest.approx(1800, abs=80)


def test_chance_of_a_clause():
    grammar = grammar_of("text[80% , more]")
    rng = np.random.default_rng(0)
    more = sum(grammar.expand("text", {}, rng) == "text, more" for _ in range(2000))
    assert more == pytest.approx(1600, abs=80)


def test_words_in_a_tuple_are_said_once_each():
    grammar = grammar_of("{once}, {once}", "{once} only", "nothing")
    assert grammar.expand("text", {"once": ("a", "b")}) == "a, b"
    assert grammar.expand("text", {"once": ("a",)}) == "a only"
    assert grammar.expand("text", {"once": ()}) == "nothing"


def test_words_of_an_alternative_given_up_can_be_said_elsewhere():
    grammar = grammar_of("{once} {unknown}", "{once} known")
    assert grammar.expand("text", {"once": ("a",)}) == "a known"
    optional = grammar_of("[99% {once} {unknown}]{once}")
    assert optional.expand("text", {"once": ("a",)}) == "a"


def test_conditions():
    grammar = grammar_of("{?name}known", "{!name}unknown")
    assert all_texts(grammar, {"name": "dog"}) == {"known"}
    assert all_texts(grammar, {}) == {"unknown"}
    assert all_texts(grammar, {"name": ()}) == {"unknown"}


def test_alternatives_that_come_once_each():
    grammar = Grammar("text:\n    {word}{word}[{word}]\nword, each once:\n    a\n    b")
    assert all_texts(grammar, {}) == {"ab", "ba"}
    assert all_texts(grammar, {}, "word") == {"a", "b"}


def test_a_dash_says_nothing():
    assert Grammar(ANIMALS).expand("rest", {}) == ""


def test_slots_are_the_names_without_a_symbol():
    assert Grammar(ANIMALS).slots == {"name", "part", "once"}


def test_the_same_generator_gives_the_same_text():
    grammar = Grammar(ANIMALS)
    slots = {"name": "dog", "part": "ear"}
    texts = []
    for _ in range(2):
        rng = np.random.default_rng(3)
        texts.append([grammar.expand("text", slots, rng) for _ in range(20)])
    assert texts[0] == texts[1]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("text:\n    a (b", r"symbol 'text', 'a \(b': '\)' is missing"),
        ("text:\n    a ]", r"'\]' closes nothing"),
        ("text:\n    a [100% b]", r"'\[100% ' is no chance between 1 and 99 %"),
        ("text:\n    a {name", "a brace is not closed"),
        ("text:\n    a | b", "outside brackets"),
        ("text:\n", "symbol 'text' has no alternatives"),
        ("    a", "line 1: 'a' stands before any symbol"),
        ("text", "line 1: expected a new symbol and a colon, found 'text'"),
        ("text:\n    a\ntext:\n    b", "line 3: expected a new symbol"),
    ],
)
def test_a_grammar_that_cannot_be_read(source, message):
    with pytest.raises(ValueError, match=message):
        Grammar(source)


def test_unknown_symbol():
    with pytest.raises(ValueError, match=r"symbol 'word' is not in the grammar"):
        grammar_of("a").expand("word", {})


def test_the_packaged_grammars_are_read():
    grammar = read_grammar(["places"])
    assert grammar.slots == {"frame"}
