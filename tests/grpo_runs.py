"""Trainers of GRPO and RLOO on tiny models, and what the tests compare of them."""

import torch
from transformers import AutoProcessor

from hf_talking_points import PointGRPOTrainer, paper_lora_config

G = 3  # completions for each point
OPTIONS = {
    "per_device_train_batch_size": 4 * G,
    "max_completion_length": 6,
    "learning_rate": 1e-3,
    "max_steps": 2,
    "logging_steps": 1,
    "report_to": "none",
    "save_strategy": "no",
    "use_cpu": True,
    "gradient_checkpointing": False,
    "disable_tqdm": True,
    "seed": 0,
}


def length_reward(completion_ids, **kwargs):
    return [float(sum(ids) % 7) for ids in completion_ids]


def make_args(folder, trainer_class=PointGRPOTrainer, **options):
    return trainer_class.config_class(output_dir=str(folder), **{**OPTIONS, **options})


def build(
    checkpoint,
    dataset,
    folder,
    reward=length_reward,
    lora=False,
    trainer_class=PointGRPOTrainer,
    model=None,
    eval_dataset=None,
    **options,
):
    return trainer_class(
        model=model or checkpoint,
        reward_funcs=reward,
        args=make_args(folder, trainer_class, **options),
        train_dataset=dataset,
        eval_dataset=eval_dataset,
        processing_class=AutoProcessor.from_pretrained(checkpoint),
        peft_config=paper_lora_config(r=4, lora_alpha=8) if lora else None,
    )


def repeated(rows, count=G):
    """Each row as often as it gets completions."""
    return [row for row in rows for _ in range(count)]


def rollouts(trainer, dataset):
    """One generation batch, as `_prepare_inputs` would have it before shuffling."""
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 1
    return trainer._generate_and_score_completions(repeated(dataset))


def log_probs(trainer, output, model=None):
    """Of the completions of a generation batch, of shape `(rows, length)`, 0 behind their ends."""
    trainer._samples = output["samples"]
    input_ids = torch.cat([output["prompt_ids"], output["completion_ids"]], 1)
    attention_mask = torch.cat([output["prompt_mask"], output["completion_mask"]], 1)
    length = output["completion_ids"].shape[1]
    values, *_ = trainer._get_per_token_logps_and_entropies(
        trainer.model if model is None else model,
        input_ids,
        attention_mask,
        length,
        batch_size=2 * G,
    )
    return values * output["completion_mask"]


def plain_log_probs(model, processor, dataset, output):
    """The same, row by row, of the model alone."""
    result = []
    for number, completion in enumerate(output["completion_ids"]):
        row = dataset[number // G]
        inputs = processor(images=row["image"], points=[row["point"]])
        del inputs["attention_mask"]
        prompt = inputs.pop("input_ids")[0]
        input_ids = torch.cat([prompt, completion])[None]
        logits = model(input_ids=input_ids, **inputs).logits[0]  # (length, vocabulary)
        predicting = logits[len(prompt) - 1 : -1].log_softmax(-1)
        values = predicting.gather(1, completion[:, None])[:, 0]
        result.append(values * output["completion_mask"][number])
    return torch.stack(result)


def gradients(trainer, values):
    """Of a weighted sum of values, by parameter."""
    trainer.model.zero_grad()
    weights = torch.linspace(-1, 1, values.numel()).view_as(values)
    (values * weights).sum().backward()
    result = {}
    for name, parameter in trainer.model.named_parameters():
        if parameter.grad is not None:
            result[name] = parameter.grad.clone()
    return result


def parameters(trainer):
    """A copy of all parameters."""
    return {
        name: value.detach().clone() for name, value in trainer.model.named_parameters()
    }


def logged(trainer, key):
    """What a run logged under a name, step after step."""
    return [entry[key] for entry in trainer.state.log_history if key in entry]


def assert_close(tensors, expected, relative):
    """Each tensor to a relative tolerance; some gradients, such as that of a bias before a norm, are but rounding."""
    assert tensors.keys() == expected.keys() and tensors
    largest = max(value.norm() for value in expected.values())
    for name, value in tensors.items():
        limit = relative * expected[name].norm() + 1e-6 * largest
        assert (value - expected[name]).norm() <= limit, name
