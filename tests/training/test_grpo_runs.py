"""Whole runs in processes of their own: killed and resumed, on two processes, of the example, pushed to a Hub."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from grpo_runs import assert_close, rollouts
from huggingface_hub import ModelCard
from safetensors.torch import load_file
from script_runs import run_program
from transformers import AutoConfig

from hf_talking_points import PointDescriptionPipeline
from hf_talking_points.hub import push_checkpoint

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", ["accelerate_ddp.yaml", "accelerate_zero2.yaml"])
def test_launch_configs_are_accelerates(name):
    config = load_config_from_file(str(ROOT / "examples" / name))
    assert config.mixed_precision == "bf16"
    assert config.num_processes == 8


RUN_AND_KILL = """
import os, signal, sys
import torch
from datasets import Dataset
from grpo_runs import build
from transformers import TrainerCallback

checkpoint, data, folder, mode = sys.argv[1:]


class Kill(TrainerCallback):
    def on_save(self, args, state, control, **kwargs):
        if state.global_step == 3 and mode == "kill":
            os.kill(os.getpid(), signal.SIGKILL)


trainer = build(
    checkpoint,
    Dataset.load_from_disk(data),
    folder,
    num_iterations=2,
    max_steps=6,
    save_strategy="steps",
    save_steps=1,
)
trainer.add_callback(Kill())
trainer.train(resume_from_checkpoint=mode == "resume")
torch.save(trainer.model.state_dict(), folder + "/final.pt")
"""


@pytest.mark.slow
def test_resuming_after_a_kill(policy_checkpoint, four_points, tmp_path):
    four_points.save_to_disk(tmp_path / "data")

    def run(folder, mode):
        arguments = [policy_checkpoint, tmp_path / "data", tmp_path / folder, mode]
        return run_program(RUN_AND_KILL, *arguments)

    killed = run("cut", "kill")
    assert killed.returncode == -signal.SIGKILL, killed.stderr[-3000:]
    finals = []
    for folder, mode in (("cut", "resume"), ("whole", "whole")):
        ran = run(folder, mode)
        assert ran.returncode == 0, ran.stderr[-3000:]
        finals.append(torch.load(tmp_path / folder / "final.pt"))
    assert_close(*finals, 1e-6)


LOSS_AND_GRADIENTS = """
import sys
import torch
from datasets import Dataset
from grpo_runs import build, repeated
from hf_talking_points import LocalizerReward

checkpoint, localizer, data, folder = sys.argv[1:]
dataset = Dataset.load_from_disk(data)
trainer = build(checkpoint, dataset, folder, per_device_train_batch_size=6)
trainer.current_gradient_accumulation_steps = 1
accelerator = trainer.accelerator
rows = repeated(dataset)
count = len(rows) // accelerator.num_processes
start = accelerator.process_index * count
inputs = {}
for name, value in torch.load(folder + "/recorded.pt").items():
    inputs[name] = value[start : start + count] if value.ndim else value
rows = rows[start : start + count]
inputs["samples"] = trainer._make_samples(rows)
model = accelerator.prepare(trainer.model).train()
loss = trainer.compute_loss(model, inputs)
accelerator.backward(loss)
results = {"loss": accelerator.gather(loss.detach()).mean()}
for name, parameter in accelerator.unwrap_model(model).named_parameters():
    if parameter.grad is not None:
        results[name] = parameter.grad
texts = ["a nose of a dog", "the nose of a cat", "a nose"] * 4
LocalizerReward(localizer)(
    texts[start : start + count],
    [row["image"] for row in rows],
    [row["point"] for row in rows],
    log_metric=trainer._log_metric,
)
for name, [value] in trainer._pending_metrics.items():
    results[name] = accelerator.gather(torch.tensor(value)).mean()
if accelerator.is_main_process:
    torch.save(results, f"{folder}/{accelerator.num_processes}.pt")
accelerator.wait_for_everyone()
accelerator.end_training()
"""
TWO_PROCESSES = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]


@pytest.mark.slow
def test_two_processes_give_loss_gradients_and_metrics_of_one(
    make_trainer, make_localizer, policy_checkpoint, four_points, tmp_path
):
    """On the same recorded completions."""
    for part in make_localizer(head="mlp"):
        part.save_pretrained(tmp_path / "localizer")
    four_points.save_to_disk(tmp_path / "data")
    trainer = make_trainer()
    torch.manual_seed(0)
    recorded = rollouts(trainer, four_points)
    del recorded["samples"]
    recorded["ref_per_token_logps"] += 0.3  # a KL divergence that is not 0
    torch.save(recorded, tmp_path / "recorded.pt")
    program = tmp_path / "run.py"
    program.write_text(LOSS_AND_GRADIENTS)
    for launcher in ([], TWO_PROCESSES):
        folders = [tmp_path / "localizer", tmp_path / "data", tmp_path]
        arguments = [policy_checkpoint, *folders]
        ran = run_program(program, *arguments, launcher=launcher)
        assert ran.returncode == 0, ran.stderr[-3000:]
    of_one, of_two = torch.load(tmp_path / "1.pt"), torch.load(tmp_path / "2.pt")
    assert_close(of_two, of_one, 1e-5)


def coco_keypoints(photo_folder):
    """The photos of the folder as a file of COCO keypoints."""
    images = []
    annotations = []
    for number, line in enumerate(
        (photo_folder / "objects.jsonl").read_text().splitlines()
    ):
        record = json.loads(line)
        width, height = record["size"]
        image = {
            "id": number,
            "file_name": record["image"],
            "width": width,
            "height": height,
        }
        images.append(image)
        annotation = {
            "id": number,
            "image_id": number,
            "category_id": 1,
            "bbox": [0, 0, width, height],
            "keypoints": [10, 10, 2, 20, 30, 2],
        }
        annotations.append(annotation)
    categories = [{"id": 1, "name": "dog", "keypoints": ["nose", "left_eye"]}]
    return {"images": images, "annotations": annotations, "categories": categories}


@pytest.mark.slow
def test_example_runs_from_a_clone(
    policy_checkpoint, make_localizer, photo_folder, tmp_path
):
    """On COCO keypoints and on a folder, in turn; the second run goes on from the first one's checkpoint."""
    for part in make_localizer(head="mlp"):
        part.save_pretrained(tmp_path / "localizer")
    annotations = tmp_path / "coco.json"
    annotations.write_text(json.dumps(coco_keypoints(photo_folder)))
    options = yaml.safe_load((ROOT / "examples/run_grpo.yaml").read_text())
    options |= {
        "model_name_or_path": policy_checkpoint,
        "localizers": [str(tmp_path / "localizer")],
        "output_dir": str(tmp_path / "run"),
        "half_precision_dir": str(tmp_path / "half"),
        "per_device_train_batch_size": 6,
        "max_eval_points": 4,
        "per_device_eval_batch_size": 6,
        "save_steps": 1,
        "eval_steps": 1,
        "categories": ["dog"],
    }
    coco = {"coco_annotations": str(annotations), "coco_images": str(photo_folder)}
    folder = {"data_dir": [str(photo_folder)]}
    config = tmp_path / "run.yaml"
    for steps, source in ((1, coco), (2, folder)):
        config.write_text(yaml.safe_dump({**options, **source, "max_steps": steps}))
        ran = subprocess.run(
            [sys.executable, "examples/run_grpo.py", "--config", str(config)],
            capture_output=True,
            text=True,
            cwd=ROOT,
        )
        assert ran.returncode == 0, ran.stderr[-3000:]
    assert (tmp_path / "run" / "checkpoint-2").is_dir()
    assert (tmp_path / "run" / "processor_config.json").is_file()
    for name, dtype in (("run", torch.float32), ("half", torch.float16)):
        config = AutoConfig.from_pretrained(tmp_path / name)
        assert config.model_type == "point_descriptor"
        weights = load_file(tmp_path / name / "model.safetensors")
        assert {tensor.dtype for tensor in weights.values()} == {dtype}, name


STRANGERS_PROGRAM = """
from transformers import pipeline
describe = pipeline(
    "point-description", model="someone/policy", trust_remote_code=True, max_new_tokens=6
)
print(describe("image.png", points=[{point}]))
"""


def test_a_pushed_adapter_records_its_base_and_loads_without_the_package(
    hub, stranger, policy_checkpoint, four_points, make_trainer, tmp_path
):
    push_checkpoint(policy_checkpoint, "someone/base")
    trainer = make_trainer(
        checkpoint="someone/base",
        lora=True,
        push_to_hub=True,
        hub_model_id="someone/policy",
    )
    trainer.train()
    trainer.push_to_hub()
    files = hub.repos["models/someone/policy"]
    assert "model.safetensors" not in files
    assert (
        json.loads(files["adapter_config.json"])["base_model_name_or_path"]
        == "someone/base"
    )
    card = ModelCard(files["README.md"].decode())
    assert card.data.base_model == "someone/base"
    assert card.data.library_name == "peft"
    assert "grpo" in card.data.tags

    image, point = four_points[0]["image"], four_points[0]["point"]
    image.save(tmp_path / "image.png")
    merged = trainer.model.eval().merge_and_unload()
    describe = PointDescriptionPipeline(
        model=merged, processor=trainer.processing_class
    )
    expected = describe(image, points=[point], max_new_tokens=6)
    printed = stranger(STRANGERS_PROGRAM.format(point=point))
    assert printed.strip().splitlines()[-1] == repr(expected)


def test_an_adapter_that_nobody_could_load_is_not_pushed(hub, make_trainer):
    with pytest.raises(ValueError, match="push it first"):
        make_trainer(lora=True, push_to_hub=True, hub_model_id="someone/policy")
    trainer = make_trainer(lora=True, hub_model_id="someone/policy")
    with pytest.raises(ValueError, match="push it first"):
        trainer.push_to_hub()
    assert hub.repos == {}
