"""What makes a pushed repo whole: its files, entries and card, whichever file of it is pulled first."""

import json
from pathlib import Path

import pytest
from transformers.dynamic_module_utils import get_relative_import_files

from hf_talking_points.models import remote_code

MODELS = Path(remote_code.__file__).parent
CODE_FILES = {file.name for file in MODELS.glob("*.py")} - {"__init__.py"}
MODEL_TYPES = sorted(remote_code.AUTO_MAPS)


def named_files(model_type):
    """The code files that a repo of this type names, which are those that are pulled first."""
    classes = list(remote_code.AUTO_MAPS[model_type].values())
    for pipeline in remote_code.CUSTOM_PIPELINES[model_type].values():
        classes.append(pipeline["impl"])
    return {f"{name.split('.')[0]}.py" for name in classes}


def save_json(file, content):
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(content), encoding="utf-8")


@pytest.fixture(params=MODEL_TYPES)
def model_type(request):
    return request.param


@pytest.fixture
def processor_class(model_type):
    return remote_code.AUTO_MAPS[model_type]["AutoProcessor"].split(".")[1]


def test_every_file_that_is_pulled_first_brings_all_others_along(model_type):
    files = named_files(model_type)
    assert "pipelines.py" in files and len(files) == 4
    for first in files:
        pulled = {Path(file).name for file in get_relative_import_files(MODELS / first)}
        assert pulled | {first} == CODE_FILES


def test_a_repo_imports_nothing_but_its_own_files():
    for name in CODE_FILES:
        for line in (MODELS / name).read_text(encoding="utf-8").splitlines():
            statement = line.strip()
            assert not statement.startswith(
                ("from ..", "from hf_talking_points", "from . ")
            )
            assert not statement.startswith("import hf_talking_points")


def test_the_classes_that_a_repo_names_exist(model_type):
    for name in remote_code.AUTO_MAPS[model_type].values():
        file, class_name = name.split(".")
        assert f"class {class_name}(" in (MODELS / f"{file}.py").read_text(
            encoding="utf-8"
        )


def test_model_type_of_a_config(tmp_path, model_type):
    save_json(tmp_path / "config.json", {"model_type": model_type})
    assert remote_code.saved_model_type(tmp_path) == model_type


def test_model_type_of_a_processor_alone(tmp_path, model_type, processor_class):
    save_json(tmp_path / "processor_config.json", {"processor_class": processor_class})
    assert remote_code.saved_model_type(str(tmp_path)) == model_type


def test_a_processor_of_another_family_is_an_error(tmp_path):
    save_json(tmp_path / "processor_config.json", {"processor_class": "CLIPProcessor"})
    with pytest.raises(
        ValueError, match="holds a CLIPProcessor, but .* 'point_localizer'"
    ):
        remote_code.saved_model_type(tmp_path)


def test_code_and_entries_are_added_and_the_rest_stays(
    tmp_path, model_type, processor_class
):
    save_json(tmp_path / "config.json", {"model_type": model_type, "image_size": 64})
    save_json(tmp_path / "processor_config.json", {"processor_class": processor_class})
    remote_code.write_remote_code(tmp_path)
    assert {file.name for file in tmp_path.glob("*.py")} == CODE_FILES
    for name in CODE_FILES:
        assert (tmp_path / name).read_bytes() == (MODELS / name).read_bytes()
    assert json.loads((tmp_path / "config.json").read_text()) == {
        "model_type": model_type,
        "image_size": 64,
        "auto_map": remote_code.AUTO_MAPS[model_type],
        "custom_pipelines": remote_code.CUSTOM_PIPELINES[model_type],
    }
    processor = json.loads((tmp_path / "processor_config.json").read_text())
    assert list(processor["auto_map"]) == ["AutoProcessor"]
    assert processor["processor_class"] == processor_class


def test_a_part_of_a_repo_stays_a_part(tmp_path, processor_class):
    save_json(tmp_path / "processor_config.json", {"processor_class": processor_class})
    remote_code.write_remote_code(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == CODE_FILES | {
        "processor_config.json"
    }


def test_a_card_of_placeholders_is_replaced(tmp_path, model_type):
    save_json(tmp_path / "config.json", {"model_type": model_type})
    card = tmp_path / "README.md"
    card.write_text(f"# Model Card\n\n{remote_code.PLACEHOLDER}\n", encoding="utf-8")
    remote_code.complete_repo(tmp_path, "someone/new")
    text = card.read_text(encoding="utf-8")
    assert text == remote_code.short_card("someone/new", model_type)
    assert "# new\n" in text and 'model="someone/new"' in text
    assert f"pipeline_tag: {remote_code.PIPELINE_TAGS[model_type]}" in text


def test_a_card_that_someone_wrote_stays(tmp_path, model_type):
    save_json(tmp_path / "config.json", {"model_type": model_type})
    (tmp_path / "README.md").write_text("# Mine\n", encoding="utf-8")
    remote_code.complete_repo(tmp_path, "someone/new")
    assert (tmp_path / "README.md").read_text(encoding="utf-8") == "# Mine\n"


def test_no_card_is_made_where_there_is_none(tmp_path, model_type):
    save_json(tmp_path / "config.json", {"model_type": model_type})
    remote_code.complete_repo(tmp_path, "someone/new")
    assert not (tmp_path / "README.md").exists()
