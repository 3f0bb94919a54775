"""Several processes of one run, as `torchrun` starts them: all train, the first one writes."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import nn

T = TypeVar("T")


class Processes:
    """`rank` of this process among `world`; alone where torchrun did not start it."""

    def __init__(self) -> None:
        self.world = int(os.environ.get("WORLD_SIZE", 1))
        gpu = torch.cuda.is_available()
        local = int(os.environ.get("LOCAL_RANK", 0))
        self.device = torch.device(f"cuda:{local}" if gpu else "cpu")
        if self.world > 1 and not dist.is_initialized():
            # The others wait while the first computes the feature cache.
            dist.init_process_group("nccl" if gpu else "gloo", timeout=timedelta(hours=12))
            if gpu:
                torch.cuda.set_device(local)
        self.rank = dist.get_rank() if self.world > 1 else 0

    def wait(self) -> None:
        """Until every process is here."""
        if self.world > 1:
            dist.barrier()

    def average_gradients(self, model: nn.Module) -> None:
        if self.world > 1:
            for p in model.parameters():
                p.grad = torch.zeros_like(p) if p.grad is None else p.grad
                dist.all_reduce(p.grad)
                p.grad /= self.world

    def share(self, tensor: torch.Tensor, owner: int) -> None:
        """The owner's numbers for all, in place."""
        if self.world > 1:
            dist.broadcast(tensor, owner)

    def agree(self, due: bool, interrupted: bool) -> tuple[bool, bool]:
        """Is it time to save, has somebody interrupted? The same answer in every process.

        The first process's clock counts, and anybody's Ctrl-C: processes that differed would wait forever.
        """
        if self.world == 1:
            return due, interrupted
        flags = torch.tensor([int(due and self.rank == 0), int(interrupted)], device=self.device)
        dist.all_reduce(flags, dist.ReduceOp.MAX)
        save, stop = flags.tolist()
        return bool(save), bool(stop)

    def gather(self, own: T) -> list[T]:
        """What each process has, in the order of their ranks; to be asked for in all of them at once."""
        if self.world == 1:
            return [own]
        every: list[T] = [own] * self.world
        dist.all_gather_object(every, own)
        return every
