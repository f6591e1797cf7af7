"""Half-precision checkpoints; what is pushed to a local Hub over HTTP and pulled by a process without the package."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from huggingface_hub import ModelCard, parse_eval_result_entries
from peft import get_peft_model
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForImageTextToText, AutoProcessor, pipeline
from typer.testing import CliRunner

from hf_talking_points import MINI_DESCRIPTOR, MINI_LOCALIZER, paper_lora_config
from hf_talking_points.cli import app
from hf_talking_points.hub import push_checkpoint, save_half_precision

CODE = {file.name for file in (Path(MINI_DESCRIPTOR).parent.parent / "models").glob("*.py")} - {
    "__init__.py"
}
POINTS = [(10, 20), (60.5, 30)]
TEXTS = ["red green", "the cat"]


def test_half_precision_is_half_the_size_and_computes_in_full(
    make_localizer, random_image, tmp_path
):
    model, processor = make_localizer(head="heatmap")
    full = {name: value.clone() for name, value in model.state_dict().items()}
    save_half_precision(model, processor, tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    assert {value.dtype for value in stored.values() if value.is_floating_point()} == {
        torch.float16
    }
    loaded = AutoModel.from_pretrained(tmp_path)
    for name, value in loaded.state_dict().items():
        assert value.dtype in (torch.float32, torch.int64) and torch.equal(
            value, full[name].to(full[name].dtype).half().to(value.dtype)
        )
    assert loaded(**processor(random_image(), "red")).points.dtype == torch.float32
    config = json.loads((tmp_path / "config.json").read_text())
    assert (
        config["dtype"]
        == config["text_config"]["dtype"]
        == config["vision_config"]["dtype"]
        == "float32"
    )


def test_weights_too_large_for_half_precision_are_an_error(make_localizer, tmp_path):
    model, processor = make_localizer()
    torch.nn.init.constant_(model.point_head[1].weight, 1e6)
    with pytest.raises(ValueError, match="point_head.1.weight"):
        save_half_precision(model, processor, tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.fixture
def folders(make_descriptor, make_localizer, tmp_path):
    """A tiny descriptor and a tiny localizer, saved."""
    for name, parts in (
        ("descriptor", make_descriptor()),
        ("localizer", make_localizer(head="heatmap")),
    ):
        for part in parts:
            part.save_pretrained(tmp_path / name)
    return tmp_path / "descriptor", tmp_path / "localizer"


@pytest.fixture
def no_waiting(monkeypatch):
    """The client does not wait between its attempts."""
    monkeypatch.setattr("time.sleep", lambda seconds: None)


def blocks(card):
    """The Python programs of a card."""
    return [part.split("```")[0] for part in card.split("```python\n")[1:]]


def test_pushed_pair_works_for_a_stranger_as_its_cards_say(hub, stranger, capsys, monkeypatch):
    pytest.importorskip("skimage")
    monkeypatch.chdir(Path(MINI_DESCRIPTOR).parent)
    for folder in (MINI_DESCRIPTOR, MINI_LOCALIZER):
        result = CliRunner().invoke(
            app, ["push", Path(folder).name, f"someone/{Path(folder).name}"]
        )
        assert (
            result.exit_code == 0
            and f"{hub.url}/someone/{Path(folder).name}/commit/" in result.output
        )
        files = hub.repos[f"models/someone/{Path(folder).name}"]
        assert set(files) == {f.name for f in Path(folder).iterdir()} | CODE | {
            "README.md",
            ".eval_results/hf_talking_points.yaml",
        }
        assert (
            files["model.safetensors"] == (Path(folder) / "model.safetensors").read_bytes()
        )  # not in another precision
    programs = [
        block
        for folder in (MINI_DESCRIPTOR, MINI_LOCALIZER)
        for block in blocks(ModelCard.load(f"someone/{Path(folder).name}").text)
    ]
    assert len(programs) == 4
    # from the Hub without the package, from the cache without the Hub, and here from the folder with the package
    first, again = (
        stranger("\n".join(programs)),
        stranger("\n".join(programs), HF_HUB_OFFLINE="1", HF_ENDPOINT="http://127.0.0.1:9"),
    )
    capsys.readouterr()
    exec("\n".join(programs).replace("someone/", f"{Path(MINI_DESCRIPTOR).parent}/"), {})
    assert (
        first == again == capsys.readouterr().out
        and len(first.splitlines()) == 6
        and "cat" in first
    )


def test_model_and_processor_pushed_apart_work_for_a_stranger(
    hub, stranger, make_descriptor, random_image, tmp_path
):
    model, processor = make_descriptor()
    model.push_to_hub("someone/apart")
    assert set(hub.repos["models/someone/apart"]) == CODE | {
        "README.md",
        "config.json",
        "generation_config.json",
        "model.safetensors",
    }
    processor.push_to_hub("someone/apart")
    card = ModelCard.load("someone/apart")
    assert card.data.pipeline_tag == "image-text-to-text" and 'model="someone/apart"' in card.text
    random_image().save(tmp_path / "image.png")
    program = f"""
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor
model = AutoModelForImageTextToText.from_pretrained("someone/apart", trust_remote_code=True)
processor = AutoProcessor.from_pretrained("someone/apart", trust_remote_code=True)
inputs = processor(images=Image.open("image.png"), points={POINTS})
model.push_to_hub("someone/again")
processor.push_to_hub("someone/again")
again = AutoModelForImageTextToText.from_pretrained("someone/again", trust_remote_code=True)
AutoProcessor.from_pretrained("someone/again", trust_remote_code=True)
print([processor.batch_decode(some.generate(**inputs, max_new_tokens=8)) for some in (model, again)])
"""
    inputs = processor(images=random_image(), points=POINTS)
    expected = processor.batch_decode(model.generate(**inputs, max_new_tokens=8))
    assert stranger(program, HF_TOKEN="hf_x", HF_HUB_DISABLE_XET="1").strip().splitlines()[
        -1
    ] == repr([expected] * 2)
    apart, again = (hub.repos[f"models/someone/{name}"] for name in ("apart", "again"))
    assert set(again) == set(apart) and b"someone/apart" not in again["config.json"]


def test_pushed_pipelines_and_their_revisions(
    hub, stranger, make_localizer, random_image, tmp_path
):
    random_image().save(tmp_path / "image.png")
    expected = {}
    for seed, revision in ((0, None), (1, "second")):
        model, processor = make_localizer(head="heatmap", seed=seed)
        locate = pipeline("point-localization", model=model, processor=processor)
        locate.push_to_hub("someone/located", revision=revision)
        expected[revision] = locate(random_image(), text=TEXTS)
    assert expected[None] != expected["second"]
    program = f"""
from transformers import pipeline
for revision in ("main", "second"):
    locate = pipeline("point-localization", model="someone/located", revision=revision, trust_remote_code=True)
    print(locate("image.png", text={TEXTS}))
"""
    assert stranger(program).strip().splitlines()[-2:] == [
        repr(expected[None]),
        repr(expected["second"]),
    ]


def test_a_plain_save_stays_plain_and_a_saved_push_is_complete(hub, make_localizer, tmp_path):
    model, _ = make_localizer()
    model.save_pretrained(tmp_path / "plain")
    assert not {f.name for f in (tmp_path / "plain").iterdir()} & CODE
    model.save_pretrained(tmp_path / "pushed", push_to_hub=True, repo_id="someone/saved")
    files = hub.repos["models/someone/saved"]
    assert (
        set(files) >= CODE
        and "AutoModelForKeypointDetection" in json.loads(files["config.json"])["auto_map"]
    )


def test_adapters_record_their_base_and_load(hub, stranger, folders, random_image, tmp_path):
    descriptor, _ = folders
    push_checkpoint(descriptor, "someone/base")
    model, processor = (
        AutoModelForImageTextToText.from_pretrained("someone/base"),
        AutoProcessor.from_pretrained("someone/base"),
    )
    model = get_peft_model(model, paper_lora_config(r=2, init_lora_weights=False)).eval()
    for part in (model, processor):
        part.save_pretrained(tmp_path / "adapter")
    push_checkpoint(tmp_path / "adapter", "someone/adapter")
    files = hub.repos["models/someone/adapter"]
    assert "model.safetensors" not in files and set(files) >= CODE | {"adapter_model.safetensors"}
    assert json.loads(files["adapter_config.json"])["base_model_name_or_path"] == "someone/base"
    card = ModelCard.load("someone/adapter")
    assert (card.data.base_model, card.data.library_name) == (
        "someone/base",
        "peft",
    ) and 'model="someone/adapter"' in card.text
    random_image().save(tmp_path / "image.png")
    program = f"""
from peft import PeftModel
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor, pipeline
processor = AutoProcessor.from_pretrained("someone/adapter", trust_remote_code=True)
inputs = processor(images=Image.open("image.png"), points={POINTS})
base = AutoModelForImageTextToText.from_pretrained("someone/base", trust_remote_code=True)
plain = base.generate(**inputs, max_new_tokens=8)
adapted = PeftModel.from_pretrained(base, "someone/adapter").generate(**inputs, max_new_tokens=8)
direct = AutoModelForImageTextToText.from_pretrained("someone/adapter", trust_remote_code=True).generate(**inputs, max_new_tokens=8)
describe = pipeline("point-description", model="someone/adapter", trust_remote_code=True, max_new_tokens=8)
print((plain.tolist() != adapted.tolist(), adapted.tolist(), direct.tolist(), describe("image.png", points={POINTS})))
"""
    differs, adapted, direct, described = eval(stranger(program).strip().splitlines()[-1])
    expected = model.generate(**processor(images=random_image(), points=POINTS), max_new_tokens=8)
    assert differs and adapted == direct == expected.tolist()
    assert [row["description"] for row in described] == [
        text.strip() for text in processor.batch_decode(expected[:, -8:], skip_special_tokens=True)
    ]


def test_adapters_of_a_local_base_are_not_pushed(hub, folders, tmp_path):
    descriptor, _ = folders
    model = get_peft_model(
        AutoModelForImageTextToText.from_pretrained(descriptor), paper_lora_config(r=2)
    )
    for part in (model, AutoProcessor.from_pretrained(descriptor)):
        part.save_pretrained(tmp_path / "adapter")
    with pytest.raises(ValueError, match="push it first"):
        push_checkpoint(tmp_path / "adapter", "someone/adapter")
    assert hub.repos == {}


@pytest.mark.parametrize("missing", ["config.json", "processor_config.json"])
def test_folders_that_are_no_checkpoints_are_not_pushed(hub, folders, missing):
    (folders[0] / missing).unlink()
    with pytest.raises(FileNotFoundError, match=missing):
        push_checkpoint(folders[0], "someone/broken")
    assert hub.repos == {}


def test_models_of_other_types_are_not_pushed(hub, folders):
    (folders[0] / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(ValueError, match="holds a llama"):
        push_checkpoint(folders[0], "someone/llama")
    assert hub.repos == {}


def test_only_the_checkpoint_is_pushed(hub, folders):
    (folders[1] / "checkpoint-3").mkdir()
    for name in (
        "checkpoint-3/model.safetensors",
        "optimizer.pt",
        "training_args.bin",
        "trainer_state.json",
        "photo.png",
    ):
        (folders[1] / name).write_text("x")
    (folders[1] / "README.md").write_text("---\nlicense: mit\n---\nMine.\n")
    push_checkpoint(folders[1], "someone/clean")
    files = hub.repos["models/someone/clean"]
    assert {name for name in files if not name.endswith((".py", ".json"))} == {
        "README.md",
        "model.safetensors",
        "chat_template.jinja",
    }
    assert files["README.md"].decode().endswith("Mine.\n") and "trainer_state.json" not in files


def test_a_given_card_names_the_repo_and_its_results_are_files(hub, folders, tmp_path):
    card = tmp_path / "fine.md"
    card.write_text(
        (
            Path(MINI_LOCALIZER).parent.parent / "model_cards" / "talking-points-localizer.md"
        ).read_text()
    )
    card.write_text(card.read_text().replace("someone/talking-points-localizer", "someone/fine"))
    push_checkpoint(folders[1], "someone/other", card=card)
    files = hub.repos["models/someone/other"]
    pushed = ModelCard(files["README.md"].decode())
    assert "someone/fine" not in pushed.text and 'model="someone/other"' in pushed.text
    entries = parse_eval_result_entries(
        yaml.safe_load(files[".eval_results/hf_talking_points.yaml"])
    )
    assert [e.value for e in entries] == [r.metric_value for r in pushed.data.eval_results] and len(
        {e.task_id for e in entries}
    ) == 6


def test_private_repos_are_for_their_owner(hub, folders, monkeypatch, tmp_path):
    push_checkpoint(folders[1], "someone/secret", private=True)
    assert hub.private == {"models/someone/secret"}
    assert (
        "PointLocalizer"
        in type(AutoModel.from_pretrained("someone/secret", cache_dir=tmp_path / "own")).__name__
    )
    hub.tokens["hf_other"] = "other"
    for token in ("hf_other", None):
        monkeypatch.setenv("HF_TOKEN", token) if token else monkeypatch.delenv("HF_TOKEN")
        with pytest.raises(
            OSError, match="(?s)someone/secret is not a local folder.*private repository.*token"
        ):
            AutoModel.from_pretrained("someone/secret", cache_dir=tmp_path / str(token))


@pytest.mark.parametrize(
    "token, message", [("hf_unknown", "no valid token"), ("hf_other", "may not write")]
)
def test_tokens_that_may_not_push(hub, folders, monkeypatch, token, message):
    hub.tokens["hf_other"] = "other"
    monkeypatch.setenv("HF_TOKEN", token)
    result = CliRunner().invoke(app, ["push", str(folders[1]), "someone/mine"])
    assert (
        isinstance(result.exception, PermissionError)
        and message in str(result.exception)
        and "commit" not in result.output
    )
    assert hub.repos == {}


UPLOAD, COMMIT = r"PUT /\w{64}", r"POST /api/models/someone/mine/commit/main"


@pytest.fixture
def large(hub, monkeypatch):
    monkeypatch.setattr("hub_server.LARGE", 10_000)


@pytest.mark.parametrize(
    "request_, fault", [(UPLOAD, "drop"), (UPLOAD, 503), (UPLOAD, 429), (COMMIT, "drop")]
)
def test_a_broken_upload_is_taken_up_again(hub, large, no_waiting, folders, request_, fault):
    hub.faults[request_] = [fault, fault]
    push_checkpoint(folders[1], "someone/mine")
    assert hub.faults[request_] == []
    assert (
        hub.repos["models/someone/mine"]["model.safetensors"]
        == (folders[1] / "model.safetensors").read_bytes()
    )
    assert any(line.startswith("PUT") for line in hub.log)


@pytest.mark.parametrize(
    "request_, fault, message",
    [
        (UPLOAD, "drop", "connection kept breaking"),
        (COMMIT, "drop", "connection kept breaking"),
        (UPLOAD, 429, "limits requests"),
        (COMMIT, 429, "limits requests"),
    ],
)
def test_an_upload_that_keeps_breaking_is_an_error_and_no_commit(
    hub, large, no_waiting, folders, request_, fault, message
):
    hub.faults[request_] = [fault] * 100
    result = CliRunner().invoke(app, ["push", str(folders[1]), "someone/mine"])
    assert (
        isinstance(result.exception, ConnectionError)
        and message in str(result.exception)
        and "commit" not in result.output
    )
    assert hub.repos["models/someone/mine"] == {}
    hub.faults.clear()
    push_checkpoint(folders[1], "someone/mine")
    assert set(hub.repos["models/someone/mine"]) >= CODE | {"model.safetensors"}
