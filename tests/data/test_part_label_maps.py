"""Pascal-Part-116 and ADE20K-Part-234."""

import json
import pickle

import numpy as np
import pytest
from PIL import Image
from reading import GONE, changed, rejected

from hf_talking_points.data.sources import read_part_label_maps

OBJECTS = ["aeroplane", "cat", "dog"]
PARTS = [
    "aeroplane's wing",
    "cat's head",
    "cat's leg",
    "dog's head",
    "dog's license plate",
]
PASCAL_NAME = "2008_000008"
SIZE = (20, 12)


def save_map(path, labels, dtype=np.uint8):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.array(labels, dtype=dtype)).save(path)


def boxes(parts):
    return [(part.name, part.box) for part in parts]


def pascal_folder(folder):
    """Pascal-Part-116: a cat with two legs beside a dog, and a second cat."""
    none = 255
    objects = np.full((12, 20), none)
    objects[1:9, 1:7] = 1
    objects[1:9, 7:10] = 2
    objects[2:6, 14:18] = 1
    parts = np.full((12, 20), none)
    parts[1:4, 1:5] = 1
    parts[6:9, 1:3] = parts[6:9, 5:7] = 2
    parts[2:4, 7:9] = parts[4, 9] = 3
    parts[2:4, 15:18] = 1
    for split, name in (("train", PASCAL_NAME), ("val", "2008_000009")):
        save_map(folder / "annotations_detectron2_obj" / split / f"{name}.png", objects)
        save_map(folder / "annotations_detectron2_part" / split / f"{name}.png", parts)
        (folder / "images" / split).mkdir(parents=True)
        Image.new("RGB", SIZE).save(folder / "images" / split / f"{name}.jpg")
    (folder / "train_16shot.json").write_text("[]")
    return folder


def pascal_map(folder, kind="part"):
    return folder / f"annotations_detectron2_{kind}" / "train" / f"{PASCAL_NAME}.png"


def test_pascal_part_116(tmp_path):
    photos = list(read_part_label_maps(pascal_folder(tmp_path), OBJECTS, PARTS))
    assert [(photo.id, photo.split, photo.size) for photo in photos] == [
        ("2008_000008.jpg", "train", SIZE),
        ("2008_000009.jpg", "validation", SIZE),
    ]
    cat, second, dog = photos[0].objects
    assert (cat.category, cat.box) == ("cat", (1, 1, 7, 9))
    assert (second.category, second.box) == ("cat", (14, 2, 18, 6))
    assert (dog.category, dog.box) == ("dog", (7, 1, 10, 9))
    legs = [("leg", (1, 6, 3, 9)), ("leg", (5, 6, 7, 9))]
    assert boxes(cat.parts) == [("head", (1, 1, 5, 4)), *legs]
    assert boxes(dog.parts) == [("head", (7, 2, 10, 5))]
    assert boxes(second.parts) == [("head", (15, 2, 18, 4))]
    assert dog.parts[0].mask.astype(int).tolist() == [[1, 1, 0], [1, 1, 0], [0, 0, 1]]
    assert all(part.mask.all() for part in cat.parts + second.parts)
    assert photos[0].open().size == SIZE
    pickle.dumps(photos)


def ade20k_folder(folder):
    """ADE20K-Part-234: two dogs that touch, one of them before a cat whose head is seen inside its outline."""
    parts = np.full((12, 20), 65535)
    parts[2:5, 2:6] = 3
    parts[2:5, 9:12] = 3
    parts[7:9, 3:5] = 1
    parts[9:11, 9:11] = 4
    left = [1, 1, 8, 1, 8, 10, 1, 10]
    right = [8, 1, 14, 1, 14, 12, 8, 12]
    plane = [15, 1, 19, 1, 19, 5]
    annotations = []
    for number, (category_id, polygon) in enumerate(
        ((2, left), (2, right), (0, plane)), 1
    ):
        record = {"id": number, "image_id": 5, "category_id": category_id, "iscrowd": 0}
        annotations.append({**record, "segmentation": [polygon]})
    for name, short, image in (
        ("training", "train", "ADE_train_00000001"),
        ("validation", "val", "ADE_val_00000002"),
    ):
        save_map(
            folder / "annotations_detectron2_part" / name / f"{image}.png",
            parts,
            np.uint16,
        )
        (folder / "images" / name).mkdir(parents=True)
        Image.new("RGB", SIZE).save(folder / "images" / name / f"{image}.jpg")
        images = [{"id": 5, "file_name": f"{image}.jpg", "width": 20, "height": 12}]
        content = {"images": images, "annotations": annotations}
        (folder / f"ade20k_instance_{short}.json").write_text(json.dumps(content))
    return folder


def test_ade20k_part_234(tmp_path):
    first, second = read_part_label_maps(ade20k_folder(tmp_path), OBJECTS, PARTS)
    assert (first.id, first.split) == ("ADE_train_00000001.jpg", "train")
    assert (second.id, second.split) == ("ADE_val_00000002.jpg", "validation")
    left, right, plane = first.objects
    assert (left.category, left.box) == ("dog", (1, 1, 8, 10))
    assert (right.category, right.box) == ("dog", (8, 1, 14, 12))
    assert boxes(left.parts) == [
        ("head", (2, 2, 6, 5))
    ]  # the cat's head is not the dog's
    plate = ("license plate", (9, 9, 11, 11))
    assert boxes(right.parts) == [("head", (9, 2, 12, 5)), plate]
    assert (plane.category, plane.parts) == ("aeroplane", ())


def test_names_are_in_words(tmp_path):
    objects = ["aeroplane", "Grevy's_zebra", "traffic_light"]
    parts = ["aeroplane's wing", "Grevy's_zebra's L_Ear", "Grevy's_zebra's legs"]
    parts += ["traffic_light's lens (red)", "traffic_light's Pole"]
    first, _ = read_part_label_maps(pascal_folder(tmp_path), objects, parts)
    zebra, _, light = first.objects
    assert (zebra.category, light.category) == ("grevy's zebra", "traffic light")
    assert [part.name for part in zebra.parts] == ["left ear", "legs", "legs"]
    assert [part.name for part in light.parts] == ["lens red"]


@pytest.mark.parametrize("name", ["bird's head", "head", "dog's ", "dog's ()"])
def test_a_part_of_no_object_is_an_error(tmp_path, name):
    with pytest.raises(ValueError, match="part_names: expected names like"):
        list(read_part_label_maps(pascal_folder(tmp_path), OBJECTS, [*PARTS, name]))


def test_a_folder_of_another_layout_is_an_error(tmp_path):
    message = (
        "expected annotations_detectron2_obj, of Pascal-Part-116, or .* found neither"
    )
    with pytest.raises(ValueError, match=message):
        list(read_part_label_maps(tmp_path, OBJECTS, PARTS))


def remove_image(folder):
    (folder / "images" / "train" / f"{PASCAL_NAME}.jpg").unlink()


def remove_object_map(folder):
    pascal_map(folder, "obj").unlink()


def truncate_map(folder):
    content = pascal_map(folder).read_bytes()
    pascal_map(folder).write_bytes(content[:50])


def resize_object_map(folder):
    save_map(pascal_map(folder, "obj"), np.full((12, 21), 1))


def add_labels(folder):
    save_map(pascal_map(folder), np.full((12, 20), 9))


def add_object_labels(folder):
    save_map(pascal_map(folder, "obj"), np.full((12, 20), 3))


def save_colors(folder):
    Image.new("RGB", SIZE).save(pascal_map(folder))


@pytest.mark.parametrize(
    "damage, reason",
    [
        (remove_image, "images/train/2008_000008.jpg does not exist"),
        (
            remove_object_map,
            "annotations_detectron2_obj/train/2008_000008.png does not exist",
        ),
        (truncate_map, "2008_000008.png cannot be read as an image"),
        (
            resize_object_map,
            r"size: expected \(21, 12\) of its object map, found \(20, 12\)",
        ),
        (
            add_labels,
            "field 'label': expected below 5, the number of names given, or 255, found 9",
        ),
        (
            add_object_labels,
            "'label': expected below 3, the number of names given, or 255",
        ),
        (save_colors, "field 'mode': expected one channel of 8 or 16 bit, found 'RGB'"),
    ],
)
def test_a_bad_label_map_is_rejected_and_the_rest_read(tmp_path, damage, reason):
    damage(pascal_folder(tmp_path))
    [photo], [(image_id, _)] = rejected(read_part_label_maps, tmp_path, OBJECTS, PARTS)
    assert (photo.id, image_id) == ("2008_000009.jpg", "2008_000008.jpg")
    with pytest.raises(ValueError, match=reason):
        list(read_part_label_maps(tmp_path, OBJECTS, PARTS))


def test_a_name_that_is_not_utf8_is_rejected(tmp_path):
    part_map = pascal_map(pascal_folder(tmp_path))
    part_map.rename(part_map.parent / "\udce9.png")
    photos, records = rejected(read_part_label_maps, tmp_path, OBJECTS, PARTS)
    assert [photo.id for photo in photos] == ["2008_000009.jpg"]
    assert records == [("\\udce9.png", "its name is not UTF-8")]


def test_a_photo_without_a_part_is_left_out_and_a_strict_reading_goes_on(tmp_path):
    save_map(pascal_map(pascal_folder(tmp_path)), np.full((12, 20), 255))
    [photo], [record] = rejected(read_part_label_maps, tmp_path, OBJECTS, PARTS)
    assert record[0] == "2008_000008.jpg" and "no point and no part" in record[1]
    [strict] = read_part_label_maps(tmp_path, OBJECTS, PARTS)
    assert strict.id == photo.id == "2008_000009.jpg"


def test_other_files_beside_the_maps_do_no_harm(tmp_path):
    (pascal_map(pascal_folder(tmp_path)).parent / ".DS_Store").write_text("")
    assert len(list(read_part_label_maps(tmp_path, OBJECTS, PARTS))) == 2


@pytest.mark.parametrize(
    "place, value, reason",
    [
        (
            ["annotations", 0, "segmentation"],
            GONE,
            "expected polygons or run lengths, found None",
        ),
        (
            ["annotations", 0, "segmentation"],
            [[1, 1]],
            "its segmentation covers no pixel",
        ),
        (
            ["annotations", 0, "category_id"],
            3,
            "expected one of the 3 known ids, found 3",
        ),
        (
            ["annotations", 0],
            None,
            "expected an object with field 'image_id', found None",
        ),
    ],
)
def test_a_bad_annotation_of_ade20k_is_rejected(tmp_path, place, value, reason):
    file = ade20k_folder(tmp_path) / "ade20k_instance_train.json"
    content = json.loads(file.read_text())
    file.write_text(json.dumps(changed(content, place, value)))
    (first, _), [(_, found)] = rejected(read_part_label_maps, tmp_path, OBJECTS, PARTS)
    assert len(first.objects) == 2
    assert "ade20k_instance_train.json, annotations[0]" in found and reason in found
    with pytest.raises(ValueError, match=reason):
        list(read_part_label_maps(tmp_path, OBJECTS, PARTS))


def test_a_bad_part_map_of_ade20k_is_rejected(tmp_path):
    folder = ade20k_folder(tmp_path)
    part_file = (
        folder / "annotations_detectron2_part" / "training" / "ADE_train_00000001.png"
    )
    save_map(part_file, np.full((12, 21), 65535), np.uint16)
    _, [(_, reason)] = rejected(read_part_label_maps, folder, OBJECTS, PARTS)
    assert reason.startswith("size: expected (20, 12)")
    part_file.unlink()
    [photo], [(image_id, reason)] = rejected(
        read_part_label_maps, folder, OBJECTS, PARTS
    )
    assert (photo.split, image_id) == ("validation", "ADE_train_00000001.jpg")
    assert reason.endswith("training/ADE_train_00000001.png does not exist")
