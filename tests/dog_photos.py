"""Small photos of dogs with known points, and models of the protocol that answer as they are told."""

import json

from conftest import noise_image

from hf_talking_points.data.sources import split_of

POINTS = (("left_eye", 20, 12), ("right_eye", 30, 12), ("nose", 25, 20))
SIZE = (96, 64)


def names_in_split(split, count):
    """File names that the split rule puts into a split."""
    names = (f"{number}.png" for number in range(1000))
    chosen = [name for name in names if split_of(name) == split]
    return chosen[:count]


def dog_row(name, number, shift):
    """A line of objects.jsonl: a dog, `shift` pixels from the left."""
    points = [[part, x + shift, y + number % 5] for part, x, y in POINTS]
    return {
        "image": name,
        "size": SIZE,
        "category": "dog",
        "object_box": [10 + shift, 2, 45 + shift, 40],
        "points": points,
    }


def write_dogs(folder, names, first_seed=0):
    """Photos, one or two dogs on each, with their objects.jsonl."""
    lines = []
    for number, name in enumerate(names):
        noise_image(first_seed + number, *SIZE).save(folder / name)
        shifts = (0, 40) if number % 2 else (0,)
        for shift in shifts:
            lines.append(json.dumps(dog_row(name, number, shift)))
    (folder / "objects.jsonl").write_text("\n".join(lines) + "\n")


def codes(views):
    """A text for each point that is no other's."""
    texts = []
    number = 0
    for view in views:
        row = []
        for _ in view.points():
            row.append(f"point {number}")
            number += 1
        texts.append(row)
    return texts


class Oracle:
    """Finds the points whose texts it was told, and counts what it is asked."""

    name = fingerprint = "oracle"

    def __init__(self, views, texts):
        self.asked = 0
        self.known = {}
        for view, row in zip(views, texts):
            for text, (_, point) in zip(row, view.points()):
                self.known[text] = (point.x, point.y)

    def __call__(self, image, texts):
        self.asked += len(texts)
        return [self.known[text] for text in texts]
