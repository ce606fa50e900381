"""Several processes that train one model together, started by ``torchrun``, one per GPU.

A program started without ``torchrun`` has one process, the first, and nothing here has an effect.
"""

import contextlib
import os
from collections.abc import Iterator, Sequence
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor


def join() -> None:
    """Become one of the processes that ``torchrun`` has started; each takes a GPU of its own."""
    if "TORCHELASTIC_RUN_ID" not in os.environ or dist.is_initialized():
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, timeout=timedelta(hours=6))  # the first may have to download


def leave() -> int:
    """Leave the other processes; return the number that this process had."""
    number = rank()
    if dist.is_initialized():
        dist.destroy_process_group()
    return number


def rank() -> int:
    """The number of this process; 0 is the first."""
    return dist.get_rank() if dist.is_initialized() else 0


def count() -> int:
    """How many processes there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


def share(items: Sequence) -> Sequence:
    """This process's part of the items: with n processes, every n-th item."""
    return items[rank() :: count()]


def wait_for_all() -> None:
    """Wait until every process has reached this point."""
    if count() > 1:
        dist.barrier()


@contextlib.contextmanager
def first_before_others() -> Iterator[None]:
    """Let the first process run the ``with`` block, then the others, which find the work done."""
    if rank() > 0:
        wait_for_all()
    yield
    if rank() == 0:
        wait_for_all()


def total(values: Tensor) -> Tensor:
    """The sum over all processes."""
    if count() > 1:
        values = values.clone()
        dist.all_reduce(values)
    return values


def gathered(own: list) -> list:
    """The results of all processes for their ``share``, in the order of the shared items."""
    if count() == 1:
        return own
    parts: list = [None] * count()
    dist.all_gather_object(parts, own)
    return [parts[i % count()][i // count()] for i in range(sum(map(len, parts)))]


def together(model: torch.nn.Module) -> torch.nn.Module:
    """The model with its gradients averaged over all processes after each backward pass."""
    return torch.nn.parallel.DistributedDataParallel(model) if count() > 1 else model
