"""What a teacher's inner layers say, heard on the way."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from raydistill.errors import TeacherError
from raydistill.soft_labels.layers import Features, Layer, Layers

LARGEST = 6e4  # that float16 holds


class Taps:
    """The outputs of some modules in one forward pass."""

    def __init__(self, teacher: str) -> None:
        self.teacher = teacher
        self.heard: dict[Layer, tuple[nn.Module, Any]] = {}

    def features(self, mask: Tensor | None, num_rows: int) -> Features:
        """In float16 on the CPU, see `Layer`. Four dimensions are a picture's: see `channels_last`.

        Args:
            num_rows: of the batch.
            mask: [batch, positions] of real tokens, where the teacher takes one.

        Raises:
            TeacherError: a layer gave something that is no features, or was not passed.
        """
        return {layer: self._features(layer, mask, num_rows) for layer in self.heard}

    def _features(self, layer: Layer, mask: Tensor | None, num_rows: int) -> NDArray[np.float16]:
        module, output = self.heard[layer]
        while isinstance(output, tuple | list) and len(output):
            output = output[0]
        if hasattr(output, "last_hidden_state"):
            output = output.last_hidden_state
        if not isinstance(output, Tensor) or output.ndim not in (2, 3, 4) or len(output) != num_rows:
            shape = list(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise TeacherError(
                f"teacher {self.teacher!r}: layer {layer.name!r} gives {shape} for {num_rows} rows, and features are "
                "[batch, channels], "
                "[batch, positions, channels], [batch, channels, height, width] or [batch, height, width, channels]; "
                "name another layer"
            )
        values = output.float()
        if values.ndim == 4:
            values = values.flatten(1, 2) if channels_last(module, values) else values.flatten(2).transpose(1, 2)
        elif values.ndim == 3 and channels_first(module):
            values = values.transpose(1, 2)
        if layer.positions:
            if values.ndim == 2:
                raise TeacherError(
                    f"teacher {self.teacher!r}: layer {layer.name!r} has no positions any more, and the loss compares "
                    "them; name an earlier layer, or take another loss"
                )
        elif values.ndim == 3:
            values = mean_over_positions(values, mask)
        found: NDArray[np.float16] = values.clamp(-LARGEST, LARGEST).half().cpu().numpy()
        return found


def mean_over_positions(values: Tensor, mask: Tensor | None) -> Tensor:
    """[batch, positions, channels] -> [batch, channels]: over the real ones, where the mask is of these positions."""
    if mask is None or mask.shape != values.shape[:2]:
        return values.mean(dim=1)
    weight = mask.to(values.dtype).unsqueeze(-1)
    return (values * weight).sum(dim=1) / weight.sum(dim=1).clamp_min(1.0)


def channels_first(module: nn.Module) -> bool:
    """Whether its three-dimensional output is [batch, channels, positions]: it convolves and has no linear layer."""
    kinds = [type(each) for each in module.modules()]
    return any(issubclass(kind, nn.Conv1d) for kind in kinds) and not any(issubclass(kind, nn.Linear) for kind in kinds)


def channels_last(module: nn.Module, values: Tensor) -> bool:
    """Whether four dimensions are [batch, height, width, channels], as between the blocks of a Swin transformer.

    Views are square, so two equal lengths are height and width; where all three are equal, a module that convolves
    has its channels first.
    """
    _, first, second, third = values.shape
    if (first == second) != (second == third):
        return first == second
    kinds = [type(each) for each in module.modules()]
    return any(issubclass(kind, nn.Linear | nn.LayerNorm) for kind in kinds) and not any(
        issubclass(kind, nn.Conv2d) for kind in kinds
    )


@contextlib.contextmanager
def tapped(teacher: str, module: nn.Module, layers: Layers) -> Iterator[Taps]:
    """Listen to these layers while the module is called once.

    Raises:
        TeacherError: there is no such layer; names the nearest.
    """
    taps, modules = Taps(teacher), dict(module.named_modules())
    with contextlib.ExitStack() as hooks:
        for layer in layers:
            if not layer.name or layer.name not in modules:
                raise TeacherError(f"teacher {teacher!r} has no layer {layer.name!r}; {nearest(layer.name, modules)}")
            hook = modules[layer.name].register_forward_hook(partial(_hear, taps, layer))
            hooks.callback(hook.remove)
        yield taps
    silent = [layer.name for layer in layers if layer not in taps.heard]
    if silent:
        raise TeacherError(f"teacher {teacher!r}: its forward pass does not call layer {silent[0]!r}; name another one")


def nearest(name: str, modules: dict[str, nn.Module]) -> str:
    """A hint at layers that there are."""
    names = [each for each in modules if each]
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    if near:
        return f"did you mean {near[0]!r}?"
    top = [each for each in names if each.count(".") <= 1]
    return f"among its layers are {', '.join(top[:12])}"


def _hear(taps: Taps, layer: Layer, module: nn.Module, inputs: Any, output: Any) -> None:
    taps.heard[layer] = (module, output)
