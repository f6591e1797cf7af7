"""Whether a text is English, told by its most frequent words."""

from __future__ import annotations

import re

__all__ = ["fault_of_text", "is_english"]

MOST_WORDS = 300
ENGLISH_SHARE = 0.15  # of the words of a text that must be among `ENGLISH_WORDS`
WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")

FUNCTION_WORDS = """
the and of with from its it's it that this these those there where which what who whose while you your they their them
are isn't has have having been being was were is near next between beside besides behind above below beneath under
underneath over around through across along against toward towards away into onto off out down up just right left
about at by for to on in a an or but not no one two three other another each both some any few more most less very
slightly almost nearly roughly somewhat still only also than then here once
"""
DESCRIBING_WORDS = """
upper lower top bottom middle center centre halfway midway inside outside inner outer edge edges border corner side
sides end ends tip base root part half third rim margin outline line lines spot point place area patch piece surface
bright dark light pale dull shiny shadow shaded shade highlight color colour colored coloured plain smooth soft rough
black white gray grey brown red blue green yellow orange pink purple golden cream tan beige silver reddish brownish
greyish grayish whitish blackish yellowish bluish greenish pinkish
small tiny large big little long short thin thick narrow wide high low tall round flat curved straight far close closer
nearest nearer first second last back front rear hind leftmost rightmost lying standing sitting hanging looking facing
seen visible blurred blurry empty
dog cat horse cow sheep bird person man woman boy girl child people animal car truck bus bicycle chair table sofa
bottle plant pot cup door drawer window wall floor ceiling roof ground grass water sky tree trees leaf leaves wood
wooden metal glass stone road fence house background foreground picture photo image frame
head face eye eyes ear ears nose muzzle snout mouth lip chin cheek forehead throat neck chest breast shoulder back
belly flank leg legs foreleg thigh knee elbow hoof paw foot feet tail wing wings beak bill feather feathers fur coat
hair skin collar wheel handle knob button screen sleeve shirt dress skirt trousers shoe shoes hat label letter letters
word text stripe stripes dots fold shelf box bag fruit apple stem petal flower bread bowl plate
"""
# also words of other languages
AMBIGUOUS = frozenset(
    "a an and at by for has in is it no of off on one or over to under up was were do die das tip pot bus hat man "
    "text face low base line orange word sofa glass wing bill top red far most few fold".split()
)
ENGLISH_WORDS = frozenset(f"{FUNCTION_WORDS} {DESCRIBING_WORDS}".split()) - AMBIGUOUS
COMMON_WORDS = ENGLISH_WORDS | AMBIGUOUS

# frequent words of other European languages that English does not have
FOREIGN_WORDS = frozenset(
    """
    der das und mit dem den ein eine einem einen einer auf ist im vom zum zur nicht unter über rechts oben unten
    hinter neben zwischen
    le les du des une dans avec sur sous est et qui au aux ce cette derrière entre gauche droite près
    el los las del una con por sobre bajo que está en detrás izquierda derecha junto es y su
    il lo gli della dello delle nel nella con sul sulla sotto destra sinistra vicino di che e un è
    os dos uma com não sob atrás esquerda direita perto na no da do ao
    de het een van met onder boven naast achter rechter linker op en bij aan zijn
    och med på av ett den det som är till vänster höger bakom og et til venstre højre ved bag
    je na za pod nad się jest przy lewej prawej oraz
    on ja sen jossa vasemmalla oikealla alla
    ve bir bu ile için sağ sol altında üstünde
    """.split()
) - frozenset("on no den do bag met van pod till".split())


def is_english(text: str) -> bool:
    """Whether a text is English: enough of its words are frequent English ones, and not more of them foreign ones.

    It is meant for descriptions of places in photos. Names and rare words may be anything.
    """
    words = [word.lower().replace("’", "'") for word in WORD.findall(text)]
    if not words:
        return False
    english = sum(word.removesuffix("'s") in COMMON_WORDS for word in words)
    certain = sum(word.removesuffix("'s") in ENGLISH_WORDS for word in words)
    foreign = sum(word in FOREIGN_WORDS for word in words)
    if certain == 0 or foreign >= certain:
        return False
    return english >= ENGLISH_SHARE * len(words)


def fault_of_text(text: str) -> str | None:
    """Why a text cannot be used as a description; None where it can."""
    if not text.strip():
        return "is empty"
    count = len(text.split())
    if count > MOST_WORDS:
        return f"has {count} words: expected at most {MOST_WORDS}"
    if not is_english(text):
        return f"is not English as far as its words tell: {text[:60]!r}"
    return None
