"""Reading annotated photos, the split by photo, and views whose annotation moves with the pixels."""

import io
import json
import pickle

import datasets
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from hf_talking_points.data.sources import (
    AnnotatedObject,
    Part,
    PartPoint,
    Photo,
    mirrored_part,
    polygon_mask,
    random_view,
    read_coco_keypoints,
    read_coco_parts,
    read_dataset,
    read_objects,
    read_part_label_maps,
    segmentation_mask,
    split_of,
    view,
    view_image,
)

ROW = {
    "image": "images/a.png",
    "size": [40, 20],
    "category": "dog",
    "object_box": [1, 2, 30, 18],
    "points": [["left_eye", 5, 6]],
}


def write(folder, *lines):
    (folder / "objects.jsonl").write_text(
        "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    )
    return folder


def test_objects_of_one_photo_come_together(tmp_path):
    wheel = ["wheel", 7, 8, [5, 6, 9, 10]]
    folder = write(
        tmp_path,
        ROW,
        {**ROW, "image": "images/b.png"},
        {**ROW, "category": "cat", "points": [wheel, ["nose", 99, 3]]},
    )
    photos = read_objects(folder)
    assert [p.id for p in photos] == ["images/a.png", "images/b.png"]
    dog, cat = photos[0].objects
    assert (dog.category, cat.category) == ("dog", "cat") and dog.points == (
        PartPoint("left_eye", 5.0, 6.0),
    )
    assert cat.points == (
        PartPoint("wheel", 7.0, 8.0, (5, 6, 9, 10)),
    )  # the nose lies outside the photo


@pytest.mark.parametrize(
    "line, message",
    [
        ("{", "line 2: JSONDecodeError"),
        ({**ROW, "size": [40]}, "line 2: ValueError"),
        ({k: v for k, v in ROW.items() if k != "object_box"}, "line 2: KeyError: 'object_box'"),
        ({**ROW, "points": [["left_eye", "x", 6]]}, "line 2"),
        ({**ROW, "points": 3}, "line 2: TypeError"),
    ],
)
def test_what_does_not_fit_names_its_line(tmp_path, line, message):
    with pytest.raises(ValueError, match=message):
        read_objects(write(tmp_path, ROW, line))


def rejected(read, *arguments):
    """What a reader yields, and what it rejects, when it is told to go on."""
    rows = []
    photos = list(
        read(*arguments, on_reject=lambda image_id, reason: rows.append((image_id, reason)))
    )
    return photos, rows


def test_a_line_that_cannot_be_used_is_rejected_and_the_rest_read(tmp_path):
    outside = {**ROW, "image": "b.png", "object_box": [1, 2, 60, 18]}
    empty = {**ROW, "image": "c.png", "points": []}
    part_outside = {
        **ROW,
        "image": "d.png",
        "points": [["nose", 5, 5], ["wheel", 7, 8, [5, 6, 9, 30]]],
    }
    folder = write(tmp_path, ROW, outside, empty, part_outside, {**ROW, "image": "e.png"})
    lines = (folder / "objects.jsonl").read_bytes().replace(b"e.png", b"\xe9.png")
    (folder / "objects.jsonl").write_bytes(lines)
    photos, rows = rejected(read_objects, folder)
    assert [p.id for p in photos] == ["images/a.png", "d.png"] and [
        p.part for p in photos[1].objects[0].points
    ] == ["nose"]
    reasons = [
        ("\\udce9.png", "line 5 has a name that is not UTF-8"),
        ("b.png", "dog: box (1.0, 2.0, 60.0, 18.0) lies outside the photo of 40 x 20 pixels"),
        ("b.png", "no point and no part is annotated on it that could be used"),
        ("c.png", "no point and no part is annotated on it that could be used"),
        ("d.png", "wheel: box (5.0, 6.0, 9.0, 30.0) lies outside the photo of 40 x 20 pixels"),
    ]
    assert sorted(rows) == sorted(reasons)
    with pytest.raises(ValueError, match="not UTF-8"):
        read_objects(folder)


def test_the_split_of_objects_is_the_rule_whatever_the_publisher_says(tmp_path):
    names = [f"{i}.png" for i in range(40)]
    photos = read_objects(
        write(tmp_path, *({**ROW, "image": name, "split": "train"} for name in names))
    )
    assert [p.split for p in photos] == [split_of(name) for name in names] and len(
        {p.split for p in photos}
    ) > 1


def test_lines_that_disagree_about_a_photo_are_an_error(tmp_path):
    with pytest.raises(
        ValueError, match=r"line 2: field 'size': expected \(40, 20\).*, found \(40, 21\)"
    ):
        read_objects(write(tmp_path, ROW, {**ROW, "size": [40, 21]}))


def test_missing_file_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="objects.jsonl"):
        read_objects(tmp_path)


def test_split_is_that_of_the_published_rule():
    ids = [f"images/{i}.jpg" for i in range(4000)]
    shares = {
        split: sum(split_of(i) == split for i in ids) / len(ids)
        for split in ("train", "validation", "test")
    }
    assert abs(shares["test"] - 26 / 256) < 0.02 and abs(shares["validation"] - 13 / 256) < 0.02
    # sha1("images/2007_000063.jpg") starts with 0x64
    assert split_of("images/2007_000063.jpg") == "train"


def marked_photo(x, y, size):
    """A black image with one white pixel, and its annotation at the centre of that pixel."""
    image = Image.new("RGB", size)
    image.putpixel((x, y), (255, 255, 255))
    point = PartPoint("left_eye", x + 0.5, y + 0.5, (x, y, x + 1, y + 1))
    return Photo("a", "a", size, (AnnotatedObject("dog", (0, 0, *size), (point,)),)), image


@given(st.data())
def test_annotation_moves_with_the_pixels(data):
    width, height = data.draw(st.integers(4, 60)), data.draw(st.integers(4, 60))
    x, y = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    photo, image = marked_photo(x, y, (width, height))
    crop, mirror = random_view(photo, np.random.default_rng(data.draw(st.integers(0, 2**31))))
    moved, pixels = view(photo, crop, mirror), np.asarray(view_image(image, crop, mirror))
    assert moved.size == (pixels.shape[1], pixels.shape[0])
    [point] = moved.objects[0].points  # the crop is drawn around it
    assert pixels[int(point.y), int(point.x)].tolist() == [255, 255, 255]
    assert point.box == (point.x - 0.5, point.y - 0.5, point.x + 0.5, point.y + 0.5)
    assert point.part == ("right_eye" if mirror else "left_eye")


def test_what_a_crop_leaves_out_is_dropped():
    far = AnnotatedObject("cat", (50, 50, 60, 60), (PartPoint("nose", 55, 55),))
    near = AnnotatedObject(
        "dog", (5, 5, 40, 40), (PartPoint("nose", 10, 10), PartPoint("tailbase", 35, 35))
    )
    moved = view(Photo("a", "a", (64, 64), (far, near)), (0, 0, 20, 20))
    [annotated] = moved.objects
    assert annotated.box == (5, 5, 20, 20) and [p.part for p in annotated.points] == ["nose"]


def test_mirrored_names():
    assert (
        mirrored_part("left_front_paw") == "right_front_paw"
        and mirrored_part("front_right_door") == "front_left_door"
    )
    assert mirrored_part("nose") == "nose"


def test_a_mask_moves_with_the_pixels():
    rng = np.random.default_rng(0)
    for _ in range(200):
        width, height = rng.integers(4, 30, 2)
        whole = np.zeros((height, width), bool)
        x1, y1 = rng.uniform(0, width - 2), rng.uniform(0, height - 2)
        x2, y2 = rng.uniform(x1 + 1, width), rng.uniform(y1 + 1, height)
        inside = np.s_[int(y1) : int(np.ceil(y2)), int(x1) : int(np.ceil(x2))]
        whole[inside] = rng.random(whole[inside].shape) < 0.5
        part = Part("left_ear", (x1, y1, x2, y2), whole[inside])
        photo = Photo(
            "a", "a", (width, height), (AnnotatedObject("dog", (0, 0, width, height), (), (part,)),)
        )
        crop, mirror = random_view(photo, rng)
        moved = view(photo, crop, mirror)
        expected = whole[crop[1] : crop[3], crop[0] : crop[2]]
        expected = expected[:, ::-1] if mirror else expected
        box = min(x2, crop[2]) - max(x1, crop[0]), min(y2, crop[3]) - max(y1, crop[1])
        if min(box) < 1 or not expected.any():
            assert all(not o.parts for o in moved.objects)
            continue
        [seen] = moved.objects[0].parts
        left, top, right, bottom = seen.pixel_box
        found = np.zeros_like(expected)
        found[top:bottom, left:right] = seen.mask
        assert (found == expected).all() and seen.name == ("right_ear" if mirror else "left_ear")
        assert np.allclose((seen.box[2] - seen.box[0], seen.box[3] - seen.box[1]), box)


def test_a_part_of_which_less_than_a_pixel_is_seen_is_dropped():
    parts = (Part("ear", (0, 0, 10.5, 10)), Part("tail", (5, 5, 20, 20)))
    photo = Photo("a", "a", (30, 30), (AnnotatedObject("dog", (0, 0, 30, 30), (), parts),))
    [seen] = view(photo, (10, 0, 30, 30)).objects[0].parts
    assert (seen.name, seen.box, seen.mask) == ("tail", (0, 5, 10, 20), None)


def test_a_mask_must_fit_its_box():
    assert Part("ear", (1.2, 2, 3.1, 4.9), np.ones((3, 3), bool)).pixel_box == (1, 2, 4, 5)
    for mask in (np.ones((2, 3), bool), np.ones((3, 3), np.uint8)):
        with pytest.raises(ValueError, match="'ear'.*expected bool of shape"):
            Part("ear", (1.2, 2, 3.1, 4.9), mask)


def test_a_given_split_is_kept():
    assert [
        Photo("a", "a", (1, 1), (), s).split for s in ("train", "val", "validation", "test")
    ] == ["train", *["validation"] * 2, "test"]
    assert Photo("a", "a", (1, 1), ()).split == split_of("a")
    with pytest.raises(ValueError, match="'dev'"):
        Photo("a", "a", (1, 1), (), "dev")


@pytest.mark.parametrize("ending", ["jpg", "png"])
def test_a_broken_file_is_named(tmp_path, ending):
    path = tmp_path / f"a.{ending}"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(
        path
    )
    photo = Photo(f"a.{ending}", str(path), (64, 64), ())
    assert photo.open().size == (64, 64)
    content = path.read_bytes()
    for length in (len(content) // 2, 10, 0):
        path.write_bytes(content[:length])
        with pytest.raises(OSError, match=rf"a\.{ending} cannot be read as an image"):
            photo.open()
    path.unlink()
    with pytest.raises(FileNotFoundError, match=rf"a\.{ending}"):
        photo.open()


AP10K = {
    "images": [
        {
            "license": 1,
            "id": 1,
            "file_name": "000000000001.jpg",
            "width": 40,
            "height": 30,
            "background": 1,
        },
        {
            "license": 1,
            "id": 2,
            "file_name": "000000000002.jpg",
            "width": 40,
            "height": 30,
            "background": 1,
        },
        {
            "license": 1,
            "id": 3,
            "file_name": "000000000003.jpg",
            "width": 40,
            "height": 30,
            "background": 1,
        },
    ],
    "annotations": [
        {
            "id": 1,
            "image_id": 2,
            "category_id": 1,
            "bbox": [1, 2, 20, 10],
            "area": 200,
            "iscrowd": 0,
            "num_keypoints": 2,
        }
        | {"keypoints": [5, 6, 2, 0, 0, 0, 39, 29, 1]},
        {
            "id": 2,
            "image_id": 1,
            "category_id": 8,
            "bbox": [0, 0, 40, 30],
            "area": 1200,
            "iscrowd": 0,
            "num_keypoints": 1,
        }
        | {"keypoints": [0, 0, 2, 0, 0, 0, 0, 0, 0]},
        {
            "id": 3,
            "image_id": 2,
            "category_id": 8,
            "bbox": [9, 9, 4, 4],
            "area": 16,
            "iscrowd": 0,
            "num_keypoints": 0,
        }
        | {"keypoints": [0] * 9},
        {
            "id": 4,
            "image_id": 2,
            "category_id": 8,
            "bbox": [0, 0, 40, 30],
            "area": 16,
            "iscrowd": 1,
            "keypoints": [0] * 9,
        },
    ],
    "categories": [
        {
            "id": 1,
            "name": "antelope",
            "supercategory": "Bovidae",
            "keypoints": ["left_eye", "right_eye", "nose"],
            "skeleton": [[1, 2]],
        },
        {
            "id": 8,
            "name": "dog",
            "supercategory": "Canidae",
            "keypoints": ["L_Eye", "R_F_Paw", "TailBase"],
            "skeleton": [[1, 2]],
        },
    ],
}
PART_IMAGE_NET = {
    "images": [{"id": 1, "file_name": "n02099601_3004.JPEG", "width": 20, "height": 10}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 0, "bbox": [2, 1, 4, 3], "area": 12, "iscrowd": 0}
        | {"segmentation": [[2, 1, 6, 1, 6, 4, 2, 4], [3, 3, 5, 3]]},
        {
            "id": 2,
            "image_id": 1,
            "category_id": 1,
            "bbox": [5, 2, 10.5, 6],
            "area": 63,
            "iscrowd": 0,
        },
        {"id": 3, "image_id": 1, "category_id": 0, "bbox": [16, 8, 2, 1], "area": 2, "iscrowd": 0}
        | {"segmentation": {"size": [10, 20], "counts": [168, 1, 9, 1, 21]}},
        {
            "id": 4,
            "image_id": 1,
            "category_id": 2,
            "bbox": [0, 0, 1, 1],
            "area": 1,
            "iscrowd": 0,
            "segmentation": [[0, 0, 1, 0, 1, 1, 0, 1]],
        },
    ],
    "categories": [
        {"id": 0, "name": "Quadruped Head", "supercategory": "Quadruped"},
        {"id": 1, "name": "Quadruped Body", "supercategory": "Quadruped"},
        {"id": 2, "name": "Car Side Mirror", "supercategory": "Car"},
    ],
}


def coco_folder(folder, content, by_synset=False):
    """A COCO file and its images, each black."""
    for record in content["images"]:
        path = (
            folder
            / "data"
            / (record["file_name"].partition("_")[0] if by_synset else "")
            / record["file_name"]
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (record["width"], record["height"])).save(path)
    (folder / "train.json").write_text(json.dumps(content))
    return folder / "train.json", folder / "data"


def test_coco_keypoints_are_the_centres_of_their_pixels(tmp_path):
    first, second = read_coco_keypoints(*coco_folder(tmp_path, AP10K), split="val")
    assert (first.id, first.size, first.split, first.open().size) == (
        "000000000001.jpg",
        (40, 30),
        "validation",
        (40, 30),
    )
    assert first.objects == (
        AnnotatedObject("dog", (0, 0, 40, 30), (PartPoint("left_eye", 0.5, 0.5),)),
    )
    antelope, dog = second.objects  # the crowd is none; the third photo has none
    assert antelope == AnnotatedObject(
        "antelope", (1, 2, 21, 12), (PartPoint("left_eye", 5.5, 6.5), PartPoint("nose", 39.5, 29.5))
    )
    assert dog == AnnotatedObject("dog", (9, 9, 13, 13))


def test_animal_pose_names_are_spelled_out(tmp_path):
    content = json.loads(json.dumps(AP10K))
    content["annotations"][1]["keypoints"] = [1, 1, 2] * 3
    first, _ = read_coco_keypoints(*coco_folder(tmp_path, content))
    assert [p.part for p in first.objects[0].points] == [
        "left_eye",
        "right_front_paw",
        "tailbase",
    ] and first.given_split is None


def test_part_image_net(tmp_path):
    for by_synset in (True, False):
        folder = tmp_path / str(by_synset)
        folder.mkdir()
        [photo] = read_coco_parts(*coco_folder(folder, PART_IMAGE_NET, by_synset), split="train")
        assert photo.split == "train" and photo.open().size == photo.size == (20, 10)
    quadruped, car = photo.objects
    assert (quadruped.category, quadruped.box, quadruped.points) == ("quadruped", (2, 1, 18, 9), ())
    assert [(p.name, p.box) for p in quadruped.parts] == [
        ("head", (2, 1, 6, 4)),
        ("body", (5, 2, 15.5, 8)),
        ("head", (16, 8, 18, 9)),
    ]
    assert (
        quadruped.parts[0].mask.all()
        and quadruped.parts[1].mask is None
        and quadruped.parts[2].mask.tolist() == [[True, True]]
    )
    assert (car.category, car.parts[0].name) == ("car", "side mirror")


def changed(content, place, value):
    """A copy of a JSON content with another value at a place, or without it where the value is `...`."""
    content = json.loads(json.dumps(content))
    *path, last = place
    owner = content
    for key in path:
        owner = owner[key]
    if value is ...:
        del owner[last]
    else:
        owner[last] = value
    return content


@pytest.mark.parametrize(
    "place, value, message",
    [
        (["images"], ..., r"train.json: field 'images': expected list, found no such field"),
        (["annotations"], {}, r"train.json: field 'annotations': expected list, found \{\}"),
        (["categories"], None, r"field 'categories': expected list, found None"),
        (
            ["categories", 1, "id"],
            1,
            r"categories\[1\]: field 'id': expected an id that no other category has, found 1",
        ),
        (["categories", 0, "name"], 5, r"categories\[0\]: field 'name': expected str, found 5"),
        (["categories", 0, "name"], "a\udce9", r"categories\[0\]: field 'name': expected UTF-8"),
        (
            ["categories", 1, "keypoints"],
            ...,
            r"categories\[1\]: field 'keypoints': expected list, found no such field",
        ),
        (
            ["categories", 1, "keypoints"],
            [1, 2, 3],
            r"categories\[1\]: field 'keypoints': expected names",
        ),
        (
            ["annotations", 0],
            "dog",
            r"annotations\[0\]: expected an object with field 'category_id', found 'dog'",
        ),
        (
            ["annotations", 0, "category_id"],
            77,
            r"annotations\[0\]: field 'category_id': expected one of the 2 known ids, found 77",
        ),
        (
            ["annotations", 0, "image_id"],
            "1",
            r"annotations\[0\]: field 'image_id': expected int, found '1'",
        ),
        (
            ["annotations", 0, "keypoints"],
            [5, 6, 2, 1],
            r"annotations\[0\]: field 'keypoints': expected a list of 9 numbers, found \[5",
        ),
        (
            ["annotations", 0, "keypoints"],
            ["5"] * 9,
            r"annotations\[0\]: field 'keypoints': expected a list of 9 numbers",
        ),
        (
            ["annotations", 0, "bbox"],
            [1, 2, 3],
            r"annotations\[0\]: field 'bbox': expected a list of 4 numbers, found \[1, 2, 3\]",
        ),
        (
            ["annotations", 0, "bbox"],
            ...,
            r"annotations\[0\]: field 'bbox': expected list, found no such field",
        ),
        (
            ["images", 1, "width"],
            0,
            r"images\[1\]: field 'width, height': expected at least 1, found \(0, 30\)",
        ),
        (["images", 1, "height"], "30", r"images\[1\]: field 'height': expected int, found '30'"),
    ],
)
def test_a_coco_file_that_does_not_fit_names_file_field_expected_and_found(
    tmp_path, place, value, message
):
    file, images = coco_folder(tmp_path, AP10K)
    file.write_text(json.dumps(changed(AP10K, place, value)))
    with pytest.raises(ValueError, match=message):
        rejected(read_coco_keypoints, file, images)


def test_a_coco_file_that_is_no_json_is_an_error(tmp_path):
    (tmp_path / "train.json").write_text('{"images": [')
    with pytest.raises(ValueError, match="train.json: expected JSON, found Expecting"):
        list(read_coco_keypoints(tmp_path / "train.json", tmp_path))
    with pytest.raises(FileNotFoundError, match="val.json"):
        list(read_coco_keypoints(tmp_path / "val.json", tmp_path))


@pytest.mark.parametrize(
    "place, value, image_id, reason",
    [
        (
            ["annotations", 0, "bbox"],
            [1, 2, -20, 10],
            "000000000002.jpg",
            r"antelope: box .* has no area",
        ),
        (
            ["annotations", 0, "bbox"],
            [1, 2, 20, 0],
            "000000000002.jpg",
            r"antelope: box .* has no area",
        ),
        (
            ["annotations", 0, "bbox"],
            [30, 2, 20, 10],
            "000000000002.jpg",
            r"box .* lies outside the photo of 40 x 30 pixels",
        ),
        (["annotations", 0, "bbox"], [1, 2, float("nan"), 10], "000000000002.jpg", r"has no area"),
        (
            ["annotations", 0, "keypoints", 6],
            40,
            "000000000002.jpg",
            r"nose at \(40.5, 29.5\) lies outside the photo",
        ),
        (
            ["annotations", 0, "keypoints", 1],
            -3,
            "000000000002.jpg",
            r"left_eye at \(5.5, -2.5\) lies outside the photo",
        ),
        (["annotations", 1, "keypoints", 2], 0, "000000000001.jpg", r"no point and no part"),
        (
            ["annotations", 1, "id"],
            1,
            "image id 1",
            r"annotations\[1\]: annotation id 1 has come before",
        ),
        (["annotations", 1, "image_id"], 9, "image id 9", r"annotates it but does not list it"),
        (
            ["images", 1, "id"],
            1,
            "000000000002.jpg",
            r"images\[1\]: its id 1 or its name has come before",
        ),
        (
            ["images", 1, "file_name"],
            "000000000001.jpg",
            "000000000001.jpg",
            r"its id 2 or its name has come before",
        ),
        (["images", 0, "file_name"], "gone.jpg", "gone.jpg", r"gone.jpg does not exist"),
        (["images", 0, "file_name"], "\udce9.jpg", "\\udce9.jpg", r"its name is not UTF-8"),
    ],
)
def test_a_bad_record_of_a_coco_file_is_rejected_and_the_rest_read(
    tmp_path, place, value, image_id, reason
):
    file, images = coco_folder(tmp_path, AP10K)
    file.write_text(json.dumps(changed(AP10K, place, value)))
    photos, rows = rejected(read_coco_keypoints, file, images)
    assert image_id in [row[0] for row in rows] and photos
    with pytest.raises(ValueError, match=reason):
        list(read_coco_keypoints(file, images))


def test_a_name_in_bytes_that_are_not_utf8_is_rejected(tmp_path):
    file, images = coco_folder(tmp_path, AP10K)
    file.write_bytes(file.read_bytes().replace(b"000000000001.jpg", b"\xe9.jpg"))
    photos, rows = rejected(read_coco_keypoints, file, images)
    assert len(photos) == 1 and rows == [("\\udce9.jpg", "its name is not UTF-8")]
    json.dumps(rows).encode()


@pytest.mark.parametrize(
    "place, value, reason",
    [
        (
            ["annotations", 0, "bbox"],
            [2, 1, 40, 3],
            r"annotations\[0\]: box .* lies outside the photo of 20 x 10 pixels",
        ),
        (["annotations", 0, "bbox"], [2, 1, 4, -3], r"annotations\[0\]: box .* has no area"),
        (
            ["annotations", 0, "segmentation"],
            [],
            r"annotations\[0\]: its segmentation covers no pixel",
        ),
        (
            ["annotations", 0, "segmentation"],
            [[2, 1, 6, 1]],
            r"annotations\[0\]: its segmentation covers no pixel",
        ),
        (
            ["annotations", 0, "segmentation"],
            [[2, 1, 6, 1, 6]],
            r"expected polygons as lists x1, y1",
        ),
        (
            ["annotations", 0, "segmentation"],
            [2, 1, 6, 1, 6, 4],
            r"expected polygons as lists x1, y1",
        ),
        (["annotations", 0, "segmentation"], None, r"expected polygons or run lengths, found None"),
        (
            ["annotations", 0, "segmentation"],
            [[2, 1, 60, 1, 6, 4]],
            r"polygon .* lies outside the photo",
        ),
        (
            ["annotations", 0, "segmentation"],
            [[2, 1, float("nan"), 1, 6, 4]],
            r"polygon .* lies outside the photo",
        ),
        (
            ["annotations", 2, "segmentation", "size"],
            [20, 10],
            r"size: expected \[10, 20\], found \[20, 10\]",
        ),
        (
            ["annotations", 2, "segmentation", "counts"],
            [168, 1, 9, 1],
            r"counts: expected runs of 200 pixels in all",
        ),
        (
            ["annotations", 2, "segmentation", "counts"],
            [210, -10],
            r"counts: expected runs of 200 pixels in all",
        ),
        (["annotations", 2, "segmentation", "counts"], "\x7f", r"none of COCO's run lengths"),
        (
            ["annotations", 2, "segmentation", "counts"],
            "1",
            r"counts: expected runs of 200 pixels in all",
        ),
        (["annotations", 2, "segmentation", "counts"], [200], r"its segmentation covers no pixel"),
    ],
)
def test_a_bad_part_is_rejected_and_the_rest_read(tmp_path, place, value, reason):
    file, images = coco_folder(tmp_path, changed(PART_IMAGE_NET, place, value))
    [photo], [row] = rejected(read_coco_parts, file, images)
    assert row[0] == photo.id and [p.name for p in photo.objects[0].parts] == (
        ["head", "body"] if place[1] else ["body", "head"]
    )
    with pytest.raises(ValueError, match=reason):
        list(read_coco_parts(file, images))


def test_parts_need_a_supercategory_and_a_name_beside_it(tmp_path):
    for value, message in (
        (..., "field 'supercategory': expected str"),
        ("Quadruped Head", "field 'name': expected the name of a part"),
    ):
        file, images = coco_folder(
            tmp_path, changed(PART_IMAGE_NET, ["categories", 0, "supercategory"], value)
        )
        with pytest.raises(ValueError, match=message):
            list(read_coco_parts(file, images))


def packed(counts):
    """COCO's string of run lengths."""
    text = ""
    for i, count in enumerate(counts):
        number = count - counts[i - 2] if i > 2 else count
        while True:
            group, number = number & 31, number >> 5
            last = number == (-1 if group & 16 else 0)
            text += chr(48 + group + (0 if last else 32))
            if last:
                break
    return text


@given(st.data())
def test_run_lengths_are_read_down_the_columns(data):
    width, height = data.draw(st.integers(1, 60)), data.draw(st.integers(1, 60))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**31)))
    mask = rng.random((height, width)) < data.draw(st.sampled_from([0, 0.02, 0.5, 1]))
    flat = mask.T.ravel()
    edges = np.flatnonzero(np.diff(flat.astype(int), prepend=0)).tolist()
    counts = np.diff([0, *edges, flat.size]).tolist()
    for form in (counts, packed(counts)):
        assert (
            segmentation_mask({"size": [height, width], "counts": form}, (width, height)) == mask
        ).all()


def test_a_packed_run_length_by_hand():
    # 300 = 12 + 9 * 32: groups 12 (more follow) and 9; then 5; 95 = 31 + 2 * 32; then 7 and -2, the differences to 5 and 95
    groups = [12 + 32, 9, 5, 31 + 32, 2, 7, 30]
    mask = segmentation_mask(
        {"size": [101, 5], "counts": "".join(chr(48 + group) for group in groups)}, (5, 101)
    )
    flat = mask.T.ravel()
    assert (
        np.flatnonzero(flat).tolist() == [*range(300, 305), *range(400, 412)] and flat.size == 505
    )


@given(st.data())
def test_a_polygon_holds_the_pixels_whose_centre_it_holds(data):
    width, height = data.draw(st.integers(1, 12)), data.draw(st.integers(1, 12))
    coordinate = st.floats(-1, 13).map(lambda v: round(v, 2))
    corners = np.array(
        data.draw(st.lists(st.tuples(coordinate, coordinate), min_size=3, max_size=6))
    )
    mask = polygon_mask(corners, (width, height))
    for y, x in np.argwhere(np.ones_like(mask)) + 0.5:
        inside, on_an_edge = False, False
        for (x1, y1), (x2, y2) in zip(corners, np.roll(corners, 1, axis=0)):
            if (y1 > y) != (y2 > y):
                crossing = x1 + (y - y1) / (y2 - y1) * (x2 - x1)
                inside ^= bool(x < crossing)
                on_an_edge |= bool(abs(x - crossing) < 1e-9)
        assert on_an_edge or mask[int(y), int(x)] == inside


def test_polygons_that_share_an_edge_share_no_pixel():
    rng = np.random.default_rng(0)
    for _ in range(50):
        x, y = rng.integers(0, 13, 2)
        corners = np.array([(0, 0), (12, 0), (12, 12), (0, 12)])
        masks = [
            polygon_mask(np.array([corners[i], corners[(i + 1) % 4], (x, y)]), (12, 12))
            for i in range(4)
        ]
        assert (np.sum(masks, 0) == 1).all()


OBJECTS = ["aeroplane", "cat", "dog"]
PARTS = ["aeroplane's wing", "cat's head", "cat's leg", "dog's head", "dog's license plate"]


def save_map(path, labels, dtype=np.uint8):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.array(labels, dtype=dtype)).save(path)


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
    for split, name in (("train", "2008_000008"), ("val", "2008_000009")):
        save_map(folder / "annotations_detectron2_obj" / split / f"{name}.png", objects)
        save_map(folder / "annotations_detectron2_part" / split / f"{name}.png", parts)
        (folder / "images" / split).mkdir(parents=True)
        Image.new("RGB", (20, 12)).save(folder / "images" / split / f"{name}.jpg")
    (folder / "train_16shot.json").write_text("[]")
    return folder


def test_pascal_part_116(tmp_path):
    photos = list(read_part_label_maps(pascal_folder(tmp_path), OBJECTS, PARTS))
    assert [(p.id, p.split, p.size) for p in photos] == [
        ("2008_000008.jpg", "train", (20, 12)),
        ("2008_000009.jpg", "validation", (20, 12)),
    ]
    cat, second, dog = photos[0].objects
    assert (cat.category, cat.box, second.category, second.box) == (
        "cat",
        (1, 1, 7, 9),
        "cat",
        (14, 2, 18, 6),
    )
    assert (dog.category, dog.box) == ("dog", (7, 1, 10, 9))
    assert [(p.name, p.box) for p in cat.parts] == [
        ("head", (1, 1, 5, 4)),
        ("leg", (1, 6, 3, 9)),
        ("leg", (5, 6, 7, 9)),
    ]
    assert [(p.name, p.box) for p in dog.parts + second.parts] == [
        ("head", (7, 2, 10, 5)),
        ("head", (15, 2, 18, 4)),
    ]
    assert dog.parts[0].mask.astype(int).tolist() == [[1, 1, 0], [1, 1, 0], [0, 0, 1]]
    assert all(p.mask.all() for o in (cat, second) for p in o.parts) and photos[0].open().size == (
        20,
        12,
    )
    pickle.dumps(photos)


def ade20k_folder(folder):
    """ADE20K-Part-234: two dogs that touch, one of them before a cat whose head is seen inside its outline."""
    parts = np.full((12, 20), 65535)
    parts[2:5, 2:6] = 3
    parts[2:5, 9:12] = 3
    parts[7:9, 3:5] = 1
    parts[9:11, 9:11] = 4
    annotations = [
        {
            "id": 1,
            "image_id": 5,
            "category_id": 2,
            "bbox": [1, 1, 7, 9],
            "part_category_id": [3],
            "iscrowd": 0,
        }
        | {"segmentation": [[1, 1, 8, 1, 8, 10, 1, 10]]},
        {
            "id": 2,
            "image_id": 5,
            "category_id": 2,
            "bbox": [8, 1, 6, 11],
            "part_category_id": [3, 4],
            "iscrowd": 0,
        }
        | {"segmentation": [[8, 1, 14, 1, 14, 12, 8, 12]]},
        {
            "id": 3,
            "image_id": 5,
            "category_id": 0,
            "iscrowd": 0,
            "segmentation": [[15, 1, 19, 1, 19, 5]],
        },
    ]
    for name, short, image in (
        ("training", "train", "ADE_train_00000001"),
        ("validation", "val", "ADE_val_00000002"),
    ):
        save_map(folder / "annotations_detectron2_part" / name / f"{image}.png", parts, np.uint16)
        (folder / "images" / name).mkdir(parents=True)
        Image.new("RGB", (20, 12)).save(folder / "images" / name / f"{image}.jpg")
        images = [{"id": 5, "file_name": f"{image}.jpg", "width": 20, "height": 12}]
        (folder / f"ade20k_instance_{short}.json").write_text(
            json.dumps({"images": images, "annotations": annotations})
        )
    return folder


def test_ade20k_part_234(tmp_path):
    first, second = read_part_label_maps(ade20k_folder(tmp_path), OBJECTS, PARTS)
    assert [(p.id, p.split) for p in (first, second)] == [
        ("ADE_train_00000001.jpg", "train"),
        ("ADE_val_00000002.jpg", "validation"),
    ]
    left, right, plane = first.objects
    assert [(o.category, o.box) for o in (left, right)] == [
        ("dog", (1, 1, 8, 10)),
        ("dog", (8, 1, 14, 12)),
    ]
    assert [(p.name, p.box) for p in left.parts] == [
        ("head", (2, 2, 6, 5))
    ]  # the cat's head is not the dog's
    assert [(p.name, p.box) for p in right.parts] == [
        ("head", (9, 2, 12, 5)),
        ("license plate", (9, 9, 11, 11)),
    ]
    assert (plane.category, plane.parts) == ("aeroplane", ())


def test_label_maps_with_other_names_are_an_error(tmp_path):
    folder = pascal_folder(tmp_path)
    with pytest.raises(
        ValueError,
        match="2008_000008.png: field 'label': expected below 3, the number of names given, or 255, found 3",
    ):
        list(read_part_label_maps(folder, OBJECTS, PARTS[:3]))
    for name in ("bird's head", "head", "dog's "):
        with pytest.raises(ValueError, match=f"part_names: .*{name}"):
            list(read_part_label_maps(folder, OBJECTS, [*PARTS, name]))
    file = folder / "annotations_detectron2_part" / "train" / "2008_000008.png"
    Image.new("RGB", (20, 12)).save(file)
    with pytest.raises(
        ValueError,
        match="2008_000008.png: field 'mode': expected one channel of 8 or 16 bit, found 'RGB'",
    ):
        list(read_part_label_maps(folder, OBJECTS, PARTS))
    with pytest.raises(
        ValueError,
        match="expected annotations_detectron2_obj, of Pascal-Part-116, or .* found neither",
    ):
        list(read_part_label_maps(folder / "images", OBJECTS, PARTS))


def break_pascal(folder, what):
    part, whole = (
        folder / f"annotations_detectron2_{kind}" / "train" / "2008_000008.png"
        for kind in ("part", "obj")
    )
    if what == "no image":
        (folder / "images" / "train" / "2008_000008.jpg").unlink()
    elif what == "no object map":
        whole.unlink()
    elif what == "truncated map":
        part.write_bytes(part.read_bytes()[:50])
    elif what == "other size":
        save_map(whole, np.full((12, 21), 1))
    elif what == "no part":
        save_map(part, np.full((12, 20), 255))
    else:
        part.rename(part.parent / "\udce9.png")


@pytest.mark.parametrize(
    "what, reason",
    [
        ("no image", "2008_000008.jpg does not exist"),
        ("no object map", "2008_000008.png does not exist"),
        ("truncated map", "2008_000008.png cannot be read as an image"),
        ("other size", r"size: expected \(21, 12\) of its object map, found \(20, 12\)"),
        ("no part", "no point and no part is annotated"),
        ("name", "its name is not UTF-8"),
    ],
)
def test_a_bad_label_map_is_rejected_and_the_rest_read(tmp_path, what, reason):
    break_pascal(pascal_folder(tmp_path), what)
    [photo], [row] = rejected(read_part_label_maps, tmp_path, OBJECTS, PARTS)
    assert photo.id == "2008_000009.jpg" and row[0] == (
        "\\udce9.png" if what == "name" else "2008_000008.jpg"
    )
    with pytest.raises(ValueError, match=reason):
        list(read_part_label_maps(tmp_path, OBJECTS, PARTS))


def test_bad_records_of_ade20k_are_rejected(tmp_path):
    folder = ade20k_folder(tmp_path)
    file, part_file = (
        folder / "ade20k_instance_train.json",
        folder / "annotations_detectron2_part/training/ADE_train_00000001.png",
    )
    content = json.loads(file.read_text())
    file.write_text(json.dumps(changed(content, ["annotations", 0, "segmentation"], ...)))
    (first, _), [row] = rejected(read_part_label_maps, folder, OBJECTS, PARTS)
    assert (
        len(first.objects) == 2
        and "annotations[0]: segmentation: expected polygons or run lengths, found None" in row[1]
    )
    file.write_text(json.dumps(content))
    save_map(part_file, np.full((12, 21), 65535), np.uint16)
    assert rejected(read_part_label_maps, folder, OBJECTS, PARTS)[1][0][1].startswith(
        "size: expected (20, 12)"
    )
    part_file.unlink()
    [photo], [row] = rejected(read_part_label_maps, folder, OBJECTS, PARTS)
    assert (
        photo.split == "validation"
        and row[0] == "ADE_train_00000001.jpg"
        and row[1].endswith("ADE_train_00000001.png does not exist")
    )
    file.write_text(json.dumps(changed(content, ["annotations", 0, "category_id"], 3)))
    with pytest.raises(
        ValueError, match="field 'category_id': expected one of the 3 known ids, found 3"
    ):
        list(read_part_label_maps(folder, OBJECTS, PARTS))


def stored(size=(40, 20), orientation=1, cut=None):
    """An image as a dataset stores it."""
    buffer, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = orientation
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, "JPEG", exif=exif)
    return {"bytes": buffer.getvalue()[:cut], "path": None}


def as_dataset(*rows):
    columns = {
        name: [row.get(name) for row in rows]
        for name in dict.fromkeys(name for row in rows for name in row)
    }
    return datasets.Dataset.from_dict(columns).cast_column("image", datasets.Image())


EYE = {"part": "left_eye", "x": 5.0, "y": 6.0, "box": [4.0, 5.0, 7.0, 8.0]}
NOSE = {"part": "nose", "x": 9.0, "y": 6.0, "box": None}
DOG = {
    "category": "dog",
    "box": [1.0, 2.0, 30.0, 18.0],
    "points": [EYE, NOSE],
    "parts": [{"name": "head", "box": [1.0, 2.0, 12.0, 9.0]}],
}


def test_a_dataset_of_photos(tmp_path):
    dataset = as_dataset(
        {"image": stored(), "image_id": "a.jpg", "split": "validation", "objects": [DOG]},
        {
            "image": stored((20, 40), orientation=6),
            "image_id": "b.jpg",
            "split": None,
            "objects": [{**DOG, "points": []}],
        },
    )
    dataset.save_to_disk(tmp_path)
    for source in (dataset, datasets.load_from_disk(tmp_path).with_format("numpy")):
        first, second = read_dataset(source, split="test")
        assert (first.id, first.path, first.size, first.split) == (
            "a.jpg",
            None,
            (40, 20),
            "validation",
        ) and second.split == "test"
        [dog] = first.objects
        assert (dog.category, dog.box) == ("dog", (1, 2, 30, 18))
        assert dog.points == (PartPoint("left_eye", 5, 6, (4, 5, 7, 8)), PartPoint("nose", 9, 6))
        assert [(p.name, p.box, p.mask) for p in dog.parts] == [("head", (1, 2, 12, 9), None)]
        assert second.size == second.open().size == (40, 20)
        again = pickle.loads(pickle.dumps(first))
        assert again.objects[0].points == dog.points and again.open().getpixel(
            (5, 5)
        ) == first.open().getpixel((5, 5))


def test_a_dataset_of_photos_without_ids_and_splits():
    rows = [
        {
            "image": stored(),
            "objects": [
                {
                    "category": "dog",
                    "box": [1, 2, 30, 18],
                    "points": [{"part": "nose", "x": 3, "y": 4}],
                }
            ],
        }
    ]
    [photo] = read_dataset(as_dataset(*rows))
    assert (photo.id, photo.given_split, photo.split) == ("0", None, split_of("0"))
    assert photo.objects == (AnnotatedObject("dog", (1, 2, 30, 18), (PartPoint("nose", 3, 4),)),)


def test_a_dataset_of_points():
    def row(image_id, category, part, point, style, part_box=None):
        box = [1.0, 2.0, 30.0, 18.0] if category == "dog" else [0.0, 0.0, 9.0, 9.0]
        annotation = {
            "object": category,
            "object_box": box,
            "part": part,
            "part_box": part_box,
            "point": point,
        }
        return {
            "image": stored(),
            "image_id": image_id,
            "description": "…",
            "style": style,
            **annotation,
        }

    dataset = as_dataset(
        row("a.jpg", "dog", "nose", [5.5, 6.5], "full"),
        row("a.jpg", "dog", "nose", [5.5, 6.5], "terse"),
        row("a.jpg", "cat", "tail", [3.5, 4.5], "full", [2.0, 2.0, 5.0, 6.0]),
        row("b.jpg", "dog", "nose", [1.5, 1.5], "full"),
        row("a.jpg", "dog", "tail", [8.5, 9.5], "full"),
    )
    first, second = read_dataset(dataset, split="train")
    assert (first.id, second.id, first.split, first.open().size) == (
        "a.jpg",
        "b.jpg",
        "train",
        (40, 20),
    )
    assert first.objects == (
        AnnotatedObject(
            "dog", (1, 2, 30, 18), (PartPoint("nose", 5.5, 6.5), PartPoint("tail", 8.5, 9.5))
        ),
        AnnotatedObject("cat", (0, 0, 9, 9), (PartPoint("tail", 3.5, 4.5, (2, 2, 5, 6)),)),
    )


def test_bad_rows_of_a_dataset_are_rejected():
    dataset = as_dataset(
        {"image": stored(), "image_id": "a.jpg", "objects": [DOG]},
        {"image": stored(), "image_id": "a.jpg", "objects": [DOG]},
        {"image": None, "image_id": "b.jpg", "objects": [DOG]},
        {"image": stored(cut=30), "image_id": "c.jpg", "objects": [DOG]},
        {"image": stored(), "image_id": "d.jpg", "objects": []},
        {
            "image": stored(),
            "image_id": "e.jpg",
            "objects": [{**DOG, "parts": [{"name": "head", "box": [1.0, 2.0, 50.0, 9.0]}]}],
        },
        {"image": stored(cut=-40), "image_id": "f.jpg", "objects": [DOG]},
    )
    photos, rows = rejected(read_dataset, dataset)
    assert [p.id for p in photos] == ["a.jpg", "e.jpg", "f.jpg"] and photos[1].objects[
        0
    ].parts == ()
    reasons = [
        "its id has come before",
        "has no image",
        "image cannot be read",
        "no point and no part",
        "head: box",
    ]
    assert [row[0] for row in rows] == ["a.jpg", "b.jpg", "c.jpg", "d.jpg", "e.jpg"]
    assert all(reason in row[1] for reason, row in zip(reasons, rows))
    with pytest.raises(OSError, match="f.jpg cannot be read as an image"):
        photos[2].open()


@pytest.mark.parametrize(
    "row, message",
    [
        (
            {"objects": [{"category": 3, "box": [1.0, 2.0, 3.0, 4.0]}]},
            r"row 0, objects\[0\]: field 'category': expected str, found 3",
        ),
        (
            {"objects": [{"category": "dog", "box": [1.0, 2.0, 3.0]}]},
            r"row 0, objects\[0\]: field 'box': expected a list of 4 numbers",
        ),
        (
            {"objects": {"category": ["dog"], "box": [[1.0]]}},
            r"row 0: field 'objects': expected list, found \{'box'",
        ),
        (
            {
                "objects": [
                    {
                        "category": "dog",
                        "box": [1, 2, 3, 4],
                        "points": [{"part": "eye", "x": "1", "y": 2}],
                    }
                ]
            },
            "'x': expected a number",
        ),
        (
            {"image_id": "a.jpg", "point": [1, 2], "object": "dog", "object_box": [1, 2, 3, 4]},
            "field 'part': expected a column of this name",
        ),
        (
            {
                "image_id": "a.jpg",
                "point": [1],
                "object": "dog",
                "object_box": [1, 2, 3, 4],
                "part": "eye",
            },
            "'point': expected a list of 2",
        ),
    ],
)
def test_a_dataset_that_does_not_fit_is_an_error(row, message):
    with pytest.raises(ValueError, match=message):
        rejected(read_dataset, as_dataset({"image": stored(), **row}))


def test_a_dataset_without_images_is_an_error():
    with pytest.raises(ValueError, match="dataset: field 'image': expected a column of this name"):
        list(read_dataset(datasets.Dataset.from_dict({"objects": [[]]})))
