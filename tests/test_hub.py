"""What is pushed to a local Hub over HTTP and pulled by a process without the package."""

import json
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard, parse_eval_result_entries
from huggingface_hub.errors import HfHubHTTPError
from peft import get_peft_model
from transformers import AutoModel, AutoModelForImageTextToText, AutoProcessor, pipeline
from typer.testing import CliRunner

from hf_talking_points import MINI_DESCRIPTOR, MINI_LOCALIZER, paper_lora_config
from hf_talking_points.cli import app
from hf_talking_points.hub import push_checkpoint

ROOT = Path(__file__).parent.parent
CARDS = ROOT / "model_cards"
CODE = {file.name for file in (ROOT / "hf_talking_points" / "models").glob("*.py")}
CODE.remove("__init__.py")
RESULTS_FILE = ".eval_results/hf_talking_points.yaml"
POINTS = [(10, 20), (60.5, 30)]
TEXTS = ["red green", "the cat"]


def save(parts, folder):
    """Saves a model or adapter and its processor."""
    for part in parts:
        part.save_pretrained(folder)
    return folder


@pytest.fixture
def descriptor_folder(make_descriptor, tmp_path):
    """A tiny descriptor, saved."""
    return save(make_descriptor(), tmp_path / "descriptor")


@pytest.fixture
def localizer_folder(make_localizer, tmp_path):
    """A tiny localizer, saved."""
    return save(make_localizer(head="heatmap"), tmp_path / "localizer")


@pytest.fixture
def no_waiting(monkeypatch):
    """The client does not wait between its attempts."""
    monkeypatch.setattr("time.sleep", lambda seconds: None)


def files_of(hub, repo_id):
    """{path: bytes} of the main branch."""
    return hub.repos[f"models/{repo_id}"]


def push_by_command(*arguments):
    return CliRunner().invoke(app, ["push", *map(str, arguments)])


def programs_of(card):
    """The Python programs of a card."""
    blocks = card.text.split("```python\n")[1:]
    return [block.split("```")[0] for block in blocks]


@pytest.mark.parametrize("folder", [MINI_DESCRIPTOR, MINI_LOCALIZER])
def test_the_embedded_pair_is_pushed_with_its_cards(hub, folder):
    folder = Path(folder)
    repo_id = f"someone/{folder.name}"
    result = push_by_command(folder, repo_id, "--card", CARDS / f"{folder.name}.md")
    assert result.exit_code == 0, result.exception
    assert f"{hub.url}/{repo_id}/commit/" in result.output
    files = files_of(hub, repo_id)
    checkpoint_files = {file.name for file in folder.iterdir()}
    assert set(files) == checkpoint_files | CODE | {"README.md", RESULTS_FILE}
    weights = (folder / "model.safetensors").read_bytes()
    assert files["model.safetensors"] == weights  # not in another precision


def test_the_embedded_pair_works_for_a_stranger_as_its_cards_say(hub, stranger, capsys):
    pytest.importorskip("skimage")
    programs = []
    for folder in map(Path, (MINI_DESCRIPTOR, MINI_LOCALIZER)):
        repo_id = f"someone/{folder.name}"
        push_checkpoint(folder, repo_id, card=CARDS / f"{folder.name}.md")
        programs += programs_of(ModelCard.load(repo_id))
    assert len(programs) == 4
    program = "\n".join(programs)
    from_hub = stranger(program)
    from_cache = stranger(program, HF_HUB_OFFLINE="1", HF_ENDPOINT="http://127.0.0.1:9")
    capsys.readouterr()
    exec(program.replace("someone/", f"{Path(MINI_DESCRIPTOR).parent}/"), {})
    with_package = capsys.readouterr().out
    assert from_hub == from_cache == with_package
    assert len(from_hub.splitlines()) == 6
    assert "cat" in from_hub


def test_without_a_card_the_embedded_pair_gets_a_short_one(hub):
    push_checkpoint(MINI_LOCALIZER, "someone/bare")
    card = ModelCard.load("someone/bare")
    assert 'model="someone/bare"' in card.text
    assert RESULTS_FILE not in files_of(hub, "someone/bare")


def test_model_and_processor_pushed_apart_are_whole(hub, make_descriptor):
    model, processor = make_descriptor()
    model.push_to_hub("someone/apart")
    files = files_of(hub, "someone/apart")
    model_files = {"config.json", "generation_config.json", "model.safetensors"}
    assert set(files) == CODE | model_files | {"README.md"}
    processor.push_to_hub("someone/apart")
    card = ModelCard.load("someone/apart")
    assert card.data.pipeline_tag == "image-text-to-text"
    assert 'model="someone/apart"' in card.text


def test_a_stranger_pushes_on_what_it_pulled(
    hub, stranger, make_descriptor, random_image, tmp_path
):
    model, processor = make_descriptor()
    model.push_to_hub("someone/apart")
    processor.push_to_hub("someone/apart")
    random_image().save(tmp_path / "image.png")
    program = f"""
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

def describe(repo_id):
    model = AutoModelForImageTextToText.from_pretrained(repo_id, trust_remote_code=True)
    processor = AutoProcessor.from_pretrained(repo_id, trust_remote_code=True)
    inputs = processor(images=Image.open("image.png"), points={POINTS})
    print(processor.batch_decode(model.generate(**inputs, max_new_tokens=8)))
    return model, processor

for part in describe("someone/apart"):
    part.push_to_hub("someone/again")
describe("someone/again")
"""
    inputs = processor(images=random_image(), points=POINTS)
    expected = processor.batch_decode(model.generate(**inputs, max_new_tokens=8))
    printed = stranger(program, HF_TOKEN="hf_x", HF_HUB_DISABLE_XET="1").splitlines()
    assert [line for line in printed if line.startswith("[")] == [repr(expected)] * 2
    files = files_of(hub, "someone/again")
    assert set(files) == set(files_of(hub, "someone/apart"))
    assert b"someone/apart" not in files["config.json"]


def test_pushed_pipelines_and_their_revisions(
    hub, stranger, make_localizer, random_image, tmp_path
):
    random_image().save(tmp_path / "image.png")
    expected = []
    for seed, revision in ((0, None), (1, "second")):
        model, processor = make_localizer(head="heatmap", seed=seed)
        locate = pipeline("point-localization", model=model, processor=processor)
        locate.push_to_hub("someone/located", revision=revision)
        expected.append(repr(locate(random_image(), text=TEXTS)))
    assert expected[0] != expected[1]
    program = f"""
from transformers import pipeline
for revision in ("main", "second"):
    locate = pipeline(
        "point-localization", model="someone/located", revision=revision, trust_remote_code=True
    )
    print(locate("image.png", text={TEXTS}))
"""
    assert stranger(program).strip().splitlines()[-2:] == expected


def test_a_plain_save_stays_plain_and_a_saved_push_is_complete(
    hub, make_localizer, tmp_path
):
    model, _ = make_localizer()
    model.save_pretrained(tmp_path / "plain")
    assert not {file.name for file in (tmp_path / "plain").iterdir()} & CODE
    model.save_pretrained(
        tmp_path / "pushed", push_to_hub=True, repo_id="someone/saved"
    )
    files = files_of(hub, "someone/saved")
    assert set(files) >= CODE
    assert (
        "AutoModelForKeypointDetection" in json.loads(files["config.json"])["auto_map"]
    )


def make_adapter(base, folder, **options):
    """Saves an adapter of a descriptor; returns model and processor."""
    model = AutoModelForImageTextToText.from_pretrained(base)
    processor = AutoProcessor.from_pretrained(base)
    model = get_peft_model(model, paper_lora_config(r=2, **options)).eval()
    save((model, processor), folder)
    return model, processor


def test_adapters_record_their_base(hub, descriptor_folder, tmp_path):
    push_checkpoint(descriptor_folder, "someone/base")
    make_adapter("someone/base", tmp_path / "adapter")
    push_checkpoint(tmp_path / "adapter", "someone/adapter")
    files = files_of(hub, "someone/adapter")
    assert "model.safetensors" not in files
    assert set(files) >= CODE | {"adapter_model.safetensors"}
    adapter_config = json.loads(files["adapter_config.json"])
    assert adapter_config["base_model_name_or_path"] == "someone/base"
    card = ModelCard.load("someone/adapter")
    assert card.data.base_model == "someone/base"
    assert card.data.library_name == "peft"
    assert 'model="someone/adapter"' in card.text


def test_adapters_load_for_a_stranger(
    hub, stranger, descriptor_folder, random_image, tmp_path
):
    push_checkpoint(descriptor_folder, "someone/base")
    model, processor = make_adapter(
        "someone/base", tmp_path / "adapter", init_lora_weights=False
    )
    push_checkpoint(tmp_path / "adapter", "someone/adapter")
    random_image().save(tmp_path / "image.png")
    program = f"""
from peft import PeftModel
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor, pipeline

def load(repo_id):
    return AutoModelForImageTextToText.from_pretrained(repo_id, trust_remote_code=True)

def generate(model):
    return model.generate(**inputs, max_new_tokens=8).tolist()

processor = AutoProcessor.from_pretrained("someone/adapter", trust_remote_code=True)
inputs = processor(images=Image.open("image.png"), points={POINTS})
base = load("someone/base")
describe = pipeline(
    "point-description", model="someone/adapter", trust_remote_code=True, max_new_tokens=8
)
print({{
    "base": generate(base),
    "over the base": generate(PeftModel.from_pretrained(base, "someone/adapter")),
    "direct": generate(load("someone/adapter")),
    "described": describe("image.png", points={POINTS}),
}})
"""
    answers = eval(stranger(program).strip().splitlines()[-1])
    inputs = processor(images=random_image(), points=POINTS)
    expected = model.generate(**inputs, max_new_tokens=8)
    assert answers["base"] != expected.tolist()
    assert answers["over the base"] == expected.tolist()
    assert answers["direct"] == expected.tolist()
    texts = processor.batch_decode(expected[:, -8:], skip_special_tokens=True)
    described = [row["description"] for row in answers["described"]]
    assert described == [text.strip() for text in texts]


def test_adapters_of_a_local_base_are_not_pushed(hub, descriptor_folder, tmp_path):
    make_adapter(descriptor_folder, tmp_path / "adapter")
    with pytest.raises(ValueError, match="push it first"):
        push_checkpoint(tmp_path / "adapter", "someone/adapter")
    assert hub.repos == {}


@pytest.mark.parametrize("missing", ["config.json", "processor_config.json"])
def test_folders_that_are_no_checkpoints_are_not_pushed(
    hub, descriptor_folder, missing
):
    (descriptor_folder / missing).unlink()
    with pytest.raises(FileNotFoundError, match=missing):
        push_checkpoint(descriptor_folder, "someone/broken")
    assert hub.repos == {}


def test_models_of_other_types_are_not_pushed(hub, descriptor_folder):
    (descriptor_folder / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(ValueError, match="holds a llama"):
        push_checkpoint(descriptor_folder, "someone/llama")
    assert hub.repos == {}


def test_only_the_checkpoint_is_pushed(hub, localizer_folder):
    saved = {file.name for file in localizer_folder.iterdir()}
    (localizer_folder / "checkpoint-3").mkdir()
    for name in (
        "checkpoint-3/model.safetensors",
        "optimizer.pt",
        "training_args.bin",
        "trainer_state.json",
        "photo.png",
        "log.txt",
        "api_key.txt",
        ".kaggle.json",
        ".env",
        "client_secret.json",
        "optimizer.safetensors",
    ):
        (localizer_folder / name).write_text("x")
    (localizer_folder / "notes.txt").symlink_to(localizer_folder.parent)
    push_checkpoint(localizer_folder, "someone/clean")
    files = files_of(hub, "someone/clean")
    pushed = {name for name in files if not name.endswith(".py")}
    assert pushed == {"README.md", *saved}


def test_the_folders_own_card_is_pushed(hub, localizer_folder):
    (localizer_folder / "README.md").write_text("---\nlicense: mit\n---\nMine.\n")
    push_checkpoint(localizer_folder, "someone/mine")
    card = ModelCard.load("someone/mine")
    assert card.text.strip() == "Mine."
    assert card.data.license == "mit"


def test_a_card_of_placeholders_is_replaced(hub, localizer_folder):
    (localizer_folder / "README.md").write_text(
        "---\n{}\n---\n[More Information Needed]\n"
    )
    push_checkpoint(localizer_folder, "someone/mine")
    assert 'model="someone/mine"' in ModelCard.load("someone/mine").text


def test_a_given_card_names_the_repo(hub, localizer_folder, tmp_path):
    text = (CARDS / "talking-points-localizer.md").read_text()
    card = tmp_path / "fine.md"
    card.write_text(text.replace("someone/talking-points-localizer", "someone/fine"))
    push_checkpoint(localizer_folder, "someone/other", card=card)
    pushed = ModelCard.load("someone/other")
    assert "someone/fine" not in pushed.text
    assert 'model="someone/other"' in pushed.text


def test_results_of_a_card_are_files(hub, localizer_folder):
    push_checkpoint(
        localizer_folder, "someone/other", card=CARDS / "talking-points-localizer.md"
    )
    files = files_of(hub, "someone/other")
    entries = parse_eval_result_entries(yaml.safe_load(files[RESULTS_FILE]))
    results = ModelCard(files["README.md"].decode()).data.eval_results
    assert [entry.value for entry in entries] == [
        result.metric_value for result in results
    ]
    assert len({entry.task_id for entry in entries}) == 6


def test_a_branch_is_pushed_beside_main(hub, localizer_folder):
    push_checkpoint(localizer_folder, "someone/mine", revision="first")
    assert "model.safetensors" not in files_of(hub, "someone/mine")
    model = AutoModel.from_pretrained("someone/mine", revision="first")
    assert type(model).__name__ == "PointLocalizerForKeypointDetection"


def test_private_repos_are_for_their_owner(
    hub, localizer_folder, monkeypatch, tmp_path
):
    push_checkpoint(localizer_folder, "someone/secret", private=True)
    assert hub.private == {"models/someone/secret"}
    AutoModel.from_pretrained("someone/secret", cache_dir=tmp_path / "owner")
    hub.tokens["hf_other"] = "other"
    message = "(?s)someone/secret is not a local folder.*private repository.*token"
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    with pytest.raises(OSError, match=message):
        AutoModel.from_pretrained("someone/secret", cache_dir=tmp_path / "other")
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(OSError, match=message):
        AutoModel.from_pretrained("someone/secret", cache_dir=tmp_path / "nobody")


def assert_not_pushed(result, error_class, message):
    """A command failed with an error, and said nothing of a commit."""
    assert isinstance(result.exception, error_class)
    assert message in str(result.exception)
    assert "commit" not in result.output


@pytest.mark.parametrize(
    "token, message", [("hf_unknown", "no valid token"), ("hf_other", "may not write")]
)
def test_tokens_that_may_not_push(hub, localizer_folder, monkeypatch, token, message):
    hub.tokens["hf_other"] = "other"
    monkeypatch.setenv("HF_TOKEN", token)
    result = push_by_command(localizer_folder, "someone/mine")
    assert_not_pushed(result, PermissionError, message)
    assert hub.repos == {}


UPLOAD = r"PUT /\w{64}"
COMMIT = r"POST /api/models/someone/mine/commit/main"


@pytest.fixture
def large(hub, monkeypatch):
    """Weights are uploaded as large files, apart from the commit."""
    monkeypatch.setattr("hub_server.LARGE", 10_000)


@pytest.mark.parametrize(
    "request_, fault",
    [(UPLOAD, "drop"), (UPLOAD, 503), (UPLOAD, 429), (COMMIT, "drop")],
)
def test_a_broken_upload_is_taken_up_again(
    hub, large, no_waiting, localizer_folder, request_, fault
):
    hub.faults[request_] = [fault, fault]
    push_checkpoint(localizer_folder, "someone/mine")
    assert hub.faults[request_] == []
    weights = (localizer_folder / "model.safetensors").read_bytes()
    assert files_of(hub, "someone/mine")["model.safetensors"] == weights
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
    hub, large, no_waiting, localizer_folder, request_, fault, message
):
    hub.faults[request_] = [fault] * 100
    result = push_by_command(localizer_folder, "someone/mine")
    assert_not_pushed(result, ConnectionError, message)
    assert files_of(hub, "someone/mine") == {}
    hub.faults.clear()
    push_checkpoint(localizer_folder, "someone/mine")
    assert set(files_of(hub, "someone/mine")) >= CODE | {"model.safetensors"}


def test_other_answers_of_the_hub_are_raised_as_they_are(
    hub, no_waiting, localizer_folder
):
    hub.faults[COMMIT] = [400] * 100
    with pytest.raises(HfHubHTTPError, match="Bad request"):
        push_checkpoint(localizer_folder, "someone/mine")
    assert len(hub.faults[COMMIT]) == 99
