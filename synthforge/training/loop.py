"""The training loop of every fit: schedule, averaged weights, checkpoint and resume.

All randomness of a step is decided by seed and step. So a resumed fit equals an uninterrupted one, bit for bit on the
same device. Checkpoints are safetensors; nothing is unpickled.
On CUDA, shapes are fixed, data stay on the device, the network is compiled, and nothing waits for the device between
checks. The whole step is captured as a CUDA graph: launching a small network's kernels one by one takes several times
as long as running them.
"""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from synthforge.data.storage import replace_file
from synthforge.errors import ModelError, WorkError
from synthforge.training.config import LoopConfig
from synthforge.training.data import seed_of

_AVERAGE_EVERY = 8
"""Steps between updates of the averaged weights, whose window is hundreds of steps."""

_EAGER_STEPS = 3
"""Steps before one is captured: they compile, choose algorithms and create the optimiser's state."""

Batch = tuple[Tensor, ...]
BatchOf = Callable[[int], Batch]
"""Step to tensors on the device, with the same shapes and types at every step."""
Loss = Callable[[nn.Module, Batch, torch.Generator], Tensor]
"""(network, batch, generator on the device) -> mean loss, a scalar. It may be captured, so it must not read values."""


@dataclass(frozen=True)
class Progress:
    """Progress of a fit, reported about twice a second."""

    step: int
    num_new: int
    """Steps since the last report."""
    num_steps: int
    images_per_second: float
    loss: float | None
    """Mean over the last steps; None: not known yet."""


class TrainingLoop:
    """Trains one network. `ema` holds the averaged weights, which are the result.

    Args:
        network: on its device.
        batch_of: gives the batch of a step.
        loss: gives the loss of a batch.
        config: with `images` set.
        checkpoint: file to write at every check and to resume from; None: no checkpoint.
        capture: whether a step may be captured on CUDA; not if the network reads values.
    """

    def __init__(
        self, network: nn.Module, batch_of: BatchOf, loss: Loss, config: LoopConfig, checkpoint: Path | None = None, *, capture: bool = True
    ) -> None:
        assert config.images is not None
        self.network = network
        self.config = config
        self.num_steps = max(config.checks, math.ceil(config.images / config.batch))
        self.step = 0
        self.ema = copy.deepcopy(network).eval().requires_grad_(False)
        self.device = next(network.parameters()).device
        self.extra: dict[str, Tensor] = {}
        """More tensors for the checkpoint, such as snapshots of the averaged weights."""
        self.notes: dict[str, Any] = {}
        """More data for the checkpoint, as JSON."""
        self._batch_of, self._loss = batch_of, loss
        self._checkpoint = checkpoint
        self._parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
        self._joined = _Joined(self._parameters) if self.device.type == "cpu" else None
        averaged = dict(self.ema.named_parameters())
        # Detached views of the parameters, which the optimiser changes in place.
        self._trained: list[Tensor] = [parameter.detach() for parameter in self._parameters]
        self._averaged: list[Tensor] = [averaged[name] for name, parameter in network.named_parameters() if parameter.requires_grad]
        on_cuda = self.device.type == "cuda"
        self._captures = capture and on_cuda
        self._generator = torch.Generator(self.device)
        self._take_step = _CapturedStep(self._update, self._generator) if self._captures else self._update
        self._optimizer = torch.optim.AdamW(
            [self._joined.whole_P] if self._joined else self._parameters,
            lr=torch.tensor(config.learning_rate, device=self.device) if self._captures else config.learning_rate,
            betas=(0.9, 0.99),
            weight_decay=config.weight_decay,
            fused=self.device.type in {"cpu", "cuda"},
            capturable=self._captures,
        )
        half = config.precision == "bfloat16" or (config.precision == "auto" and on_cuda)
        self._autocast: Callable[[], AbstractContextManager[Any]] = (
            (lambda: torch.autocast(self.device.type, dtype=torch.bfloat16)) if half else nullcontext
        )
        self._in_one_order: Callable[[], AbstractContextManager[Any]] = _in_one_order if on_cuda else nullcontext
        if on_cuda and config.compile:
            self.network.compile(dynamic=False)

    def check_steps(self) -> list[int]:
        """Steps after which a check is due. The last is the end."""
        return [round(self.num_steps * (number + 1) / self.config.checks) for number in range(self.config.checks)]

    def run(self, on_progress: Callable[[Progress], None] = lambda progress: None) -> Iterator[int]:
        """Train. Yields the step at every check; the caller may look at `ema` then, and stop by leaving the loop."""
        due = [step for step in self.check_steps() if step > self.step]
        started, first_step, shown = time.perf_counter(), self.step, 0.0
        recent = torch.zeros((), device=self.device)
        recent_steps = 0
        loss: float | None = None
        self.network.train()
        while due:
            recent += self._train_step()
            recent_steps += 1
            now = time.perf_counter()
            if now - shown > 0.5 or self.step == due[0]:
                # Reading the loss is the one place that waits for the device: twice a second at most.
                loss, shown = float(recent) / recent_steps, now
                num_new, recent_steps = recent_steps, 0
                recent.zero_()
                if not math.isfinite(loss):
                    raise WorkError(
                        f"fit: the loss is not finite at step {self.step}; try --set loop.learning_rate={self.config.learning_rate / 4:g}"
                    )
                rate = (self.step - first_step) * self.config.batch / max(now - started, 1e-9)
                on_progress(Progress(self.step, num_new, self.num_steps, rate, loss))
            if self.step == due[0]:
                due.pop(0)
                yield self.step
                self.save()
                self.network.train()

    def _train_step(self) -> Tensor:
        for group in self._optimizer.param_groups:
            if self._captures:
                group["lr"].fill_(self._rate())
            else:
                group["lr"] = self._rate()
        seed = seed_of("step", self.config.seed, self.step)
        self._generator.manual_seed(seed)
        self._reseed_dropout(seed)
        loss = self._take_step(self._batch_of(self.step))
        self.step += 1
        if self.step % _AVERAGE_EVERY == 0 or self.step <= _AVERAGE_EVERY:
            # Power-function averaging (Karras et al. 2023, arXiv 2312.02696): the window grows with the steps done.
            since = _AVERAGE_EVERY if self.step > _AVERAGE_EVERY else 1
            weight = 1 - (1 - since / self.step) ** (1 / self.config.ema)
            torch._foreach_lerp_(self._averaged, self._trained, weight)
        return loss

    def _update(self, batch: Batch) -> Tensor:
        """Forward, backward and optimiser step; returns the loss."""
        with self._in_one_order():
            with self._autocast():
                loss = self._loss(self.network, batch, self._generator)
            torch.autograd.backward(loss)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=self._joined is None)  # joined gradients stay where they are
        return loss.detach()

    def _reseed_dropout(self, seed: int) -> None:
        """Seed the device's global generator, from which dropout draws.

        torch.manual_seed would also queue a call for devices not in use.
        """
        if self.device.type == "cuda":
            torch.cuda.default_generators[self.device.index or 0].manual_seed(seed)
        else:
            torch.default_generator.manual_seed(seed)

    def _rate(self) -> float:
        warmup, peak = max(1, round(self.config.warmup * self.num_steps)), self.config.learning_rate
        if self.step < warmup:
            return peak * (self.step + 1) / warmup
        return peak * 0.5 * (1 + math.cos(math.pi * (self.step - warmup) / max(1, self.num_steps - warmup)))

    def save(self) -> None:
        """Write the checkpoint atomically."""
        if self._checkpoint is None:
            return
        tensors = self.network.state_dict(prefix="network.") | self.ema.state_dict(prefix="ema.")
        tensors |= {f"extra.{name}": value for name, value in self.extra.items()}
        for number, state in enumerate(self._optimizer_states()):
            tensors |= {f"optimizer.{number}.{name}": torch.as_tensor(value) for name, value in state.items()}
        metadata = {"step": str(self.step), "config": self._identity(), "notes": json.dumps(self.notes)}
        tensors = {name: value.detach().cpu().clone().contiguous() for name, value in tensors.items()}
        replace_file(self._checkpoint, lambda path: save_file(tensors, path, metadata))

    def _optimizer_states(self) -> list[dict[str, Tensor]]:
        """The optimiser's tensors per parameter, in the same form on every device."""
        if self._joined:
            return self._joined.split(self._optimizer.state[self._joined.whole_P])
        return [self._optimizer.state[parameter] for parameter in self._parameters]

    def resume(self) -> bool:
        """Load the checkpoint if there is one with the same settings; returns whether there was."""
        if self._checkpoint is None or not self._checkpoint.exists():
            return False
        try:
            with safe_open(self._checkpoint, "pt") as file:
                metadata = file.metadata() or {}
            tensors = load_file(self._checkpoint, device=str(self.device))
        except (SafetensorError, OSError) as error:
            raise ModelError(f"{self._checkpoint}: the checkpoint can't be read ({error}); remove it to begin again") from error
        if metadata.get("config") != self._identity():
            raise ModelError(f"{self._checkpoint}: was made with other settings or data; remove it to begin again, or choose another --out")
        self.network.load_state_dict(_below("network.", tensors))
        self.ema.load_state_dict(_below("ema.", tensors))
        self.extra = _below("extra.", tensors)
        self.step, self.notes = int(metadata["step"]), json.loads(metadata["notes"])
        states = [_below(f"optimizer.{number}.", tensors) for number in range(len(self._parameters))]
        if self._joined:
            self._optimizer.state[self._joined.whole_P] = self._joined.join(states)
        else:
            self._optimizer.state.update(zip(self._parameters, states, strict=True))
        return True

    def _identity(self) -> str:
        return json.dumps({**self.config.model_dump(mode="json", exclude={"compile"}), "notes": self.notes.get("identity")}, sort_keys=True)


class _Joined:
    """Parameters and their gradients as views of one tensor, which the optimiser updates on a CPU.

    Visiting each tensor of a small network takes several times as long as updating all its numbers. Parameters keep
    their strides. A network that is moved or cast afterwards is no longer trained. A parameter without influence on
    the loss has a gradient of zero instead of none, so it decays.

    Args:
        parameters: on the CPU, of one dtype.
    """

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        (dtype,) = {parameter.dtype for parameter in parameters}
        self._places: list[tuple[torch.Size, tuple[int, ...], int]] = []
        start = 0
        for parameter in parameters:
            dense = torch.empty_like(parameter)  # of the same strides, without gaps
            self._places.append((parameter.shape, dense.stride(), start))
            start += parameter.numel()
        self.whole_P = torch.empty(start, dtype=dtype)
        """All numbers, with `grad`."""
        self.whole_P.grad = torch.zeros_like(self.whole_P)
        for parameter, view, gradient in zip(parameters, self._views(self.whole_P), self._views(self.whole_P.grad), strict=True):
            parameter.data = view.copy_(parameter.data)
            parameter.grad = gradient

    def split(self, state: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
        """The optimiser's tensors of the whole, as those of each parameter. All are at the same step."""
        by_name = {name: [value] * len(self._places) if name == "step" else self._views(value) for name, value in state.items()}
        return [dict(zip(by_name, values, strict=True)) for values in zip(*by_name.values(), strict=True)]

    def join(self, states: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """The inverse of `split`."""
        joined = {"step": states[0]["step"]}
        for name in states[0].keys() - {"step"}:
            joined[name] = torch.empty_like(self.whole_P)
            for view, state in zip(self._views(joined[name]), states, strict=True):
                view.copy_(state[name])
        return joined

    def _views(self, whole_P: Tensor) -> list[Tensor]:
        return [whole_P.as_strided(*place) for place in self._places]


@contextmanager
def _in_one_order() -> Iterator[None]:
    """Sum gradients in the same order every time. cuDNN and fused attention don't by default."""
    before = torch.backends.cudnn.deterministic
    torch.backends.cudnn.deterministic = True
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.cudnn.deterministic = before


class _CapturedStep:
    """A step that becomes a CUDA graph after the first steps have compiled what they need.

    Args:
        update: batch to loss, all on the device. Capturing does not run it.
        generator: source of `update`'s random numbers; its seed at replay counts.
    """

    def __init__(self, update: Callable[[Batch], Tensor], generator: torch.Generator) -> None:
        self._update, self._generator = update, generator
        self._batch: Batch = ()
        """The graph's own tensors. The first steps use them too. Otherwise the network would be
        compiled again for other strides, and nothing may compile during capture."""
        self._num_eager = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self._loss: Tensor | None = None
        """The graph's own tensor."""

    def __call__(self, batch: Batch) -> Tensor:
        """Take a step; returns the loss, which the next step may overwrite."""
        if not self._batch:
            self._batch = tuple(torch.empty_like(tensor, memory_format=torch.contiguous_format) for tensor in batch)
        for ours, theirs in zip(self._batch, batch, strict=True):
            ours.copy_(theirs, non_blocking=True)
        if self._graph is not None:
            self._graph.replay()
            assert self._loss is not None
            return self._loss
        loss = self._update_aside()
        self._num_eager += 1
        if self._num_eager == _EAGER_STEPS:
            self._capture()
        return loss

    def _update_aside(self) -> Tensor:
        """Take a step on a separate stream, which capture requires of the steps before it."""
        device = self._generator.device
        current, aside = torch.cuda.current_stream(device), torch.cuda.Stream(device)
        aside.wait_stream(current)
        with torch.cuda.stream(aside):
            loss = self._update(self._batch)
        current.wait_stream(aside)
        return loss

    def _capture(self) -> None:
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(self._generator)
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):  # threads that decode may pin memory meanwhile
            self._loss = self._update(self._batch)
        self._graph = graph


def _below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
