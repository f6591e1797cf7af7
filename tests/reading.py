"""What the tests of the readers share."""

import copy
import json

from PIL import Image

GONE = object()


def rejected(read, *arguments):
    """What a reader yields, and what it rejects, when it is told to go on."""
    records = []

    def on_reject(image_id, reason):
        records.append((image_id, reason))

    photos = list(read(*arguments, on_reject=on_reject))
    return photos, records


def changed(content, place, value):
    """A copy of a JSON content with another value at a place, or without it where the value is `GONE`."""
    content = copy.deepcopy(content)
    *path, last = place
    inner = content
    for key in path:
        inner = inner[key]
    if value is GONE:
        del inner[last]
    else:
        inner[last] = value
    return content


def coco_folder(folder, content, by_synset=False):
    """A COCO file and its images, each black."""
    for record in content["images"]:
        name = record["file_name"]
        subfolder = name.partition("_")[0] if by_synset else ""
        path = folder / "data" / subfolder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (record["width"], record["height"])).save(path)
    (folder / "train.json").write_text(json.dumps(content))
    return folder / "train.json", folder / "data"
