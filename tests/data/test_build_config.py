"""The YAML file that a build is started from."""

import inspect
from pathlib import Path

import pytest

from hf_talking_points.data.build_config import read_build_config
from hf_talking_points.data.builder import BuildOptions
from hf_talking_points.data.teachers import RuleTeacher

EXAMPLES = Path(__file__).parents[2] / "examples"
EXAMPLE = EXAMPLES / "build_llama_point_in_part.yaml"


def test_the_example_names_sources_options_and_teacher(tmp_path):
    config = read_build_config(EXAMPLE, tmp_path)
    readers = [(source.func.__name__, source.keywords) for source in config.sources]
    assert readers == [
        ("read_objects", {"folder": tmp_path / "animalpose_voc_256"}),
        ("read_objects", {"folder": tmp_path / "cars_256"}),
    ]
    assert config.options == BuildOptions("unknown", styles=["full", "terse"])
    assert isinstance(config.teacher, RuleTeacher)


@pytest.mark.parametrize("name", ["llama_point_in_part", "all", "things"])
def test_every_example_calls_its_readers_as_they_are(name, tmp_path):
    config = read_build_config(EXAMPLES / f"build_{name}.yaml", tmp_path)
    for source in config.sources:
        inspect.signature(source.func).bind(*source.args, **source.keywords)


def test_the_example_of_all_folders_combines_annotations_and_texts(tmp_path):
    config = read_build_config(EXAMPLES / "build_all.yaml", tmp_path)
    assert config.sources[0].keywords["more"] == ["pascal_part.jsonl"]
    assert config.options.per_photo == {"anywhere": 2}
    assert {"free", "brief", "rich", "short"} <= set(config.options.styles)


def test_without_a_teacher_the_rule_based_writer_is_meant(tmp_path):
    file = tmp_path / "build.yaml"
    coco = "{reader: read_coco_keypoints, annotations: a.json, images: photos, split: test}"
    file.write_text(f"sources: [{coco}]\noptions: {{license: cc0-1.0}}\n")
    config = read_build_config(file, tmp_path)
    [source] = config.sources
    assert source.keywords == {
        "annotations": tmp_path / "a.json",
        "images": tmp_path / "photos",
        "split": "test",
    }
    assert isinstance(config.teacher, RuleTeacher)


SOURCE = "sources: [{reader: read_objects, folder: a}]\n"
OPTIONS = "options: {license: cc0-1.0}\n"


@pytest.mark.parametrize(
    "content, message",
    [
        ("", "name: value`, found nothing"),
        ("- a\n", "name: value`, found a list"),
        ("a: [", "is not a YAML file of options"),
        ("teachers: {}\n" + SOURCE + OPTIONS, "build.yaml.*did you mean 'teacher'"),
        (SOURCE + OPTIONS + "num_proc: 8\n", "'num_proc' is unknown: choose from"),
        (SOURCE + OPTIONS + OPTIONS, "'options' comes twice"),
        (SOURCE + "options: {seed: 1}\n", "options: .*'license'"),
        (
            "sources: [{reader: read_objects, foldr: a}]\n" + OPTIONS,
            "read_objects: 'foldr' is unknown: did you mean 'folder'",
        ),
        (
            SOURCE + OPTIONS + "teacher: {name: ModelTeacher, txt: b}\n",
            "ModelTeacher: 'txt' is unknown",
        ),
        (OPTIONS, "'sources' is missing"),
        (SOURCE, "'options' is missing"),
        (
            "sources: [{reader: read_json}]\n" + OPTIONS,
            "reader of a source: 'read_json' is unknown: .*read_objects",
        ),
        ("sources: [{folder: a}]\n" + OPTIONS, "reader of a source: None is unknown"),
        (
            SOURCE + "options: {license: cc0-1.0, sedd: 1}\n",
            "'sedd' is unknown: did you mean 'seed'",
        ),
        (
            SOURCE + OPTIONS + "teacher: {name: Oracle}\n",
            "name of the teacher: 'Oracle' is unknown",
        ),
    ],
)
def test_what_is_missing_or_unknown_is_named(tmp_path, content, message):
    file = tmp_path / "build.yaml"
    file.write_text(content)
    with pytest.raises(ValueError, match=message):
        read_build_config(file)
