"""Pushes checkpoints to the Hub as repos that load without this package."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
import time
from pathlib import Path

import httpx2
import yaml
from huggingface_hub import (
    CommitInfo,
    EvalResultEntry,
    HfApi,
    ModelCard,
    eval_result_entries_to_yaml,
)
from huggingface_hub.errors import HfHubHTTPError

from .checkpoints import check_base
from .models.remote_code import (
    AUTO_MAPS,
    PLACEHOLDER,
    saved_model_type,
    short_card,
    write_remote_code,
)

# all that `save_pretrained` of models, adapters, processors and tokenizers writes, and nothing that lies beside it
CHECKPOINT_FILES = (
    "model*.safetensors",
    "model.safetensors.index.json",
    "adapter_model*.safetensors",
    "adapter_config.json",
    "config.json",
    "generation_config.json",
    "processor_config.json",
    "preprocessor_config.json",
    "chat_template.jinja",
    "chat_template.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
)
RESULTS_FILE = Path(".eval_results") / "hf_talking_points.yaml"
ATTEMPTS = 3
NO_TOKEN = "no valid token: log in with `hf auth login`, or set HF_TOKEN"
NO_WRITE_ACCESS = (
    "the token may not write there: use one with write access to this namespace"
)
TOO_MANY_REQUESTS = "the Hub limits requests: wait a while and push again"
REFUSALS = {
    401: (PermissionError, NO_TOKEN),
    403: (PermissionError, NO_WRITE_ACCESS),
    429: (ConnectionError, TOO_MANY_REQUESTS),
}


def push_checkpoint(
    folder: str | Path,
    repo_id: str,
    card: str | Path | None = None,
    private: bool | None = None,
    revision: str | None = None,
    token: str | None = None,
) -> CommitInfo:
    """Pushes a saved model or adapter, with its processor, as a repo that loads without this package, in one commit.

    Args:
        folder (`str` or `Path`): as `save_pretrained` of model and processor, of a pipeline or of a trainer wrote it.
            Whatever else lies there stays out. Weights are pushed in the precision in which they are stored.
        repo_id (`str`): "owner/name"; is created where it does not exist.
        card (`str` or `Path`, *optional*): Markdown file for README.md, in which `someone/<name of the file>` stands
            for the repo; a clone holds those of the embedded pair (`model_cards/*.md`). By default the folder's own
            README.md, or else a short one.
        private (`bool`, *optional*): visibility of a new repo; by default the owner's setting.
        revision (`str`, *optional*): branch; is created where it does not exist.
        token (`str`, *optional*): by default the one of `hf auth login` or HF_TOKEN.
    Returns:
        `huggingface_hub.CommitInfo`
    Raises:
        FileNotFoundError: no such folder, or model or processor is missing in it.
        ValueError: a model of another type; an adapter whose base model nobody can pull.
        PermissionError: no token, or one that may not write there.
        ConnectionError: the Hub limits requests, or the connection kept breaking. The repo may exist then, but without
            a commit (unless just the answer to the commit was lost); pushing again is safe.
    """
    folder = Path(folder).resolve()
    base = _checked_base(folder)
    with tempfile.TemporaryDirectory() as temporary:
        staged = Path(temporary)
        _copy_checkpoint(folder, staged)
        write_remote_code(staged)
        readme = ModelCard(_card_text(folder, repo_id, card))
        if base is not None:
            readme.data.library_name = "peft"
            readme.data.base_model = base
        readme.save(staged / "README.md")
        if readme.data.eval_results:
            _write_results(readme, staged / RESULTS_FILE)
        return upload(staged, repo_id, private, revision, token)


def _checked_base(folder: Path) -> str | None:
    """The base model of the adapter in a folder, None where a whole model lies there.

    Raises FileNotFoundError and ValueError where others could not load what the folder holds."""
    adapter_config = folder / "adapter_config.json"
    is_adapter = adapter_config.is_file()
    model_file = adapter_config.name if is_adapter else "config.json"
    for name in (model_file, "processor_config.json"):
        if not (folder / name).is_file():
            raise FileNotFoundError(
                f"{folder} holds no {name}: give a folder to which model and processor were saved"
            )
    if is_adapter:
        base = json.loads(adapter_config.read_text(encoding="utf-8"))[
            "base_model_name_or_path"
        ]
        check_base(base)
        return base
    model_type = saved_model_type(folder)
    if model_type not in AUTO_MAPS:
        raise ValueError(
            f"{folder} holds a {model_type}, but one of {sorted(AUTO_MAPS)} is needed"
        )
    return None


def _copy_checkpoint(folder: Path, target: Path) -> None:
    """Copies weights, configs and tokenizer, and nothing else that lies beside them."""
    for pattern in CHECKPOINT_FILES:
        for file in folder.glob(pattern):
            shutil.copyfile(file, target / file.name)


def _card_text(folder: Path, repo_id: str, card: str | Path | None = None) -> str:
    """What README.md of a pushed checkpoint says."""
    if card is not None:
        card = Path(card)
        return card.read_text(encoding="utf-8").replace(f"someone/{card.stem}", repo_id)
    readme = folder / "README.md"
    if readme.is_file():
        text = readme.read_text(encoding="utf-8")
        if PLACEHOLDER not in text:
            return text
    return short_card(repo_id, saved_model_type(folder))


def _write_results(card: ModelCard, file: Path) -> None:
    """Writes the results of a card's `model-index` in the format of `.eval_results/*.yaml`."""
    entries = []
    for result in card.data.eval_results:
        entry = EvalResultEntry(
            dataset_id=result.dataset_type,
            task_id=re.sub(
                r"\W+", "_", f"{result.dataset_config} {result.metric_type}"
            ),
            value=result.metric_value,
            notes=f"{result.metric_name} in percent, {result.dataset_split} split",
        )
        entries.append(entry)
    content = eval_result_entries_to_yaml(entries)
    file.parent.mkdir()
    file.write_text(
        yaml.safe_dump(content, sort_keys=False, allow_unicode=True), encoding="utf-8"
    )


def upload(
    folder: str | Path,
    repo_id: str,
    private: bool | None = None,
    revision: str | None = None,
    token: str | None = None,
) -> CommitInfo:
    """Pushes all files of a folder in one commit. A broken connection is tried again.

    Args and errors: as of [`push_checkpoint`]."""
    api = HfApi(token=token)
    attempt = 1
    while True:
        try:
            return _upload_once(api, folder, repo_id, private, revision)
        except (HfHubHTTPError, httpx2.TransportError, RuntimeError) as error:
            _raise_unless_broken(error, repo_id)
            # a RuntimeError: huggingface_hub has tried the upload of a large file again already
            if attempt == ATTEMPTS or type(error) is RuntimeError:
                raise ConnectionError(
                    f"{repo_id} was not pushed: the connection kept breaking ({_cause(error)}); push again"
                ) from error
        time.sleep(attempt)
        attempt += 1


def _upload_once(
    api: HfApi,
    folder: str | Path,
    repo_id: str,
    private: bool | None,
    revision: str | None,
) -> CommitInfo:
    api.create_repo(repo_id, private=private, exist_ok=True)
    if revision is not None:
        api.create_branch(repo_id, branch=revision, exist_ok=True)
    return api.upload_folder(
        repo_id=repo_id,
        folder_path=folder,
        commit_message="Upload checkpoint",
        revision=revision,
    )


def _cause(error: Exception) -> BaseException | None:
    """What a request failed of: of the upload of a large file, the error behind its RuntimeError."""
    return error.__cause__ if type(error) is RuntimeError else error


def _raise_unless_broken(error: Exception, repo_id: str) -> None:
    """Raises what an error means, unless the connection broke."""
    cause = _cause(error)
    if isinstance(cause, HfHubHTTPError) and cause.response.status_code in REFUSALS:
        status = cause.response.status_code
        error_class, hint = REFUSALS[status]
        raise error_class(f"{repo_id} was not pushed ({status}): {hint}") from error
    if not isinstance(cause, httpx2.TransportError):
        raise error
