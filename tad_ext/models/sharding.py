"""The frozen layers, spread over processes: each holds its part, and gathers a layer when it runs (FSDP2)."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.nn.parallel import DistributedDataParallel

from tad_ext.models.base import evaluation_mode
from tad_ext.models.lora import base_model


def shard_frozen_layers(model: nn.Module, device: torch.device) -> None:
    """Spread a model over the processes of the default process group and move it to this one's device, in place.

    Of each layer a process keeps a part of the frozen weights, and has all of them only while the layer runs, forward
    or backward. The numbers are the same. Adapters, embeddings and the head stay whole everywhere: DDP around the
    model exchanges the gradients of adapters as ever, and leaves the frozen weights alone. From then on every process
    has to run the model whenever one does, but in `each_by_itself`.

    Args:
        model: a PeftModel of a masked diffusion model, on the CPU or the device.
        device: of this process.
    """
    trunk: Any = base_model(model).model
    whole = {one for one in model.parameters() if one.requires_grad}
    mesh = init_device_mesh(device.type, (distributed.get_world_size(),))
    for layer in trunk.layers:  # one by one: the device never holds a second layer as a whole
        fully_shard(layer, mesh=mesh, ignored_params=whole)
    # The root, which knows the layers' order; of its own it has nothing to spread.
    fully_shard(trunk, mesh=mesh, ignored_params={*whole, *(one for one in trunk.parameters() if one not in whole)})
    model.to(device)


def keep_out_of_ddp(module: nn.Module) -> None:
    """DDP, put around a module, is to leave all weights alone that have no gradient."""
    frozen = [name for name, one in module.named_parameters() if not one.requires_grad]
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(module, frozen)


@contextmanager
def each_by_itself(model: nn.Module) -> Iterator[None]:
    """A block in which every process runs a model as often as it likes, without gradients; all have to enter it.

    Of a model that is spread, those that leave the block run it idly until all have left: before each run all agree on
    whether there is one. A model that is whole is left alone.
    """
    inner: Any = base_model(model)
    if not isinstance(inner.model, FSDPModule):
        yield
        return
    run = inner.hidden_rows

    def any_runs(runs: bool) -> torch.Tensor:
        running = torch.tensor(int(runs), device=inner.device)
        distributed.all_reduce(running)
        return running

    def announced(*inputs: Any, **options: Any) -> torch.Tensor:
        any_runs(True)
        # Gathered weights stay tensors that a later backward may use, whatever mode the block is in.
        with torch.inference_mode(False), torch.no_grad():
            return run(*inputs, **options)

    inner.hidden_rows = announced
    try:
        yield
    finally:
        del inner.hidden_rows
    with torch.no_grad(), evaluation_mode(model.modules()):
        while any_runs(False):
            run(torch.zeros(1, 1, dtype=torch.int64, device=inner.device))
