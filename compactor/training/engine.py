"""The one training loop: distillation, pruning, quantization-aware training and super-networks run on it."""

import hashlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, fx, nn

from compactor.data import Batch, Split, lengths_of
from compactor.errors import CompactorError, ExitCode, InputError
from compactor.pipeline.context import Progress, Silent
from compactor.training import checkpoint, optimizers
from compactor.training.allocator import memory_kept
from compactor.training.config import TrainConfig
from compactor.training.ema import Average
from compactor.training.inplace import relus_in_place
from compactor.training.precision import as_trained, bfloat16_is_fast, channels_last, reduced
from compactor.training.processes import Processes, processes
from compactor.training.schedule import cosine, mix, order

State = dict[str, Tensor]


class DivergedError(CompactorError):
    """Training left the finite numbers."""

    exit_code = ExitCode.BAD_INPUT


@dataclass(frozen=True)
class Micro:
    """One micro-batch: which samples, and where in the run. ``seed`` is a function of the run's seed and ``step``."""

    indices: Tensor
    step: int
    epoch: int
    total: int
    seed: int


class Samples(Protocol):
    """What an objective is taken over. It takes its samples itself: it may augment, or look up what was cached."""

    @property
    def key(self) -> str:
        """Everything that the loss depends on, so that a checkpoint of another objective is not continued."""
        ...

    def batch(self, micro: Micro) -> Batch:
        """The samples of a micro-batch."""
        ...


class Objective(Samples, Protocol):
    """What is minimised."""

    def loss(self, module: nn.Module, batch: Batch, micro: Micro) -> Tensor:
        """The mean loss over the samples; ``module`` returns a tuple. Runs under autocast."""
        ...


@runtime_checkable
class Summed(Samples, Protocol):
    """What is minimised, in summands: each is taken backward before the next runs, so only one holds activations."""

    def summands(self, module: nn.Module, batch: Batch, micro: Micro) -> Sequence[Callable[[], Tensor]]:
        """Summands of the mean loss over the samples. Each runs once, under autocast; the last uses all weights."""
        ...


def exact(_: float) -> float:
    """The noise of scores that tell the smallest difference."""
    return 0.0


@dataclass(frozen=True)
class Selection:
    """How to choose among the states of a training.

    Attributes:
        score: of a state, higher is better.
        noise: how far a score may be off by chance. Of states that score alike the later counts, the averaged before
            the plain (the one-standard-error rule: Breiman et al., Classification and Regression Trees, section 3.4.3).
        least: what is known to be reachable without training: no state below it is preferred to one that is not.
    """

    score: Callable[[Mapping[str, Tensor]], float]
    noise: Callable[[float], float] = exact
    least: float = -math.inf

    def threshold(self, top: float) -> float:
        """What a state must score to count, where the best so far scored ``top``."""
        return max(top - self.noise(top), min(top, self.least))


@dataclass(frozen=True)
class Result:
    """The trained weights: those that the selection chose, or the last; ``score`` is theirs.

    ``scores`` are ``[epoch, score]`` pairs; ``stopped`` says why training ended early, if it did.
    """

    state: State
    steps: int
    epochs: int
    loss: float
    score: float | None
    scores: tuple[tuple[int, float], ...]
    stopped: str = ""


def fit(
    module: nn.Module,
    objective: Objective | Summed,
    split: Split,
    config: TrainConfig,
    workspace: Path,
    *,
    name: str = "training",
    selection: Selection | None = None,
    progress: Progress | None = None,
    rates: Mapping[str, float] | None = None,
) -> Result:
    """Train ``module`` (in place) on ``split`` and return the weights.

    Continues from ``workspace / name.checkpoint`` when it is there; the result is the same, bit by bit. States are
    scored up to ten times in the run; the averaged and the plain weights both compete.
    ``rates``: parameters by name that have a learning rate of their own, the same in every step.

    Raises:
        DivergedError: the loss or the gradient is not finite; names step and learning rate.
        InputError: an input is not finite, the split is empty, or the checkpoint cannot be read.
    """
    if len(split) == 0:
        raise InputError("there is nothing to train on: the training split is empty", "give at least one sample")
    with processes() as group, memory_kept(), torch.random.fork_rng(devices=[]):
        path = workspace / f"{name}.checkpoint"
        return _Run(module, objective, split, config, path, selection, progress or Silent(), group, rates).run()


class _Run:
    """The state of one run; what is in `_content` is all that decides the rest of it."""

    def __init__(
        self,
        module: nn.Module,
        objective: Objective | Summed,
        split: Split,
        config: TrainConfig,
        path: Path,
        selection: Selection | None,
        progress: Progress,
        group: Processes,
        rates: Mapping[str, float] | None,
    ) -> None:
        self.objective, self.config, self.path, self.group = objective, config, path, group
        self.selection, self.progress, self.samples = selection, progress, len(split)
        self.device = next(module.parameters()).device.type
        self.reduced = config.reduced and bfloat16_is_fast(self.device)
        self.module = channels_last(module) if self.reduced else module
        if isinstance(module, fx.GraphModule):
            relus_in_place(module)
        self.wrapped = group.wrap(self.module)
        self.optimizer = optimizers.build(module.named_parameters(), config, rates)
        self.average = Average(module, config.ema) if config.ema else None
        self.lengths = lengths_of(split)
        self.per_epoch = max(1, self.samples // config.batch)
        self.total = self.per_epoch * config.epochs
        self.key = self._identity(split, rates)
        self.step, self.loss, self.seconds, self.stopped = 0, float("nan"), 0.0, ""
        self.best: State | None = None
        self.score: float | None = None
        self.scores: list[tuple[int, float]] = []

    def _identity(self, split: Split, rates: Mapping[str, float] | None) -> str:
        shapes = {k: list(v.shape) for k, v in self.module.state_dict().items()}
        parts = (self.config.model_dump_json(), split.fingerprint, self.objective.key, shapes, self.group.world, rates)
        return hashlib.sha256(repr(parts).encode()).hexdigest()

    # -- the loop --------------------------------------------------------------------------------------------------

    def run(self) -> Result:
        self._restore()
        started = saved = time.monotonic() - self.seconds
        saved += self.seconds
        while self.step < self.total and not self.stopped:
            epoch = self.step // self.per_epoch
            config = self.config
            batches = order(self.samples, config.batch, config.seed, epoch, self.lengths)
            for indices in batches[self.step % self.per_epoch :]:
                self._train_step(indices, epoch)
                self._after_step(epoch)
                self.seconds = self.group.mean(time.monotonic() - started)
                if time.monotonic() - saved >= config.checkpoint_seconds or self.step == self.total:
                    self._save()
                    saved = time.monotonic()
                if self._out_of_time():
                    break
        return self._result()

    def _train_step(self, indices: Tensor, epoch: int) -> None:
        rate = self.config.lr * cosine(self.step, self.total, self.config.warmup)
        optimizers.set_rate(self.optimizer, rate)
        parts = [p for p in indices.tensor_split(self.config.accumulate) if len(p)]
        losses: list[Tensor] = []
        for number, part in enumerate(parts):
            share = self.group.share(part)
            seed = mix(self.config.seed, self.step, number, self.group.rank)
            micro = Micro(share, self.step, epoch, self.total, seed)
            batch = self.objective.batch(micro)
            batch = Batch(as_trained(batch.inputs, self.device), batch.labels)
            # Dropout draws from the global generator: seeded here, it is a function of (seed, step).
            torch.manual_seed(seed)
            weight, last_part = len(part) / len(indices), number == len(parts) - 1
            losses += self._backward(batch, micro, weight, last_part)
        self.loss = self.group.mean(float(torch.stack(losses).sum()))
        norm = self.loss
        if self.config.clip:
            norm = float(nn.utils.clip_grad_norm_(self.module.parameters(), self.config.clip, foreach=True))
        self._check_finite(norm, rate, batch)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step += 1

    def _backward(self, batch: Batch, micro: Micro, weight: float, last_part: bool) -> Iterator[Tensor]:
        """Accumulate the gradients of a micro-batch; its losses, weighted."""
        with reduced(self.device, self.reduced):
            summands = self._summands(batch, micro)
        for number, summand in enumerate(summands):
            with self.group.quiet(self.wrapped, last_part and number == len(summands) - 1):
                with reduced(self.device, self.reduced):
                    loss = summand() * weight
                loss.backward()  # type: ignore[no-untyped-call]
            yield loss.detach()

    def _summands(self, batch: Batch, micro: Micro) -> Sequence[Callable[[], Tensor]]:
        objective = self.objective
        if isinstance(objective, Summed):
            return objective.summands(self.wrapped, batch, micro)
        return [partial(objective.loss, self.wrapped, batch, micro)]

    def _check_finite(self, norm: float, rate: float, batch: Batch) -> None:
        if math.isfinite(self.loss) and math.isfinite(norm):
            return
        if not all(x.isfinite().all() for x in batch.inputs if x.is_floating_point()):
            raise InputError(
                f"training data of step {self.step} of {self.total} holds NaN or infinite values",
                "remove these samples from the data",
            )
        raise DivergedError(
            f"training diverged at step {self.step} of {self.total}: loss {self.loss}, gradient norm {norm}, "
            f"learning rate {rate:.3g}",
            f"lower the learning rate, for example lr={self.config.lr / 4:.2g}, or clip gradients with clip=1",
        )

    def _after_step(self, epoch: int) -> None:
        if self.average is not None:
            self.average.update(self.module, self.step)
        if self.group.first:
            self.progress.update(self.step, self.total, f"epoch {epoch + 1}/{self.config.epochs}, loss {self.loss:.4f}")
        every = -(-self.config.epochs // 10) * self.per_epoch
        if self.step % every == 0 or self.step == self.total:
            self._select(epoch + 1)

    def _out_of_time(self) -> bool:
        if self.config.seconds and self.seconds > self.config.seconds and self.step < self.total:
            self.stopped = f"stopped at step {self.step} of {self.total} by the limit of {self.config.seconds:g} s"
            self.progress.note(self.stopped)
            self._select(self.step // self.per_epoch)
            self._save()
        return bool(self.stopped)

    # -- selection and state ---------------------------------------------------------------------------------------

    def _candidates(self) -> list[State]:
        plain = {k: v.detach() for k, v in self.module.state_dict().items()}
        return [plain] if self.average is None else [self.average.state, plain]

    def _select(self, epoch: int) -> None:
        if self.selection is None:
            return
        found = [(self.selection.score(state), state) for state in self._candidates()]
        self.scores.append((epoch, max(score for score, _ in found)))
        threshold = self.selection.threshold(max(top for _, top in self.scores))
        for score, state in found:
            if score >= threshold:
                self.score, self.best = score, {k: v.clone() for k, v in state.items()}
                return

    def _result(self) -> Result:
        state = self.best if self.best is not None else self._candidates()[0]
        plain = {k: v.cpu().clone(memory_format=torch.contiguous_format) for k, v in self.group.same(state).items()}
        if not all(v.isfinite().all() for v in plain.values()):
            raise DivergedError(
                f"training ended in weights that are not finite (learning rate {self.config.lr:.3g})",
                f"lower the learning rate, for example lr={self.config.lr / 4:.2g}",
            )
        done = self.step // self.per_epoch
        return Result(plain, self.step, done, self.loss, self.score, tuple(self.scores), self.stopped)

    def _content(self) -> dict[str, Any]:
        return {
            "key": self.key,
            "threads": torch.get_num_threads(),
            "module": self.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average.state if self.average else None,
            "best": self.best,
            "score": self.score,
            "scores": self.scores,
            "step": self.step,
            "loss": self.loss,
            "seconds": self.seconds,
            "stopped": self.stopped,
        }

    def _save(self) -> None:
        if self.group.first:
            checkpoint.save(self.path, self._content())

    def _restore(self) -> None:
        self.group.wait()
        content = checkpoint.load(self.path, self.key)
        if content is None:
            return
        # Sums over threads differ with their number: a resumed run keeps the one it began with.
        torch.set_num_threads(content["threads"])
        self.module.load_state_dict(content["module"])
        self.optimizer.load_state_dict(content["optimizer"])
        if self.average is not None:
            self.average.load(content["average"])
        self.best, self.score = content["best"], content["score"]
        self.scores = [(int(e), float(s)) for e, s in content["scores"]]
        self.step, self.loss = content["step"], content["loss"]
        self.seconds, self.stopped = content["seconds"], content["stopped"]
