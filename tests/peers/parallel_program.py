"""Loss and gradients of two processes against those of one; test_devices.py runs it under torchrun.

Each process has a batch of its own; the gradients of both are averaged. What is found wrong lies in found.json."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from accelerate import Accelerator, FullyShardedDataParallelPlugin
from peer_models import (
    FIELDS,
    asked,
    gradients,
    load,
    load_processor,
    loss_of,
)
from PIL import Image
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

FOLDER = Path(sys.argv[1])


def batch(kind, folder, rank):
    """Inputs of a picture for each process."""
    noise = np.random.default_rng(rank).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    processor = load_processor(folder)
    return processor(images=Image.fromarray(noise), **asked(kind))


def whole(gradient):
    return gradient.full_tensor() if hasattr(gradient, "full_tensor") else gradient


def distributed_data_parallel(model):
    return DistributedDataParallel(model)


def sharded(model):
    mesh = init_device_mesh("cpu", (2,))
    for module in reversed(list(model.modules())):
        if type(module).__name__ in model._no_split_modules:
            fully_shard(module, mesh=mesh)
    return fully_shard(model, mesh=mesh)


def prepared_by_accelerate(model):
    plugin = FullyShardedDataParallelPlugin(
        fsdp_version=2,
        auto_wrap_policy="transformer_based_wrap",
        cpu_ram_efficient_loading=False,
        state_dict_type="FULL_STATE_DICT",
    )
    accelerator = Accelerator(cpu=True, fsdp_plugin=plugin)
    optimizer = torch.optim.AdamW(model.parameters())
    prepared, _ = accelerator.prepare(model, optimizer)
    state = accelerator.get_state_dict(prepared)
    if accelerator.is_main_process:
        assert {value.device.type for value in state.values()} == {"cpu"}
    return prepared


WAYS = {
    "ddp": distributed_data_parallel,
    "fsdp2": sharded,
    "fsdp2 of accelerate": prepared_by_accelerate,
}


def compared(kind, folder, way, rank):
    """Raises where loss or gradients differ."""
    model = load(kind, folder)
    losses = [loss_of(kind, model, batch(kind, folder, number)) for number in (0, 1)]
    torch.stack(losses).mean().backward()
    expected = gradients(model)
    model.zero_grad()
    distributed = WAYS[way](model)
    loss = loss_of(kind, distributed, batch(kind, folder, rank))
    torch.testing.assert_close(loss.detach(), losses[rank].detach())
    loss.backward()
    found = {}
    for name, gradient in gradients(distributed).items():
        found[name.removeprefix("module.")] = whole(gradient)
    assert found.keys() == expected.keys()
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], atol=1e-5, rtol=1e-3)


def main():
    os.environ["ACCELERATE_USE_CPU"] = "true"
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    results = {}
    for way in WAYS:
        results[way] = {}
        for number, kind in enumerate(FIELDS):
            try:
                compared(kind, FOLDER / str(number), way, rank)
            except Exception as error:  # what is found belongs into the table
                results[way][kind] = f"{type(error).__name__}: {error}"
            else:
                results[way][kind] = "right"
            dist.barrier()
    if rank == 0:
        (FOLDER / "found.json").write_text(json.dumps(results))
    dist.barrier()
    dist.destroy_process_group()


main()
