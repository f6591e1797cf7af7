"""Checkpoints for others: half precision, repos that are pushed whole, model cards."""

import json
import math
import re
import shutil
import tempfile
import time
from importlib.metadata import version
from itertools import zip_longest
from pathlib import Path

import httpx2
import torch
import yaml
from accelerate.utils import is_peft_model
from huggingface_hub import (
    EvalResult,
    EvalResultEntry,
    HfApi,
    ModelCard,
    ModelCardData,
    eval_result_entries_to_yaml,
)
from huggingface_hub.errors import HfHubHTTPError
from safetensors import safe_open
from transformers import AutoConfig
from transformers.modelcard import extract_hyperparameters_from_trainer

from ._version import __version__
from .evaluation.report import results_table
from .evaluation.vision_language import model_version
from .models.pipelines import (
    AUTO_MAPS,
    CUSTOM_PIPELINES,
    PIPELINE_TAGS,
    PLACEHOLDER,
    QUICK_STARTS,
    copy_code,
    saved_model_type,
    short_card,
    write_remote_code,
)

PACKAGE = Path(__file__).resolve().parent
CHECKPOINT_FILES = ("*.safetensors", "*.json", "*.jinja", "*.txt", "*.model")
RUN_FILES = ("trainer_state.json", "all_results.json", "train_results.json", "eval_results.json")
ATTEMPTS = 3
REFUSALS = {
    401: (PermissionError, "no valid token: log in with `hf auth login`, or set HF_TOKEN"),
    403: (
        PermissionError,
        "the token may not write there: use one with write access to this namespace",
    ),
    429: (ConnectionError, "the Hub limits requests: wait a while and push again"),
}
TASKS = {
    "point_descriptor": (
        "point-description",
        "A Point Descriptor: describes one pixel of a photo in words.",
    ),
    "point_localizer": (
        "point-localization",
        "A Point Localizer: finds the pixel of a photo that a text describes.",
    ),
}
EMBEDDED = {
    "talking-points-descriptor": "train_descriptor",
    "talking-points-localizer": "train_localizer",
}
TRUTHS = (
    "ground truth, full",
    "ground truth, terse",
    "ground truth, unseen",
)  # rows of the report that count as a localizer's result
REPORT_COMMIT = "b593ede"  # holds code, checkpoints and the stored report of their evaluation
CITATION = """```bibtex
@misc{rusanovsky2025talkingpoints,
  title = {Talking Points: Describing and Localizing Pixels},
  author = {Matan Rusanovsky and Shimon Malnick and Shai Avidan},
  year = {2025},
  eprint = {2510.14583},
  archivePrefix = {arXiv}
}
```"""


def save_half_precision(model, processor, folder):
    """Saves weights in float16, half the size, with a config that makes every Auto class compute in float32 on a CPU.

    Raises ValueError where a weight does not fit into float16."""
    folder = Path(folder)
    for name, value in model.state_dict().items():
        if value.is_floating_point() and not torch.isfinite(value.half()).all():
            raise ValueError(
                f"{name} has values that are not finite in float16: save this model in full precision"
            )
    model.half().save_pretrained(folder)
    processor.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["dtype"] = "float32"
    for part in ("vision_config", "text_config"):
        config[part]["dtype"] = "float32"
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def check_base(base):
    """Raises ValueError where an adapter's base model was never saved, or is a folder of this machine: nobody else could load it."""
    if not base or Path(base).exists():
        raise ValueError(
            f"the adapter's base model is {base!r}, which nobody can pull: push it first (`talking-points push`) and train on its Hub id, "
            "or merge the adapter into it (`merge_and_unload`)"
        )


def push_checkpoint(folder, repo_id, card=None, private=None, revision=None, token=None):
    """Pushes a saved model or adapter, with its processor, as a repo that loads without this package, in one commit.

    Args:
        folder (`str` or `Path`): as `save_pretrained` of model and processor, of a pipeline or of a trainer wrote it. Files of the training
            run stay out. Weights are pushed in the precision in which they are stored.
        repo_id (`str`): "owner/name"; is created where it does not exist.
        card (`str` or `Path`, *optional*): Markdown file for README.md, in which `someone/<name of the file>` stands for the repo. By
            default the card of an embedded checkpoint, the folder's own README.md, or else a short one.
        private (`bool`, *optional*): visibility of a new repo; by default the owner's setting.
        revision (`str`, *optional*): branch; is created where it does not exist.
        token (`str`, *optional*): by default the one of `hf auth login` or HF_TOKEN.
    Returns:
        `huggingface_hub.CommitInfo`
    Raises:
        FileNotFoundError: no such folder, or model or processor is missing in it.
        ValueError: a model of another type; an adapter whose base model nobody can pull.
        PermissionError: no token, or one that may not write there.
        ConnectionError: the Hub limits requests, or the connection kept breaking. The repo may exist then, but without a commit (unless
            just the answer to the commit was lost); pushing again is safe.
    """
    folder = Path(folder).resolve()
    adapter = folder / "adapter_config.json"
    for name in (adapter.name if adapter.is_file() else "config.json", "processor_config.json"):
        if not (folder / name).is_file():
            raise FileNotFoundError(
                f"{folder} holds no {name}: give a folder to which model and processor were saved"
            )
    base = (
        json.loads(adapter.read_text(encoding="utf-8"))["base_model_name_or_path"]
        if adapter.is_file()
        else None
    )
    if adapter.is_file():
        check_base(base)
    elif saved_model_type(folder) not in AUTO_MAPS:
        raise ValueError(
            f"{folder} holds a {saved_model_type(folder)}, but one of {sorted(AUTO_MAPS)} is needed"
        )
    with tempfile.TemporaryDirectory() as staged:
        for pattern in CHECKPOINT_FILES:
            for file in folder.glob(pattern):
                if file.name not in RUN_FILES:
                    shutil.copyfile(file, Path(staged) / file.name)
        write_remote_code(staged)
        card = ModelCard(card_text(folder, repo_id, card))
        if base:
            card.data.library_name, card.data.base_model = "peft", base
        card.save(Path(staged) / "README.md")
        if card.data.eval_results:
            (Path(staged) / ".eval_results").mkdir()
            (Path(staged) / ".eval_results" / "hf_talking_points.yaml").write_text(
                eval_results_yaml(card), encoding="utf-8"
            )
        return upload(staged, repo_id, private, revision, token)


def card_text(folder, repo_id, card=None):
    """What README.md of a pushed checkpoint says."""
    if card is None and folder.parent == PACKAGE / "pretrained":
        card = PACKAGE / "model_cards" / f"{folder.name}.md"
    if card is not None:
        return Path(card).read_text(encoding="utf-8").replace(f"someone/{Path(card).stem}", repo_id)
    own = folder / "README.md"
    if own.is_file() and PLACEHOLDER not in own.read_text(encoding="utf-8"):
        return own.read_text(encoding="utf-8")
    return short_card(repo_id, saved_model_type(folder))


def eval_results_yaml(card):
    """The results of a card's `model-index` in the format of `.eval_results/*.yaml`."""
    entries = [
        EvalResultEntry(
            dataset_id=result.dataset_type,
            task_id=re.sub(r"\W+", "_", f"{result.dataset_config} {result.metric_type}"),
            value=result.metric_value,
            notes=f"{result.metric_name} in percent, {result.dataset_split} split",
        )
        for result in card.data.eval_results
    ]
    return yaml.safe_dump(eval_result_entries_to_yaml(entries), sort_keys=False, allow_unicode=True)


def upload(folder, repo_id, private=None, revision=None, token=None):
    """One commit of all files of `folder`. huggingface_hub itself repeats the upload of large files, but not the commit."""
    api = HfApi(token=token)
    for attempt in range(1, ATTEMPTS + 1):
        try:
            api.create_repo(repo_id, private=private, exist_ok=True)
            if revision is not None:
                api.create_branch(repo_id, branch=revision, exist_ok=True)
            return api.upload_folder(
                repo_id=repo_id,
                folder_path=folder,
                commit_message="Upload checkpoint",
                revision=revision,
            )
        except (HfHubHTTPError, httpx2.TransportError, RuntimeError) as error:
            cause = (
                error.__cause__ if type(error) is RuntimeError else error
            )  # what the upload of a large file failed of
            if isinstance(cause, HfHubHTTPError) and cause.response.status_code in REFUSALS:
                kind, hint = REFUSALS[cause.response.status_code]
                raise kind(
                    f"{repo_id} was not pushed ({cause.response.status_code}): {hint}"
                ) from error
            if not isinstance(cause, httpx2.TransportError):
                raise
            if type(error) is RuntimeError or attempt == ATTEMPTS:
                raise ConnectionError(
                    f"{repo_id} was not pushed: the connection kept breaking ({cause}); push again"
                ) from error
            time.sleep(attempt)


class HubTrainerMixin:
    """Over a `Trainer`: what it pushes loads without this package, under a card with the run's own configuration and evaluation."""

    def init_hf_repo(self, *args, **kwargs):
        if (
            is_peft_model(self.model) and self.model.config._name_or_path
        ):  # a fresh model's adapter may still be merged
            check_base(self.model.config._name_or_path)
        super().init_hf_repo(*args, **kwargs)
        config, output_dir = self.model.config, Path(self.args.output_dir)
        # set here and not written into the files, because each save of the run may be pushed
        config.auto_map, config.custom_pipelines = (
            AUTO_MAPS[config.model_type],
            CUSTOM_PIPELINES[config.model_type],
        )
        self.processing_class.auto_map = {"AutoProcessor": config.auto_map["AutoProcessor"]}
        if self.is_world_process_zero():
            output_dir.mkdir(parents=True, exist_ok=True)
            copy_code(output_dir)

    def push_to_hub(self, *args, **kwargs):
        if is_peft_model(self.model):
            check_base(self.model.config._name_or_path)
        return super().push_to_hub(*args, **kwargs)

    def create_model_card(self, model_name=None, dataset_name=None, tags=None):
        if not self.is_world_process_zero():
            return
        adapter, model_type, base = (
            is_peft_model(self.model),
            self.model.config.model_type,
            self.model.config._name_or_path,
        )
        task, what = TASKS[model_type]
        data = ModelCardData(
            library_name="peft" if adapter else "transformers",
            pipeline_tag=PIPELINE_TAGS[model_type],
            base_model=None if Path(base).exists() else base,
            datasets=dataset_name,
            tags=sorted(
                {
                    "hf_talking_points",
                    task,
                    *getattr(self, "_tag_names", ()),
                    *([tags] if isinstance(tags, str) else tags or ()),
                }
            ),
        )
        evaluated = {
            key: value
            for entry in self.state.log_history
            for key, value in entry.items()
            if key.startswith("eval_")
        }
        card = ModelCard.from_template(
            data,
            template_path=PACKAGE / "templates" / "trained.md",
            name=model_name or Path(self.args.output_dir).name,
            what=what,
            adapter=adapter,
            dataset_name=dataset_name,
            quick_start=QUICK_STARTS[model_type].format(
                repo_id=self.hub_model_id or self.args.output_dir
            ),
            trainer=type(self).__name__,
            steps=self.state.global_step,
            arguments=extract_hyperparameters_from_trainer(self),
            results={
                key: value
                for key, value in evaluated.items()
                if not key.endswith(("runtime", "_per_second"))
            },
            versions={"hf_talking_points": __version__}
            | {package: version(package) for package in ("transformers", "trl", "torch")},
            citation=CITATION,
        )
        card.save(Path(self.args.output_dir) / "README.md")


def embedded_card(name, folder):
    """The card of an embedded checkpoint, all numbers read from where they come from.

    Args:
        name (`str`): "talking-points-descriptor" or "talking-points-localizer".
        folder (`Path`): `model_cards` of a clone, with `mini_pair_test.json`, the report of the pair's evaluation; `examples` beside it.
    Returns:
        `ModelCard`
    Raises:
        ValueError: the report is of other checkpoints.
    """
    checkpoint, script = PACKAGE / "pretrained" / name, f"examples/{EMBEDDED[name]}"
    report = json.loads((folder / "mini_pair_test.json").read_text(encoding="utf-8"))
    recipe = (folder.parent / f"{script}.yaml").read_text(encoding="utf-8").strip()
    if report["fingerprints"][name] != model_version(checkpoint):
        raise ValueError(
            f"{folder / 'mini_pair_test.json'} judges another {name} than {checkpoint}: evaluate the pair again"
        )
    config, descriptor = AutoConfig.from_pretrained(checkpoint), name == "talking-points-descriptor"
    with safe_open(checkpoint / "model.safetensors", "pt") as weights:
        parameters = sum(
            math.prod(weights.get_slice(tensor).get_shape()) for tensor in weights.keys()
        )
    rows = [
        row
        for row in report["rows"]
        if (row["system"] == name if descriptor else row["system"] in TRUTHS)
    ]
    tag = PIPELINE_TAGS[config.model_type]
    results = [
        EvalResult(
            task_type=tag,
            dataset_type=report["dataset"][0],
            dataset_name="Animal-Pose, PASCAL-VOC part",
            dataset_split=report["split"],
            dataset_config=row["system"],
            metric_type=metric,
            metric_name=title,
            metric_value=round(row[metric], 1),
        )
        for row in rows
        for metric, title in (("mpck", "mPCK"), ("pck@0.05", "PCK@0.05"))
    ]
    data = ModelCardData(
        language="en",
        license="other",
        license_name="research-use-photos",
        library_name="transformers",
        pipeline_tag=tag,
        datasets=["animalpose_voc_256", "cars_256"],
        metrics=["mpck", "pck@0.05"],
        tags=["hf_talking_points", TASKS[config.model_type][0]],
        model_name=name,
        eval_results=results,
    )
    return ModelCard.from_template(
        data,
        template_path=PACKAGE / "templates" / "embedded.md",
        name=name,
        repo_id=f"someone/{name}",
        descriptor=descriptor,
        quick_start=QUICK_STARTS[config.model_type].format(repo_id=f"someone/{name}"),
        config=config,
        image_tokens=config.image_seq_length,
        parameters=parameters,
        script=script,
        recipe=recipe,
        run=yaml.safe_load(recipe),
        results=results_table(report),
        report=report,
        commit=REPORT_COMMIT,
        citation=CITATION,
    )


def write_cards(folder):
    """Writes `<name>.md` of both embedded checkpoints into `folder`, `model_cards` of a clone."""
    for name in EMBEDDED:
        embedded_card(name, folder).save(folder / f"{name}.md")


def check_cards(folder):
    """Raises ValueError, with file and line, where a card in `folder` is not what configs and stored results give."""
    for name in EMBEDDED:
        fresh = str(embedded_card(name, folder)).splitlines()
        stored = (folder / f"{name}.md").read_text(encoding="utf-8").splitlines()
        for number, (is_, should) in enumerate(zip_longest(stored, fresh), 1):
            if is_ != should:
                raise ValueError(
                    f"{name}.md, line {number} is {is_!r} but should be {should!r}: run `talking-points card`"
                )
