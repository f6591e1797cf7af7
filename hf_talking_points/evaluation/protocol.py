"""Descriptor through localizer: descriptions are judged by how well a localizer finds their points."""

import numpy as np
from tqdm import tqdm

from ..data.wording import names_it
from .metrics import normalized_distances


def describe_views(describe, views, batch_size=8, desc="Describing"):
    """Descriptions of every annotated point of `views` by a point-description pipeline: a list of texts for each view."""
    requests = ({"image": view.image(), "points": [(p.x, p.y) for _, p in view.points()]} for view in views)
    answers = tqdm(describe(requests, batch_size=batch_size), total=len(views), desc=desc)
    return [[answer["description"] for answer in row] for row in answers]


def localize_views(locate, views, descriptions, batch_size=8, image=lambda view: view.image(), desc="Localizing"):
    """Points, an array of shape `(n, 2)` in pixels, that a point-localization pipeline finds for the descriptions of each view."""
    requests = ({"image": image(view), "text": texts} for view, texts in zip(views, descriptions))
    answers = tqdm(locate(requests, batch_size=batch_size), total=len(views), desc=desc)
    return np.array([answer["point"] for row in answers for answer in row])


def true_points(views):
    """(points, image sizes, image ids), each with one row for every annotated point of `views`."""
    rows = [((p.x, p.y), view.photo.size, view.key) for view in views for _, p in view.points()]
    points, sizes, ids = zip(*rows)
    return np.array(points), np.array(sizes), np.array(ids)


def view_distances(views, found):
    """Normalised distances of found points (in the order of [`true_points`]) to the true ones."""
    points, sizes, _ = true_points(views)
    return normalized_distances(found, points, sizes)


def naming_accuracy(views, descriptions):
    """Share of descriptions, in percent, that name the object's category and that name the part."""
    pairs = [(text, owner, part) for view, texts in zip(views, descriptions) for text, (owner, part) in zip(texts, view.points())]
    return {
        "category": 100.0 * float(np.mean([names_it(text, owner.category) for text, owner, _ in pairs])),
        "part": 100.0 * float(np.mean([names_it(text, part.part) for text, _, part in pairs])),
    }
