"""COCO keypoints and parts."""

import copy
import json
import tracemalloc

import pytest
from reading import GONE, changed, coco_folder, rejected

from hf_talking_points.data.photos import AnnotatedObject, PartPoint
from hf_talking_points.data.sources import read_coco_keypoints, read_coco_parts

NOT_A_NUMBER = float("nan")


def image(number, name, size=(40, 30)):
    width, height = size
    return {
        "license": 1,
        "id": number,
        "file_name": name,
        "width": width,
        "height": height,
    }


def annotation(number, image_id, category_id, bbox, **fields):
    record = {
        "id": number,
        "image_id": image_id,
        "category_id": category_id,
        "bbox": bbox,
    }
    return {**record, "area": bbox[2] * bbox[3], "iscrowd": 0, **fields}


AP10K = {
    "images": [
        image(1, "000000000001.jpg"),
        image(2, "000000000002.jpg"),
        image(3, "000000000003.jpg"),
    ],
    "annotations": [
        annotation(1, 2, 1, [1, 2, 20, 10], keypoints=[5, 6, 2, 0, 0, 0, 39, 29, 1]),
        annotation(2, 1, 8, [0, 0, 40, 30], keypoints=[0, 0, 2, 0, 0, 0, 0, 0, 0]),
        annotation(3, 2, 8, [9, 9, 4, 4], keypoints=[0] * 9),
        annotation(4, 2, 8, [0, 0, 40, 30], keypoints=[0] * 9, iscrowd=1),
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
HEAD = [[2, 1, 6, 1, 6, 4, 2, 4], [3, 3, 5, 3]]
SMALL_HEAD = {"size": [10, 20], "counts": [168, 1, 9, 1, 21]}
PART_IMAGE_NET = {
    "images": [image(1, "n02099601_3004.JPEG", (20, 10))],
    "annotations": [
        annotation(1, 1, 0, [2, 1, 4, 3], segmentation=HEAD),
        annotation(2, 1, 1, [5, 2, 10.5, 6]),
        annotation(3, 1, 0, [16, 8, 2, 1], segmentation=SMALL_HEAD),
        annotation(4, 1, 2, [0, 0, 1, 1], segmentation=[[0, 0, 1, 0, 1, 1, 0, 1]]),
    ],
    "categories": [
        {"id": 0, "name": "Quadruped Head", "supercategory": "Quadruped"},
        {"id": 1, "name": "Quadruped Body", "supercategory": "Quadruped"},
        {"id": 2, "name": "Car Side Mirror", "supercategory": "Car"},
    ],
}
FIRST = ("annotations", 0)


def written(folder, original, content):
    """A COCO file of changed content beside the images of the original one."""
    file, images = coco_folder(folder, original)
    file.write_text(json.dumps(content))
    return file, images


def test_keypoints_are_the_centers_of_their_pixels(tmp_path):
    first, second = read_coco_keypoints(*coco_folder(tmp_path, AP10K), split="val")
    assert (first.id, first.size, first.split) == (
        "000000000001.jpg",
        (40, 30),
        "validation",
    )
    assert first.open().size == (40, 30)
    eye = PartPoint("left eye", 0.5, 0.5)
    assert first.objects == (AnnotatedObject("dog", (0, 0, 40, 30), (eye,)),)
    antelope, dog = second.objects  # the crowd is none; the third photo has none
    points = (PartPoint("left eye", 5.5, 6.5), PartPoint("nose", 39.5, 29.5))
    assert antelope == AnnotatedObject("antelope", (1, 2, 21, 12), points)
    assert dog == AnnotatedObject("dog", (9, 9, 13, 13))


def test_names_are_in_words(tmp_path):
    content = changed(AP10K, ["annotations", 1, "keypoints"], [1, 1, 2] * 3)
    content = changed(content, ["categories", 1, "name"], "Hunting_Dog ")
    first, _ = read_coco_keypoints(*coco_folder(tmp_path, content))
    [dog] = first.objects
    assert dog.category == "hunting dog"
    assert [point.part for point in dog.points] == [
        "left eye",
        "right front paw",
        "tail base",
    ]
    assert first.given_split is None


def test_the_near_side_of_a_horse_is_its_left_one(tmp_path):
    category = {"id": 8, "name": "Horse", "keypoints": ["near_eye", "off_eye", "off"]}
    content = changed(AP10K, ["categories", 1], category)
    content = changed(content, ["annotations", 1, "keypoints"], [1, 1, 2] * 3)
    first, _ = read_coco_keypoints(*coco_folder(tmp_path, content))
    parts = [point.part for point in first.objects[0].points]
    assert parts == ["left eye", "right eye", "off"]


@pytest.mark.parametrize("by_synset", [True, False])
def test_part_image_net(tmp_path, by_synset):
    file, images = coco_folder(tmp_path, PART_IMAGE_NET, by_synset)
    [photo] = read_coco_parts(file, images, split="train")
    assert photo.split == "train"
    assert photo.open().size == photo.size == (20, 10)
    quadruped, car = photo.objects
    assert (quadruped.category, quadruped.box) == ("quadruped", (2, 1, 18, 9))
    assert quadruped.points == ()
    head, body, small_head = quadruped.parts
    assert (head.name, head.box) == ("head", (2, 1, 6, 4))
    assert (body.name, body.box) == ("body", (5, 2, 15.5, 8))
    assert (small_head.name, small_head.box) == ("head", (16, 8, 18, 9))
    assert head.mask.all() and body.mask is None
    assert small_head.mask.tolist() == [[True, True]]
    assert (car.category, car.parts[0].name) == ("car", "side mirror")


def test_no_mask_is_made_of_a_size_that_the_photo_has_not(tmp_path):
    """It would take a gigabyte."""
    file, images = coco_folder(tmp_path, PART_IMAGE_NET)
    claimed = copy.deepcopy(PART_IMAGE_NET)
    claimed["images"][0] |= {"width": 20_000, "height": 20_000}
    file.write_text(json.dumps(claimed))
    tracemalloc.start()
    photos, records = rejected(read_coco_parts, file, images)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**24
    name = claimed["images"][0]["file_name"]
    assert name not in [photo.id for photo in photos]
    [reason] = [reason for image_id, reason in records if image_id == name]
    assert "states (20000, 20000)" in reason


@pytest.mark.parametrize(
    "name, supercategory, owner, part",
    [
        ("Car_Side Mirror", "Car", "car", "side mirror"),
        ("car left_door", "Car", "car", "left door"),
        ("door_(car)_handle", "door_(car)", "door car", "handle"),
        ("traffic light lens", "traffic_light", "traffic light", "lens"),
        ("horse near_ear", "horse", "horse", "left ear"),
        ("Wheel", "Car", "car", "wheel"),
    ],
)
def test_a_part_loses_its_supercategory(tmp_path, name, supercategory, owner, part):
    category = {"id": 2, "name": name, "supercategory": supercategory}
    content = changed(PART_IMAGE_NET, ["categories", 2], category)
    [photo] = read_coco_parts(*coco_folder(tmp_path, content))
    annotated = photo.objects[-1]
    assert (annotated.category, annotated.parts[-1].name) == (owner, part)


@pytest.mark.parametrize(
    "place, value, message",
    [
        (
            ["images"],
            GONE,
            r"train.json: field 'images': expected list, found no such field",
        ),
        (
            ["annotations"],
            {},
            r"train.json: field 'annotations': expected list, found \{\}",
        ),
        (["categories"], None, r"field 'categories': expected list, found None"),
    ],
)
@pytest.mark.parametrize("reader", [read_coco_keypoints, read_coco_parts])
def test_a_file_of_another_structure_is_refused(
    tmp_path, reader, place, value, message
):
    file, images = written(tmp_path, AP10K, changed(AP10K, place, value))
    with pytest.raises(ValueError, match=message):
        rejected(reader, file, images)


@pytest.mark.parametrize("content", [[], 3, "images", None])
def test_json_that_is_no_object_is_refused(tmp_path, content):
    (tmp_path / "train.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="expected an object with field 'images'"):
        rejected(read_coco_keypoints, tmp_path / "train.json", tmp_path)


def test_a_file_that_is_no_json_is_refused(tmp_path):
    (tmp_path / "train.json").write_text('{"images": [')
    with pytest.raises(ValueError, match="train.json: expected JSON, found Expecting"):
        list(read_coco_keypoints(tmp_path / "train.json", tmp_path))
    with pytest.raises(FileNotFoundError, match="val.json"):
        list(read_coco_keypoints(tmp_path / "val.json", tmp_path))


def test_a_byte_order_mark_is_no_content(tmp_path):
    file, images = coco_folder(tmp_path, AP10K)
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert len(list(read_coco_keypoints(file, images))) == 2


FIRST_PHOTO = "000000000001.jpg"
SECOND_PHOTO = "000000000002.jpg"


@pytest.mark.parametrize(
    "place, value, image_id, reason",
    [
        # categories that an annotation asks for
        (
            ["categories", 0, "name"],
            5,
            SECOND_PHOTO,
            r"categories\[0\]: field 'name': .*found 5",
        ),
        (["categories", 0, "name"], "a\udce9", SECOND_PHOTO, r"'name': expected UTF-8"),
        (["categories", 0, "name"], "_()", SECOND_PHOTO, r"'name': expected a name"),
        (
            ["categories", 0, "keypoints"],
            [1, 2, 3],
            SECOND_PHOTO,
            r"expected names in UTF-8",
        ),
        (
            ["categories", 0, "keypoints", 0],
            " ",
            SECOND_PHOTO,
            r"expected names in UTF-8",
        ),
        (
            ["categories", 0, "keypoints"],
            "nose",
            SECOND_PHOTO,
            r"'keypoints': expected list",
        ),
        # annotations
        (
            FIRST,
            "dog",
            "train.json, annotations[0]",
            r"expected an object with field 'image_id'",
        ),
        (
            (*FIRST, "category_id"),
            77,
            SECOND_PHOTO,
            r"expected one of the 2 known ids, found 77",
        ),
        (
            (*FIRST, "category_id"),
            None,
            SECOND_PHOTO,
            r"'category_id': expected int, found None",
        ),
        (
            (*FIRST, "category_id"),
            True,
            SECOND_PHOTO,
            r"'category_id': expected int, found True",
        ),
        (
            (*FIRST, "image_id"),
            "1",
            "train.json, annotations[0]",
            r"'image_id': expected int",
        ),
        (
            (*FIRST, "image_id"),
            GONE,
            "train.json, annotations[0]",
            r"'image_id': expected int",
        ),
        (
            (*FIRST, "id"),
            [],
            SECOND_PHOTO,
            r"annotations\[0\]: field 'id': expected int",
        ),
        (
            (*FIRST, "keypoints"),
            [5, 6, 2, 1],
            SECOND_PHOTO,
            r"expected a list of 9 numbers",
        ),
        (
            (*FIRST, "keypoints"),
            ["5"] * 9,
            SECOND_PHOTO,
            r"expected a list of 9 numbers",
        ),
        (
            (*FIRST, "keypoints"),
            [True] * 9,
            SECOND_PHOTO,
            r"expected a list of 9 numbers",
        ),
        (
            (*FIRST, "keypoints", 0),
            NOT_A_NUMBER,
            SECOND_PHOTO,
            r"expected a list of 9 numbers",
        ),
        (
            (*FIRST, "keypoints", 0),
            10**400,
            SECOND_PHOTO,
            r"expected a list of 9 numbers",
        ),
        ((*FIRST, "keypoints"), GONE, SECOND_PHOTO, r"'keypoints': expected list"),
        (
            (*FIRST, "bbox"),
            [1, 2, 3],
            SECOND_PHOTO,
            r"expected a list of 4 numbers, found \[1",
        ),
        (
            (*FIRST, "bbox"),
            GONE,
            SECOND_PHOTO,
            r"'bbox': expected list, found no such field",
        ),
        ((*FIRST, "bbox"), None, SECOND_PHOTO, r"'bbox': expected list, found None"),
        (
            (*FIRST, "bbox", 2),
            NOT_A_NUMBER,
            SECOND_PHOTO,
            r"expected a list of 4 numbers",
        ),
        (
            (*FIRST, "bbox"),
            [1, 2, -20, 10],
            SECOND_PHOTO,
            r"antelope: box .* has no area",
        ),
        (
            (*FIRST, "bbox"),
            [1, 2, 20, 0],
            SECOND_PHOTO,
            r"antelope: box .* has no area",
        ),
        (
            (*FIRST, "bbox"),
            [50, 2, 20, 10],
            SECOND_PHOTO,
            r"outside the photo of 40 x 30 pixels",
        ),
        (
            (*FIRST, "keypoints", 6),
            40,
            SECOND_PHOTO,
            r"nose: at \(40.5, 29.5\) lies outside",
        ),
        (
            (*FIRST, "keypoints", 1),
            -3,
            SECOND_PHOTO,
            r"left eye: at \(5.5, -2.5\) lies outside",
        ),
        (["annotations", 1, "id"], 1, FIRST_PHOTO, r"annotation id 1 has come before"),
        (
            ["annotations", 1, "image_id"],
            9,
            "image id 9",
            r"annotates it but does not list it",
        ),
        # images
        (
            ["images", 1, "width"],
            0,
            SECOND_PHOTO,
            r"'width, height': expected at least 1",
        ),
        (
            ["images", 1, "width"],
            None,
            SECOND_PHOTO,
            r"field 'width': expected int, found None",
        ),
        (
            ["images", 1, "height"],
            "30",
            SECOND_PHOTO,
            r"'height': expected int, found '30'",
        ),
        (
            ["images", 1, "height"],
            NOT_A_NUMBER,
            SECOND_PHOTO,
            r"'height': expected int, found nan",
        ),
        (
            ["images", 1, "height"],
            True,
            SECOND_PHOTO,
            r"'height': expected int, found True",
        ),
        (
            ["images", 1, "id"],
            "2",
            SECOND_PHOTO,
            r"images\[1\]: field 'id': expected int",
        ),
        (
            ["images", 1, "id"],
            1,
            SECOND_PHOTO,
            r"images\[1\]: its id 1 has come before",
        ),
        (
            ["images", 1],
            5,
            "train.json, images[1]",
            r"expected an object with field 'id'",
        ),
        (
            ["images", 1, "file_name"],
            FIRST_PHOTO,
            FIRST_PHOTO,
            r"its name has come before",
        ),
        (
            ["images", 0, "file_name"],
            "gone.jpg",
            "gone.jpg",
            r"data/gone.jpg does not exist",
        ),
        (
            ["images", 0, "file_name"],
            "\udce9.jpg",
            "\\udce9.jpg",
            r"'file_name': expected UTF-8",
        ),
        (
            ["images", 0, "file_name"],
            "../private.jpg",
            "../private.jpg",
            r"'file_name': expected a file in",
        ),
        (
            ["images", 0, "file_name"],
            "a/../../private.jpg",
            "a/../../private.jpg",
            r"'file_name': expected a file in",
        ),
        (
            ["images", 0, "file_name"],
            "/private.jpg",
            "/private.jpg",
            r"'file_name': expected a file in",
        ),
        (
            ["images", 0, "file_name"],
            "a" * 300,
            "a" * 300,
            r"data/a+ does not exist",
        ),
        (
            ["images", 0, "file_name"],
            "a\0.jpg",
            "a\0.jpg",
            r"null",
        ),
        (
            ["images", 0, "file_name"],
            GONE,
            "train.json, images[0]",
            r"'file_name': expected str",
        ),
    ],
)
def test_a_bad_record_is_rejected_and_the_rest_read(
    tmp_path, place, value, image_id, reason
):
    file, images = written(tmp_path, AP10K, changed(AP10K, place, value))
    photos, records = rejected(read_coco_keypoints, file, images)
    assert photos
    assert image_id in [record[0] for record in records]
    with pytest.raises(ValueError, match=reason):
        list(read_coco_keypoints(file, images))


def test_a_photo_whose_only_record_is_bad_is_gone_with_its_reason(tmp_path):
    content = changed(AP10K, ["annotations", 1, "bbox"], [1, 2])
    file, images = written(tmp_path, AP10K, content)
    photos, records = rejected(read_coco_keypoints, file, images)
    assert [photo.id for photo in photos] == [SECOND_PHOTO]
    assert {image_id for image_id, _ in records} == {FIRST_PHOTO}


@pytest.mark.parametrize(
    "place, value",
    [
        (
            ["annotations", 1, "keypoints", 2],
            0,
        ),  # no keypoint of the only object is labeled
        (["categories", 1, "keypoints"], GONE),
        (["categories", 1, "keypoints"], []),
        (["categories", 1, "keypoints"], None),
    ],
)
def test_what_is_usual_is_left_out_and_a_strict_reading_goes_on(tmp_path, place, value):
    file, images = written(tmp_path, AP10K, changed(AP10K, place, value))
    photos, records = rejected(read_coco_keypoints, file, images)
    assert [photo.id for photo in photos] == [SECOND_PHOTO]
    assert FIRST_PHOTO in [image_id for image_id, _ in records]
    assert [photo.id for photo in read_coco_keypoints(file, images)] == [SECOND_PHOTO]


def test_categories_of_one_id_are_rejected_with_their_annotations(tmp_path):
    third = {**AP10K["categories"][0], "name": "cat"}
    content = changed(AP10K, ["categories"], [*AP10K["categories"], third])
    file, images = coco_folder(tmp_path, content)
    [photo], records = rejected(read_coco_keypoints, file, images)
    assert [annotated.category for annotated in photo.objects] == ["dog"]
    assert {image_id for image_id, _ in records} == {SECOND_PHOTO}
    with pytest.raises(
        ValueError, match=r"categories\[2\].*that no other category has, found 1"
    ):
        list(read_coco_keypoints(file, images))


def test_a_category_that_no_annotation_has_does_no_harm(tmp_path):
    for bad in (
        "dog",
        {"id": 9},
        {"name": "cat"},
        {"id": 9, "name": 3, "keypoints": 5},
    ):
        content = changed(AP10K, ["categories"], [*AP10K["categories"], bad])
        photos = list(read_coco_keypoints(*written(tmp_path, AP10K, content)))
        assert len(photos) == 2


def test_a_name_in_bytes_that_are_not_utf8_is_rejected(tmp_path):
    file, images = coco_folder(tmp_path, AP10K)
    file.write_bytes(file.read_bytes().replace(b"000000000001.jpg", b"\xe9.jpg"))
    photos, records = rejected(read_coco_keypoints, file, images)
    assert len(photos) == 1
    [(image_id, _)] = records
    assert image_id == "\\udce9.jpg"
    json.dumps(records).encode()


@pytest.mark.parametrize(
    "bbox, box",
    [
        ([-6, 4, 46, 26], (0, 4, 40, 30)),
        ([10, 4, 60.5, 26], (10, 4, 40, 30)),
        ([-3, -3, 70, 55], (0, 0, 40, 30)),
        ([10, 4, 20, 20], (10, 4, 30, 24)),
    ],
)
def test_a_box_that_sticks_out_is_clipped_and_keeps_its_keypoints(tmp_path, bbox, box):
    content = changed(AP10K, ["annotations", 1, "bbox"], bbox)
    first, _ = read_coco_keypoints(*coco_folder(tmp_path, content))
    assert first.objects == (
        AnnotatedObject("dog", box, (PartPoint("left eye", 0.5, 0.5),)),
    )


@pytest.mark.parametrize("segmentation", [[], None, GONE, {}, [[]]])
def test_without_a_segmentation_the_box_is_the_part(tmp_path, segmentation):
    content = changed(PART_IMAGE_NET, (*FIRST, "segmentation"), segmentation)
    [photo] = read_coco_parts(*coco_folder(tmp_path, content))
    head = photo.objects[0].parts[0]
    assert (head.name, head.box, head.mask) == ("head", (2, 1, 6, 4), None)


def test_a_part_that_sticks_out_is_clipped(tmp_path):
    content = changed(PART_IMAGE_NET, ["annotations", 1, "bbox"], [5, -2, 40, 6])
    content = changed(content, (*FIRST, "segmentation"), [[-4, 1, 6, 1, 6, 40, -4, 40]])
    [photo] = read_coco_parts(*coco_folder(tmp_path, content))
    head, body, _ = photo.objects[0].parts
    assert (head.box, body.box) == ((0, 1, 6, 10), (5, 0, 20, 4))


@pytest.mark.parametrize(
    "place, value, reason",
    [
        (
            (*FIRST, "bbox"),
            [21, 1, 4, 3],
            r"annotations\[0\]: box .* lies outside the photo",
        ),
        ((*FIRST, "bbox"), [2, 1, 4, -3], r"annotations\[0\]: box .* has no area"),
        ((*FIRST, "bbox"), GONE, r"annotations\[0\]: field 'bbox': expected list"),
        ((*FIRST, "category_id"), 77, r"expected one of the 3 known ids, found 77"),
        ((*FIRST, "segmentation"), [[2, 1, 6, 1]], r"its segmentation covers no pixel"),
        (
            (*FIRST, "segmentation"),
            [[21, 1, 60, 1, 60, 4]],
            r"its segmentation covers no pixel",
        ),
        (
            (*FIRST, "segmentation"),
            [[2, 1, 6, 1, 6]],
            r"expected polygons as lists x1, y1",
        ),
        (
            (*FIRST, "segmentation"),
            3,
            r"annotations\[0\]: segmentation: expected polygons or",
        ),
        (
            ["annotations", 2, "segmentation", "size"],
            [20, 10],
            r"size: expected \[10, 20\]",
        ),
        (["annotations", 2, "segmentation", "counts"], [200], r"covers no pixel"),
        (
            ["annotations", 2, "segmentation", "counts"],
            [168, 1],
            r"runs of 200 pixels in all",
        ),
    ],
)
def test_a_bad_part_is_rejected_and_the_rest_read(tmp_path, place, value, reason):
    file, images = coco_folder(tmp_path, changed(PART_IMAGE_NET, place, value))
    [photo], [record] = rejected(read_coco_parts, file, images)
    assert record[0] == photo.id
    left = ["head", "body"] if place[1] else ["body", "head"]
    assert [part.name for part in photo.objects[0].parts] == left
    with pytest.raises(ValueError, match=reason):
        list(read_coco_parts(file, images))


@pytest.mark.parametrize(
    "field, value, reason",
    [
        ("supercategory", GONE, "field 'supercategory': expected str"),
        ("supercategory", "_", "field 'supercategory': expected a name"),
        ("name", None, "field 'name': expected str"),
        ("name", " ", "field 'name': expected a name"),
        ("name", "Quadruped ()", None),
        ("name", "quadruped", None),
    ],
)
def test_a_part_needs_a_name_beside_its_supercategory(tmp_path, field, value, reason):
    """Whole objects beside their parts, which have no reason here, are usual."""
    content = changed(PART_IMAGE_NET, ["categories", 0, field], value)
    file, images = coco_folder(tmp_path, content)
    [photo], records = rejected(read_coco_parts, file, images)
    parts = [part.name for annotated in photo.objects for part in annotated.parts]
    assert parts == ["body", "side mirror"]
    assert [image_id for image_id, _ in records] == [photo.id] * 2
    if reason is None:
        assert len(list(read_coco_parts(file, images))) == 1
        return
    with pytest.raises(ValueError, match=reason):
        list(read_coco_parts(file, images))
