"""How varied and how true texts are: those of the rule-based writer, and those that the sources bring.

    python benchmarks/words.py --data_dirs DATA/animalpose_voc_256 DATA/grocery --split validation

Prints for each style, on up to `--texts` texts of points that are spread over the photos: words of a text, different
pairs of neighboring words among all pairs (distinct-2), the share of texts whose skeleton another one has too, and the
share of texts that say something that annotation or pixels contradict. `--skeletons 120000` writes so many texts in
style "free" and counts their different skeletons.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from tqdm import tqdm
from transformers import HfArgumentParser

from hf_talking_points.data.diversity import (
    MOST_TEXTS,
    repeated_skeletons,
)
from hf_talking_points.data.false_claims import false_claim_rows, false_shares
from hf_talking_points.data.keypoints import choose_points
from hf_talking_points.data.photos import AnnotatedObject, PartPoint, Photo
from hf_talking_points.data.sources import read_photos
from hf_talking_points.data.triplets import Owned
from hf_talking_points.metrics import distinct_n
from hf_talking_points.words.claims import KINDS
from hf_talking_points.words.facts import Scene
from hf_talking_points.words.writer import STYLES, skeleton, write

PER_PHOTO = 2  # points of a photo whose texts are measured
POINTS_OF_SKELETONS = 6
GIVEN = {"given": 1}
ANYWHERE = {"anywhere": 2}


@dataclass
class Arguments:
    data_dirs: list[str] = field(metadata={"help": "folders with an objects.jsonl"})
    split: str = field(default="validation", metadata={"help": "split of the photos"})
    texts: int = field(default=MOST_TEXTS, metadata={"help": "texts of each style"})
    skeletons: int = field(
        default=0, metadata={"help": "texts in which different skeletons are counted"}
    )
    seed: int = 0


@dataclass
class Measured:
    """Texts of one style.

    Args:
        texts (list of `str`)
        claims (list): the false claims of each.
    """

    texts: list[str] = field(default_factory=list)
    claims: list[list[dict[str, str]]] = field(default_factory=list)


def scenes_of(
    photos: list[Photo], rng: np.random.Generator
) -> Iterator[tuple[Scene, list[Owned]]]:
    """Photos in random order, with their annotated and described points and a few anywhere, in random order too."""
    for index in rng.permutation(len(photos)):
        image = photos[index].open()
        gray = np.asarray(image.convert("L"))
        chosen = choose_points(photos[index], gray, GIVEN, ANYWHERE, 0.0, rng)
        points = [chosen[number][:2] for number in rng.permutation(len(chosen))]
        yield Scene(photos[index], np.asarray(image)), points


def measure(photos: list[Photo], count: int, seed: int) -> dict[str, Measured]:
    """Up to `count` texts of each style with their false claims, those of the sources with their own styles."""
    rng = np.random.default_rng(seed)
    measured: dict[str, Measured] = defaultdict(Measured)

    def add(
        style: str,
        text: str,
        scene: Scene,
        annotated: AnnotatedObject | None,
        point: PartPoint,
    ) -> None:
        if len(measured[style].texts) < count:
            measured[style].texts.append(text)
            measured[style].claims.append(
                false_claim_rows(text, scene, annotated, point)
            )

    for scene, points in tqdm(scenes_of(photos, rng), total=len(photos)):
        for annotated, point in points:
            for style, text in point.texts:
                add(f"{style}, of the sources", text, scene, annotated, point)
        wanted = count - len(measured[STYLES[0]].texts)
        for annotated, point in points[: min(PER_PHOTO, wanted)]:
            facts = scene.facts(annotated, point)
            for style in STYLES:
                add(style, write(facts, style, rng), scene, annotated, point)
    return measured


def count_skeletons(photos: list[Photo], count: int, seed: int) -> tuple[int, int]:
    """(different skeletons, texts) of `count` texts in style "free", or a few more: as many of each photo."""
    rng = np.random.default_rng(seed)
    per_photo = -(-count // len(photos))
    skeletons: set[str] = set()
    for scene, points in tqdm(scenes_of(photos, rng), total=len(photos)):
        facts = [scene.facts(*owned) for owned in points[:POINTS_OF_SKELETONS]]
        for number in range(per_photo):
            skeletons.add(skeleton(write(facts[number % len(facts)], "free", rng)))
    return len(skeletons), per_photo * len(photos)


def table_line(style: str, measured: Measured) -> str:
    """A row of the Markdown table of styles."""
    texts = measured.texts
    words = [len(text.split()) for text in texts]
    having = sum(bool(claims) for claims in measured.claims)
    cells = [
        style,
        f"{len(texts):,}",
        f"{np.mean(words):.0f}",
        f"{distinct_n(texts):.3f}",
        f"{repeated_skeletons(texts):.1f}",
        f"{100 * having / len(texts):.1f}",
        *(f"{share:.1f}" for share in false_shares(measured.claims).values()),
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = HfArgumentParser(Arguments)
    args = parser.parse_args_into_dataclasses()[0]
    photos: list[Photo] = []
    for folder in args.data_dirs:
        photos.extend(
            photo for photo in read_photos(folder) if photo.split == args.split
        )
    measured = measure(photos, args.texts, args.seed)
    print(
        "| style | texts | words | distinct-2 | repeated skeletons, % | false, % |",
        " | ".join(KINDS),
        "|",
    )
    print("|---" * (6 + len(KINDS)) + "|")
    for style, of_style in measured.items():
        print(table_line(style, of_style), flush=True)
    if args.skeletons:
        different, texts = count_skeletons(photos, args.skeletons, args.seed)
        print(f"free: {different:,} different skeletons in {texts:,} texts")


if __name__ == "__main__":
    main()
