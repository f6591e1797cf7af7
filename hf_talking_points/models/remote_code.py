"""What makes a pushed repo whole, for use without this package: code, `auto_map`, `custom_pipelines`, a card."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

AUTO_MAPS = {
    "point_descriptor": {
        "AutoConfig": "configuration_talking_points.PointDescriptorConfig",
        "AutoModel": "modeling_point_descriptor.PointDescriptorForConditionalGeneration",
        "AutoModelForImageTextToText": "modeling_point_descriptor.PointDescriptorForConditionalGeneration",
        "AutoProcessor": "processing_talking_points.PointDescriptorProcessor",
    },
    "point_localizer": {
        "AutoConfig": "configuration_talking_points.PointLocalizerConfig",
        "AutoModel": "modeling_point_localizer.PointLocalizerForKeypointDetection",
        "AutoModelForKeypointDetection": "modeling_point_localizer.PointLocalizerForKeypointDetection",
        "AutoProcessor": "processing_talking_points.PointLocalizerProcessor",
    },
}
CUSTOM_PIPELINES = {
    "point_descriptor": {
        "point-description": {
            "impl": "pipelines.PointDescriptionPipeline",
            "pt": ["AutoModelForImageTextToText"],
            "type": "multimodal",
        }
    },
    "point_localizer": {
        "point-localization": {
            "impl": "pipelines.PointLocalizationPipeline",
            "pt": ["AutoModelForKeypointDetection"],
            "type": "multimodal",
        }
    },
}
# transformers searches the text of a pulled file for lines like these and pulls the files that they name. Every other
# file imports this one, so whichever is pulled first brings all along, and a pulled copy can be pushed again.
PULLED_WITH_THIS_FILE = """
from .configuration_talking_points import TalkingPointsConfig
from .coordinates import canvas_box
from .images import to_rgb
from .modeling_efficientnet_lite import EfficientNetLiteBackbone
from .modeling_fusion import TextMapFusion
from .modeling_masked_decoder import MaskedDecoderLayer
from .modeling_point_descriptor import PointDescriptorForConditionalGeneration
from .modeling_point_localizer import PointLocalizerForKeypointDetection
from .modeling_talking_points import TalkingPointsModel
from .pipelines import PointDescriptionPipeline, PointLocalizationPipeline
from .processing_talking_points import TalkingPointsProcessor
from .quantization import of_language_model
from .shared_prefix import PackedRows
"""
PIPELINE_TAGS = {
    "point_descriptor": "image-text-to-text",
    "point_localizer": "keypoint-detection",
}
QUICK_STARTS = {
    "point_descriptor": """```python
from PIL import Image
from skimage.data import chelsea
from transformers import pipeline

image = Image.fromarray(chelsea())  # or a path, a URL, an array
describe = pipeline("point-description", model="{repo_id}", trust_remote_code=True)
for row in describe(image, points=[(172, 117), (266, 235)]):
    print(row["point"], row["description"])
```""",
    "point_localizer": """```python
from PIL import Image
from skimage.data import chelsea
from transformers import pipeline

image = Image.fromarray(chelsea())  # or a path, a URL, an array
locate = pipeline("point-localization", model="{repo_id}", trust_remote_code=True)
for row in locate(image, text=["the cat's left eye", "the cat's nose"]):
    print(row["description"], row["point"], row["confidence"])
```""",
}
SHORT_CARD = """---
library_name: transformers
pipeline_tag: {pipeline_tag}
tags:
- hf_talking_points
---

# {name}

{quick_start}

Points are pixels of the image as displayed, (0, 0) is its top-left corner. Code and training: the package
hf_talking_points, after *Talking Points: Describing and Localizing Pixels*
([arXiv 2510.14583](https://arxiv.org/abs/2510.14583)).
"""
# in the card that transformers pushes where a repo has none
PLACEHOLDER = "[More Information Needed]"


def short_card(repo_id: str, model_type: str) -> str:
    """Card of a checkpoint of which no more is known than its type."""
    return SHORT_CARD.format(
        pipeline_tag=PIPELINE_TAGS[model_type],
        name=repo_id.split("/")[-1],
        quick_start=QUICK_STARTS[model_type].format(repo_id=repo_id),
    )


def _read_json(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text(encoding="utf-8"))


def saved_model_type(folder: str | os.PathLike) -> str:
    """The model type of a saved model, or of that which a saved processor or adapter belongs to.

    Raises ValueError where only a processor of another family lies in the folder."""
    config = Path(folder) / "config.json"
    if config.is_file():
        return _read_json(config)["model_type"]
    processor_class = _read_json(Path(folder) / "processor_config.json")[
        "processor_class"
    ]
    for model_type, classes in AUTO_MAPS.items():
        if classes["AutoProcessor"].endswith(f".{processor_class}"):
            return model_type
    raise ValueError(
        f"{folder} holds a {processor_class}, but a processor of one of {sorted(AUTO_MAPS)} is needed"
    )


def copy_code(folder: str | os.PathLike) -> None:
    """Copies the code files that a repo needs to load without this package."""
    for file in Path(__file__).parent.glob("*.py"):
        if file.name != "__init__.py":
            shutil.copyfile(file, Path(folder) / file.name)


def _add_entries(file: Path, entries: dict[str, Any]) -> None:
    """Sets entries of a JSON file, if there is one."""
    if file.is_file():
        content = {**_read_json(file), **entries}
        file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def write_remote_code(folder: str | os.PathLike) -> None:
    """Makes a saved checkpoint, or a part of it, loadable with `trust_remote_code=True` where this package is not
    installed: code files, `auto_map`, `custom_pipelines`."""
    folder = Path(folder)
    model_type = saved_model_type(folder)
    auto_map = AUTO_MAPS[model_type]
    copy_code(folder)
    _add_entries(
        folder / "config.json",
        {"auto_map": auto_map, "custom_pipelines": CUSTOM_PIPELINES[model_type]},
    )
    _add_entries(
        folder / "processor_config.json",
        {"auto_map": {"AutoProcessor": auto_map["AutoProcessor"]}},
    )


def complete_repo(folder: str | os.PathLike, repo_id: str) -> None:
    """[`write_remote_code`], and a card in the place of the one that transformers fills with placeholders."""
    write_remote_code(folder)
    card = Path(folder) / "README.md"
    if card.is_file() and PLACEHOLDER in card.read_text(encoding="utf-8"):
        card.write_text(short_card(repo_id, saved_model_type(folder)), encoding="utf-8")


class CompleteRepoMixin:
    """Over a class of transformers: what is pushed to the Hub has the code files and entries that `trust_remote_code`
    needs.

    `save_pretrained` alone writes a plain checkpoint."""

    def _upload_modified_files(
        self, working_dir: str | os.PathLike, repo_id: str, *args, **kwargs
    ) -> Any:
        complete_repo(working_dir, repo_id)
        return super()._upload_modified_files(working_dir, repo_id, *args, **kwargs)  # type: ignore[misc]
