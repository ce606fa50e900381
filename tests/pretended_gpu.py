"""A GPU that is not there: its tensors say ``cuda:0``, and refuse what a GPU's tensors refuse.

They are computed on the CPU. This finds what would otherwise fail only where there is a GPU:
tensors of two devices in one operation, a generator of the other device, and NumPy given a tensor
that nobody moved to the CPU. It says nothing about CUDA's own kernels, memory or speed.

``install()`` cannot be undone, so it belongs in a process of its own, such as a notebook's kernel.
"""

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only

SAID = {"device": torch.device("cuda", 0), "is_cuda": True, "is_cpu": False}  # of its tensors
MAY_MIX = {"copy_", "__getitem__", "_has_compatible_shallow_copy_type"}


class GPUTensor(Tensor):
    """A tensor that says it is on the GPU."""

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        with torch._C.DisableTorchFunction():
            return _call(function, args, kwargs or {})

    def __format__(self, form: str) -> str:
        return format(self.item(), form) if self.dim() == 0 else super().__format__(form)


class _Pretence(TorchFunctionMode):
    """Sees the calls that name the GPU, with or without one of its tensors."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if not any(_is_gpu(value) for value in _parts((*args, *kwargs.values()))):
            return function(*args, **kwargs)
        with torch._C.DisableTorchFunction():
            return _call(function, args, kwargs)


def _parts(values):
    for value in values:
        if isinstance(value, list | tuple):
            yield from _parts(value)
        else:
            yield value


def _is_gpu(value) -> bool:
    if isinstance(value, Tensor):
        return isinstance(value, GPUTensor)
    return isinstance(value, str | torch.device) and str(value).startswith("cuda")


def _call(function, args, kwargs):
    name, first = function.__name__, args[0] if args else None
    if name == "__get__" and function.__self__.__name__ in SAID:
        return SAID[function.__self__.__name__]
    if name in ("to", "cpu"):
        return _moved(function, args, kwargs)
    if name == "__deepcopy__":
        return _copied(first, memo=args[1])
    if name in ("numpy", "__array__"):
        raise TypeError("a tensor on the GPU cannot become an array of NumPy; call .cpu() first.")
    values = _parts((*args, *kwargs.values()))
    others = [x for x in values if isinstance(x, Tensor) and x.dim() and not _is_gpu(x)]
    if name not in MAY_MIX and (others or isinstance(kwargs.get("generator"), torch.Generator)):
        raise RuntimeError(f"{name} was given tensors, or a generator, of the CPU and of the GPU.")
    if _is_gpu(kwargs.get("device")):
        kwargs = {**kwargs, "device": "cpu"}
    return _on_gpu(function(*args, **kwargs))


def _on_gpu(result):
    return tree_map_only(Tensor, lambda x: x if _is_gpu(x) else x.as_subclass(GPUTensor), result)


def _moved(function, args, kwargs):
    """What ``tensor.to`` or ``tensor.cpu`` gives: always a copy when the device changes."""
    tensor, *to = args
    named = [x for x in (*to, *kwargs.values()) if isinstance(x, str | torch.device | Tensor)]
    to_gpu = function.__name__ == "to" and _is_gpu(named[0] if named else tensor)
    to = ["cpu" if isinstance(x, str | torch.device) else x for x in to]
    kwargs = {key: "cpu" if key == "device" else value for key, value in kwargs.items()}
    moved = function(tensor, *to, **kwargs)
    if to_gpu != _is_gpu(tensor):
        moved = moved.clone()
    return _on_gpu(moved) if to_gpu else moved.as_subclass(Tensor)


def _copied(tensor: GPUTensor, memo: dict) -> GPUTensor:
    """What ``copy.deepcopy`` gives; a parameter stays one."""
    if id(tensor) not in memo:
        copied = _on_gpu(tensor.detach().clone()).requires_grad_(tensor.requires_grad)
        if isinstance(tensor, torch.nn.Parameter):
            copied._is_param = True
        memo[id(tensor)] = copied
    return memo[id(tensor)]


def install() -> None:
    """Let this process find a GPU, one without units for bfloat16."""
    torch.__future__.set_overwrite_module_params_on_conversion(True)  # so that weights move, too
    torch.backends.cudnn.enabled = False
    torch.cuda.is_available = lambda: True
    torch.cuda.is_bf16_supported = lambda **_: False
    torch.cuda.get_device_name = lambda: "that is not there"
    torch.cuda.get_rng_state = torch.get_rng_state
    torch.cuda.set_rng_state = torch.set_rng_state
    torch.cuda.mem_get_info = lambda where: (10**10, 10**10)
    torch.accelerator.synchronize = lambda: None
    for check in ("_accelerator_graph_capture_health_check", "_cuda_graph_capture_health_check"):
        setattr(torch.optim.Optimizer, check, lambda self: None)  # the name in torch 2.14, in 2.6
    torch.autocast = _on_cpu(torch.autocast)
    _Pretence().__enter__()


def _on_cpu(autocast):
    return lambda device_type, *args, **kwargs: autocast("cpu", *args, **kwargs)
