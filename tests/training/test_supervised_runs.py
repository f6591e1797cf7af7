"""Supervised training and evaluation on two processes."""

import pytest
import torch
from script_runs import run_program
from supervised_runs import draw_photos

UPDATE_AND_JUDGE = """
import sys
import torch
from conftest import build_descriptor
from supervised_runs import descriptor_trainer
from transformers import TrainerCallback
from hf_talking_points.data.rows import load_points

photos, localizer, folder = sys.argv[1:]


class Kept(TrainerCallback):
    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        named = dict(getattr(model, "module", model).named_parameters())
        self.gradients = {name: p.grad.clone() for name, p in named.items() if p.grad is not None}


rows = load_points(photos)["train"]
photos_of_update = rows.select(range(4 * 3))
trainer = descriptor_trainer(
    build_descriptor,
    photos_of_update,
    folder + "/run",
    rows,
    model_fields={"point_mask": "predicted"},
    heads_weight=1.0,
    surroundings=0.4,
    per_device_train_batch_size=1,
    gradient_accumulation_steps=STEPS,
    max_steps=1,
    max_grad_norm=0.0,
    gradient_checkpointing=False,
    localizer=localizer,
    judged_photos=3,
)
kept = Kept()
trainer.add_callback(kept)
trainer.train()
located = []


def count(module, args, kwargs):
    located.append(len(kwargs["input_ids"]))


trainer.locate.model.register_forward_pre_hook(count, with_kwargs=True)
metrics = trainer.evaluate()
judged = {name: metrics[name] for name in ("eval_mpck", "eval_n", "eval_category")}
everything = trainer.accelerator.gather(torch.tensor([sum(located)]))
seen = [None] * trainer.accelerator.num_processes
if len(seen) > 1:
    torch.distributed.all_gather_object(seen, judged)
else:
    seen = [judged]
if trainer.is_world_process_zero():
    logs = trainer.state.log_history[0]
    losses = {name: logs[name] for name in ("loss", "heads_loss", "mask_loss")}
    result = (kept.gradients, losses, seen, everything.sum().item())
    torch.save(result, f"{folder}/{len(seen)}.pt")
"""
TWO_PROCESSES = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]


@pytest.mark.slow
def test_two_processes_train_and_judge_like_one(make_localizer, tmp_path):
    """With the losses of heads and masks, of which a process may know nothing; each point is judged once."""
    draw_photos(tmp_path / "photos")
    for part in make_localizer(head="mlp"):
        part.save_pretrained(tmp_path / "localizer")
    for launcher, steps in ([], "4"), (TWO_PROCESSES, "2"):
        program = tmp_path / "run.py"
        program.write_text(UPDATE_AND_JUDGE.replace("STEPS", steps))
        folders = [tmp_path / "photos", tmp_path / "localizer", tmp_path]
        ran = run_program(program, *folders, launcher=launcher)
        assert ran.returncode == 0, ran.stderr[-3000:]
    gradients, losses, [judged], located = torch.load(tmp_path / "1.pt")
    other_gradients, other_losses, seen, located_by_two = torch.load(tmp_path / "2.pt")
    assert located == located_by_two == 9
    assert judged["eval_n"] == 9
    assert seen == [judged, judged]
    assert other_losses == pytest.approx(losses, rel=1e-4)
    for name, gradient in gradients.items():
        torch.testing.assert_close(
            other_gradients[name], gradient, atol=1e-3, rtol=1e-2
        )
