"""What people call things: synonyms of objects and parts, kinds of a kind, spellings, colors, directions.

Every table goes from the name that the annotation has to the words that people use for it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache

from .looks import COLORS

__all__ = [
    "ANIMALS",
    "COLOR_WORDS",
    "OBJECT_WORDS",
    "PART_WORDS",
    "VEHICLES",
    "categories_called",
    "color_names",
    "is_a",
    "parts_called",
    "phrase_pattern",
]

# the first word is the plainest one; a kind of dog is called a dog, too
OBJECT_WORDS: dict[str, tuple[str, ...]] = {
    "dog": (
        "dog", "puppy", "pup", "hound", "doggy", "terrier", "retriever", "labrador", "spaniel", "poodle", "collie",
        "sheepdog", "husky", "pug", "beagle", "dachshund", "bulldog", "mastiff", "chihuahua", "greyhound",
        "dalmatian", "setter", "shepherd dog", "schnauzer", "rottweiler", "doberman", "corgi", "malamute",
        "boxer dog", "great dane",
        "saint bernard", "newfoundland", "pekinese", "shih-tzu", "papillon", "basset", "bloodhound", "borzoi",
        "whippet", "saluki", "airedale", "lhasa", "vizsla", "clumber", "english springer", "kuvasz",
        "schipperke", "groenendael", "malinois", "briard", "kelpie", "komondor", "pinscher", "appenzeller",
        "entlebucher", "affenpinscher", "basenji", "leonberg", "great pyrenees", "samoyed", "pomeranian",
        "keeshond", "brabancon griffon", "mexican hairless", "bluetick", "coonhound",
        "foxhound", "wolfhound", "elkhound", "otterhound", "deerhound", "bullterrier", "ridgeback", "boston bull",
        "german short-haired pointer", "eskimo dog",
    ),
    "cat": ("cat", "kitten", "kitty", "tabby", "tomcat", "siamese", "tortoiseshell", "calico"),
    "horse": ("horse", "pony", "foal", "mare", "stallion", "colt", "gelding", "filly", "sorrel", "donkey", "mule"),
    "cow": ("cow", "calf", "bull", "heifer", "ox", "bullock", "steer", "cattle", "bovine"),
    "sheep": ("sheep", "lamb", "ewe", "ram", "bighorn"),
    "bird": (
        "bird", "albatross", "auklet", "blackbird", "bunting", "catbird", "chat", "cuckoo", "duck", "goose", "hen",
        "cock", "chicken", "rooster", "parrot", "penguin", "swan", "gull", "seagull", "pigeon", "crow", "ani",
        "cowbird", "parakeet", "owl", "eagle", "heron", "stork", "pelican", "flamingo", "finch", "sparrow", "robin",
    ),
    "elephant": ("elephant",),
    "bear": ("bear", "panda"),
    "zebra": ("zebra",),
    "giraffe": ("giraffe",),
    "car": (
        "car", "automobile", "sedan", "hatchback", "suv", "taxi", "cab", "pickup", "jeep", "limousine", "convertible",
        "minivan", "van", "coupe", "estate car", "station wagon", "beach wagon", "racer", "model t",
    ),
    "bus": ("bus", "minibus", "trolleybus", "double-decker"),
    "truck": ("truck", "lorry", "van", "tractor", "fire engine"),
    "train": ("train", "locomotive", "tram", "streetcar"),
    "motorbike": ("motorbike", "motorcycle", "moped", "motor scooter", "scooter"),
    "bicycle": ("bicycle", "bike", "mountain bike", "cycle", "bicycle-built-for-two"),
    "boat": ("boat", "ship", "yacht", "sailboat", "canoe", "kayak", "speedboat", "yawl", "schooner", "dinghy"),
    "airplane": ("airplane", "aeroplane", "plane", "airliner", "jet", "aircraft", "warplane"),
    "person": (
        "person", "man", "woman", "boy", "girl", "child", "kid", "baby", "lady", "guy", "rider", "player", "cyclist",
        "toddler", "jockey", "adult",
    ),
    "chair": ("chair", "armchair", "stool", "seat", "rocking chair", "folding chair", "barber chair"),
    "sofa": ("sofa", "couch", "settee", "studio couch"),
    "dining table": ("dining table", "table"),
    "potted plant": ("potted plant", "houseplant", "plant"),
    "tv monitor": ("tv monitor", "television", "tv", "monitor", "screen", "telly"),
    "bottle": ("bottle", "flask"),
    "refrigerator": ("refrigerator", "fridge"),
    "refrigerator door": ("refrigerator door", "fridge door"),
    "cabinet door": ("cabinet door", "cupboard door", "drawer"),
    "cup": ("cup", "mug"),
    "pants": ("pants", "trousers", "jeans", "leggings"),
    "zucchini": ("zucchini", "courgette"),
    "aubergine": ("aubergine", "eggplant"),
    "cell phone": ("cell phone", "mobile phone", "cellular telephone", "smartphone", "phone"),
    "donut": ("donut", "doughnut"),
    "teddy bear": ("teddy bear", "teddy"),
}  # fmt: skip
SAME_CATEGORY = {
    "couch": "sofa",
    "motorcycle": "motorbike",
    "tv": "tv monitor",
    "aeroplane": "airplane",
    "television": "tv monitor",
    # kinds whose names mean something else in a text
    "boxer": "dog", "cairn": "dog", "cardigan": "dog", "chow": "dog", "pembroke": "dog",
    "dhole": "dog", "dingo": "dog", "dogsled": "dog", "drake": "bird",
    "bison": "cow", "water buffalo": "cow", "oxcart": "cow", "horse cart": "horse",
    "car mirror": "car", "car wheel": "car", "grille": "car", "odometer": "car", "seat belt": "car",
}  # fmt: skip
ANIMALS = frozenset(
    ["dog", "cat", "horse", "cow", "sheep", "bird", "elephant", "bear", "zebra", "giraffe"]
)  # fmt: skip
VEHICLES = frozenset(
    ["car", "bus", "truck", "train", "motorbike", "bicycle", "boat", "airplane"]
)

# parts without their side; a word may stand for several ("leg"), a part may go by the word of a larger one
PART_WORDS: dict[str, tuple[str, ...]] = {
    "nose": ("nose", "snout", "muzzle", "nostril", "nostrils"),
    "muzzle": ("muzzle", "snout", "nose", "mouth"),
    "mouth": ("mouth", "lips", "lip", "jaw", "jaws", "muzzle"),
    "beak": ("beak", "bill"),
    "eye": ("eye", "pupil", "eyes"),
    "ebrow": ("eyebrow", "brow"),
    "ear": ("ear", "ears"),
    "horn": ("horn", "horns"),
    "head": ("head", "face", "forehead", "cheek"),
    "forehead": ("forehead", "brow", "front of the head"),
    "crown": ("crown", "top of the head"),
    "hair": ("hair",),
    "throat": ("throat", "neck", "chest", "breast"),
    "neck": ("neck", "throat", "mane", "nape"),
    "nape": ("nape", "back of the neck"),
    "breast": ("breast", "chest"),
    "belly": ("belly", "stomach", "tummy", "underside", "abdomen"),
    "back": ("back", "spine"),
    "torso": ("torso", "body", "trunk", "chest", "belly", "back", "flank", "shoulder", "rump", "shirt", "jacket"),
    "body": ("body", "torso"),
    "withers": ("withers", "shoulder", "shoulders", "top of the shoulders", "back", "nape"),
    "tail base": ("tail base", "base of the tail", "root of the tail", "tail", "rump"),
    "tail": ("tail",),
    "wing": ("wing", "wings"),
    "animal wing": ("wing", "wings"),
    "front elbow": ("front elbow", "elbow", "shoulder", "upper front leg", "front leg", "foreleg", "leg"),
    "front knee": ("front knee", "knee", "front leg", "foreleg", "leg"),
    "front paw": ("front paw", "forepaw", "paw", "front foot", "foot", "front hoof", "hoof", "front leg", "leg"),
    "back elbow": ("back elbow", "hind elbow", "rump", "thigh", "stifle", "upper back leg", "back leg",
                   "hind leg", "leg"),
    "back knee": ("back knee", "hind knee", "hock", "knee", "back leg", "hind leg", "leg"),
    "back paw": ("back paw", "hind paw", "paw", "back foot", "hind foot", "foot", "back hoof", "hoof", "back leg",
                 "hind leg", "leg"),
    "leg": ("leg", "legs", "front leg", "back leg", "hind leg", "foreleg", "thigh", "shin", "trouser leg"),
    "arm": ("arm", "sleeve", "elbow", "forearm"),
    "hand": ("hand", "fist", "fingers", "glove"),
    "foot": ("foot", "shoe", "boot", "feet"),
    "hoof": ("hoof", "hooves", "foot"),
    "wheel": ("wheel", "tire", "tyre", "rim", "hubcap"),
    "hood": ("hood", "bonnet"),
    "trunk": ("trunk", "boot lid", "trunk lid"),
    "tailgate": ("tailgate", "hatch"),
    "front bumper": ("front bumper", "bumper"),
    "back bumper": ("back bumper", "rear bumper", "bumper"),
    "front glass": ("front glass", "windshield", "windscreen", "front window"),
    "back glass": ("back glass", "rear window", "back window", "rear windshield"),
    "front light": ("front light", "headlight", "headlamp"),
    "back light": ("back light", "taillight", "tail light", "rear light"),
    "front door": ("front door", "door"),
    "back door": ("back door", "rear door", "door"),
    "headlight": ("headlight", "headlamp", "front light"),
    "mirror": ("mirror", "wing mirror", "side mirror"),
    "window": ("window", "windscreen", "windshield", "pane"),
    "license plate": ("license plate", "licence plate", "number plate", "plate"),
    "bodywork": ("bodywork",),
    "door": ("door",),
    "handlebar": ("handlebar", "handlebars"),
    "saddle": ("saddle",),
    "chain wheel": ("chain wheel",),
    "screen": ("screen",),
    "cap": ("cap", "lid"),
    "pot": ("pot", "planter", "flowerpot"),
    "plant": ("plant", "leaves", "foliage"),
    "handle": ("handle", "knob", "pull", "door handle"),
}  # fmt: skip
ANIMAL_PARTS = frozenset(
    "nose muzzle beak eye ear horn throat withers tail nape hoof".split()
) | {"tail base", "front paw", "back paw", "front knee", "back knee", "front elbow", "back elbow"}  # fmt: skip
VEHICLE_PARTS = frozenset(
    ["hood", "tailgate", "front bumper", "back bumper", "front glass", "back glass", "front light", "back light",
     "headlight", "license plate", "bodywork"]
)  # fmt: skip

# words for colors beside the names of `COLORS`: the names that they may stand for
COLOR_WORDS: dict[str, tuple[str, ...]] = {
    "ginger": ("orange", "rust", "golden"),
    "blond": ("golden", "cream", "beige"),
    "silver": ("light gray", "gray"),
    "gold": ("golden", "yellow"),
    "violet": ("purple", "lavender"),
    "crimson": ("red", "maroon"),
    "scarlet": ("red",),
    "chestnut": ("brown", "rust"),
    "fawn": ("tan", "beige"),
    "sandy": ("tan", "beige"),
    "ivory": ("cream", "white"),
    "charcoal": ("dark gray", "black"),
    "off-white": ("white", "cream"),
}
VERTICAL_WORDS = {
    "top": "above", "upper": "above", "uppermost": "above", "topmost": "above",
    "bottom": "below", "lower": "below", "lowest": "below", "bottommost": "below",
}  # fmt: skip
HORIZONTAL_WORDS = {
    "left": "left", "leftmost": "left", "left-hand": "left", "lefthand": "left",
    "right": "right", "rightmost": "right", "right-hand": "right", "righthand": "right",
}  # fmt: skip
SIDE_WORDS = frozenset(["left", "right", "left-hand", "right-hand"])
IMAGE_WORDS = ("image", "photo", "picture", "photograph", "shot", "frame", "scene")


def phrase_pattern(phrases: Iterable[str]) -> str:
    """The expression that finds any of some phrases in whole words, also in the plural, the longest first."""
    longest_first = sorted(set(phrases), key=len, reverse=True)
    either = "|".join(re.escape(phrase) for phrase in longest_first)
    return rf"(?<![\w-])(?:{either})(?:e?s)?(?![\w-])"


def singular(word: str) -> str:
    """A word less the "s" of its plural, where the lexicon knows it so."""
    for ending in ("es", "s"):
        if word.endswith(ending) and word.removesuffix(ending) in _words_of_lexicon():
            return word.removesuffix(ending)
    return word


@cache
def _words_of_lexicon() -> frozenset[str]:
    words: set[str] = set()
    for table in (OBJECT_WORDS, PART_WORDS):
        for name, called in table.items():
            words.update((name, *called))
    return frozenset(words)


@cache
def categories_called(word: str) -> frozenset[str]:
    """The categories of `OBJECT_WORDS` that a word, in singular or plural, stands for."""
    spelled = {word.lower(), singular(word.lower())}
    found = [name for name, words in OBJECT_WORDS.items() if spelled & set(words)]
    return frozenset(found)


@cache
def is_a(category: str) -> frozenset[str]:
    """The categories of `OBJECT_WORDS` that an annotated category is, or is a kind of; itself where there is none.

    The last words of a name say what it is: a "golden retriever" is a retriever.
    """
    category = SAME_CATEGORY.get(category, category)
    words = category.split(" ")
    for start in range(len(words)):
        found = categories_called(" ".join(words[start:]))
        if found:
            return found | {category}
    return frozenset([category])


@cache
def parts_called(word: str) -> frozenset[str]:
    """The parts of `PART_WORDS` that a word, in singular or plural, stands for."""
    spelled = {word.lower(), singular(word.lower())}
    found = [name for name, words in PART_WORDS.items() if spelled & {name, *words}]
    return frozenset(found)


@cache
def color_names(words: str) -> frozenset[str]:
    """The names of `COLORS` that a color in other words may stand for.

    "greyish" and "grey" are gray, "dark" and "pale" before a color widen it to its dark and light shades.
    """
    words = words.lower().replace("grey", "gray").replace("greeny", "green")
    if words in COLORS:
        return frozenset([words])
    if words in COLOR_WORDS:
        return frozenset(COLOR_WORDS[words])
    plain = [re.sub(r"(?:ish|y)$", "", word) for word in re.split(r"[ -]", words)]
    names = set()
    for word in plain:
        for name in COLORS:
            if word in name.replace("-", " ").split(" "):
                names.add(name)
        names.update(COLOR_WORDS.get(word, ()))
    return frozenset(names)


def side_in(words: str) -> str | None:
    """ "left" or "right" where words have one of them, None where they have both or none."""
    found = {
        HORIZONTAL_WORDS[word]
        for word in words.lower().split()
        if word in HORIZONTAL_WORDS
    }
    return found.pop() if len(found) == 1 else None
