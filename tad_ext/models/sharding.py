"""The frozen layers, spread over processes: each holds its part, and gathers a layer when it runs (FSDP2)."""

from typing import Any

import torch
from torch import distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from tad_ext.models.lora import base_model


def shard_frozen_layers(model: nn.Module, device: torch.device) -> None:
    """Spread a model over the processes of the default process group and move it to this one's device, in place.

    Of each layer a process keeps a part of the frozen weights, and has all of them only while the layer runs, forward
    or backward. The numbers are the same. Adapters, embeddings and the head stay whole everywhere: DDP around the
    model exchanges the gradients of adapters as ever, and leaves the frozen weights alone. From then on every process
    has to run the model whenever one does.

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
