"""Clips per second of whole training steps in bf16: ours beside transformers', in turns, in one process."""

from __future__ import annotations

import functools
import gc
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median
from time import perf_counter
from typing import Any

import torch
from results import NO_TIME, Results, from_command_line
from torch import nn

from tubelet.bench.subjects import Step, StepLoss, build_subject, inputs_of, loss_of, peer_loss_of, peer_of
from tubelet.layers.stack import blocks_of
from tubelet.layers.switches import switch
from tubelet.models.base import VideoModel
from tubelet.runtime.cost import cost_of

GROUPS = {"pretrain_base": 64, "pretrain_large": 32, "finetune_base": 16, "finetune_timesformer": 16,
          "pretrain_small": 128}  # fmt: skip
"""Most important first, with the clips of a step."""
TARGETS = {"plain": 2.0, "cross": 3.5}
"""Speed / that of transformers' with sdpa, with the plain and with the cross-attention decoder."""
MFU = {"pretrain_base": 0.45, "pretrain_large": 0.55}
ROUNDS, STEPS = 5, 3
SAME = 2e-2
"""Largest relative difference between our loss and transformers', with the same weights, in bf16."""


@dataclass
class Contender:
    """name: "transformers" or the decoder, then how it runs. flops: of one clip. prepare: called before every turn."""

    name: str
    step: Callable[[], Any]
    flops: float
    prepare: Callable[[], None]
    seconds: list[float] = field(default_factory=list)  # of one step
    peak: int | None = None  # bytes that a step needs, weights and moments included
    fixed: int = 0  # of these, what does not grow with the batch


class Graph:
    """A whole step, captured as one CUDA graph: https://pytorch.org/docs/stable/notes/cuda.html#cuda-graphs. The first
    call captures; before it the step has run often enough that nothing is compiled or initialised any more.
    """

    def __init__(self, step: Step) -> None:
        self.step, self.graph = step, None

    def __call__(self) -> Any:
        if self.graph is None:
            aside = torch.cuda.Stream()
            aside.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(aside):  # as torch asks for, so that the backward pass runs on that stream, too
                for _ in range(3):
                    self.step()
            torch.cuda.current_stream().wait_stream(aside)
            torch.cuda.synchronize()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                self.loss = self.step()
            self.graph = graph
        self.graph.replay()
        return self.loss


@functools.cache
def compile_once(forward: Callable[..., Any]) -> Callable[..., Any]:
    return torch.compile(forward, dynamic=False)


class Speed:
    def __init__(self, results: Results) -> None:
        self.results = results
        self.rate = self.matrix_rate()

    def wait(self) -> None:
        if self.results.cuda:
            torch.cuda.synchronize()

    def matrix_rate(self) -> float:
        """Operations per second of a large bf16 matrix product of random numbers."""
        n = 8192 if self.results.cuda else 256
        a, b = (torch.randn(n, n, device=self.results.device).bfloat16() for _ in range(2))
        for _ in range(3):
            a @ b
        self.wait()
        begun = perf_counter()
        for _ in range(10):
            a @ b
        self.wait()
        rate = 10 * 2 * n**3 / (perf_counter() - begun)
        self.results.add(f"bf16 matrix product of {n}", tflops=rate / 1e12)
        return rate

    def group(self, name: str, batch: int) -> None:
        """Measure a model with its variants, and transformers', in turns."""
        model = build_subject(name, tiny=self.results.tiny)
        contenders = self.theirs(name, model, batch)  # first, because it copies the weights
        contenders += self.ours(name, "plain", model, batch)
        if name.startswith("pretrain"):
            contenders += self.ours(f"{name}_dual", "dual", model, batch)[:2]
            crossed = build_subject(f"{name}_cross", tiny=self.results.tiny)
            contenders += self.ours(f"{name}_cross", "cross", crossed, batch)
        # what needs no compiler first: if time runs out, something has been measured. Graphs last and one by one: each
        # keeps the memory of a step for itself
        graphs = [contender for contender in contenders if isinstance(contender.step, Graph)]
        others = [contender for contender in contenders if contender not in graphs]
        ready = self.measure(name, sorted(others, key=lambda contender: "compiled" in contender.name), batch)
        for contender in graphs:
            ready += self.measure(name, [contender], batch)
            contender.step = lambda: None
            self.free()
        self.compare(name, ready)

    def measure(self, name: str, contenders: list[Contender], batch: int) -> list[Contender]:
        """Those that ran, timed in turns and reported."""
        ready: list[Contender] = []
        for contender in contenders:
            check, graph = f"{name} {contender.name}", isinstance(contender.step, Graph)
            if self.results.attempt(check, lambda c=contender: self.warm_up(c), needs=10, cuda=graph):
                ready.append(contender)
        for _ in range(ROUNDS):
            for contender in ready if self.results.left > 3 else []:
                self.turn(contender)
        ready = [contender for contender in ready if contender.seconds]
        for contender in ready:
            self.report(name, contender, batch)
        return ready

    def free(self) -> None:
        gc.collect()  # a step and its model refer to each other
        if self.results.cuda:
            torch.cuda.empty_cache()

    def ours(self, name: str, kind: str, model: VideoModel, batch: int) -> list[Contender]:
        answer, small = inputs_of(name, model, batch, self.results.device), inputs_of(name, model, 2, "cpu")
        flops = cost_of(StepLoss(model), lambda: small, 2).flops
        step = Step(model.to(self.results.device), loss_of(model, *answer))

        def compiled(on: bool) -> None:
            for block in blocks_of(model):
                switch(block, checkpoint_activations=False, compiled=on)

        return [
            Contender(kind, step, flops, lambda: compiled(False)),
            Contender(f"{kind}, compiled", step, flops, lambda: compiled(True)),
            Contender(f"{kind}, compiled, CUDA graph", Graph(step), flops, lambda: compiled(True)),
        ]

    def theirs(self, name: str, model: VideoModel, batch: int) -> list[Contender]:
        """transformers', as it is and with its layers compiled. Its operations are counted as ours: the useful ones."""
        peer: Any = peer_of(model)
        if peer is None:
            self.results.add(f"{name} transformers", note="transformers is not installed, or has no such model")
            return []
        small = inputs_of(name, model, 2, "cpu")
        with torch.no_grad():
            difference = abs(float(loss_of(model, *small)() / peer_loss_of(peer, *small)()) - 1)
        self.results.add(f"{name}: loss is transformers'", difference <= SAME, difference=difference, limit=SAME)
        flops = cost_of(StepLoss(model), lambda: small, 2).flops
        step = Step(
            peer.to(self.results.device), peer_loss_of(peer, *inputs_of(name, model, batch, self.results.device))
        )
        layers = [layer for part in peer.modules() if isinstance(part, nn.ModuleList) for layer in part]
        plain = [layer.forward for layer in layers]

        def compiled(on: bool) -> None:
            for layer, forward in zip(layers, plain, strict=True):
                layer.forward = functools.partial(compile_once(type(layer).forward), layer) if on else forward

        return [
            Contender("transformers", step, flops, lambda: compiled(False)),
            Contender("transformers, compiled", step, flops, lambda: compiled(True)),
        ]

    def warm_up(self, contender: Contender) -> bool:
        """Compile, capture, and measure the memory of a step."""
        contender.prepare()
        for _ in range(2):
            loss = contender.step()
        self.wait()
        if not torch.isfinite(loss):
            raise ValueError(f"the loss is {loss.item()}")
        if self.results.cuda and isinstance(contender.step, Step):
            optimizer = contender.step.optimizer
            parameters = sum(p.numel() for group in optimizer.param_groups for p in group["params"])
            optimizer.zero_grad(set_to_none=True)
            before = torch.cuda.memory_allocated()
            torch.cuda.reset_peak_memory_stats()
            contender.step()
            self.wait()
            contender.fixed = 12 * parameters  # weights and moments; other models lie there, too
            contender.peak = torch.cuda.max_memory_allocated() - before + contender.fixed
        return True

    def turn(self, contender: Contender) -> None:
        contender.prepare()
        self.wait()
        begun = perf_counter()
        for _ in range(STEPS):
            contender.step()
        self.wait()
        contender.seconds.append((perf_counter() - begun) / STEPS)

    def report(self, name: str, contender: Contender, batch: int) -> None:
        clips_s = batch / median(contender.seconds)
        numbers: dict[str, Any] = {
            "batch": batch,
            "clips_s": clips_s,
            "spread": (max(contender.seconds) - min(contender.seconds)) / median(contender.seconds),
            "gflop": contender.flops / 1e9,
            "mfu": contender.flops * clips_s / self.rate,
        }
        if contender.peak is not None:
            total = torch.cuda.get_device_properties(0).total_memory
            each = (contender.peak - contender.fixed) / batch
            numbers |= {"gb": contender.peak / 1e9, "largest_batch": int((0.95 * total - contender.fixed) / each)}
        self.results.add(f"{name} {contender.name}", model=name, way=contender.name, **numbers)

    def compare(self, name: str, ready: list[Contender]) -> None:
        """Our best way of each kind against transformers' as it is, and against the targets."""
        seconds = {contender.name: median(contender.seconds) for contender in ready}
        for kind in ("plain", "dual", "cross"):
            mine = [contender for contender in ready if contender.name.split(",")[0] == kind]
            if not mine:
                continue
            best = min(mine, key=lambda contender: seconds[contender.name])
            for whose in ("transformers", "transformers, compiled"):
                if whose in seconds:
                    ratio = seconds[whose] / seconds[best.name]
                    target = TARGETS.get(kind) if name.startswith("pretrain") and whose == "transformers" else None
                    self.target(f"{name} {best.name} / {whose}", ratio, target)
            if kind == "plain" and name in MFU:
                batch = GROUPS[name] if not self.results.tiny else 2
                mfu = best.flops * batch / seconds[best.name] / self.rate
                self.target(f"{name} {best.name}: MFU", mfu, MFU[name])

    def target(self, check: str, value: float, target: float | None) -> None:
        note = "" if target is None else ("reached" if value >= target else "not reached")
        self.results.add(check, note=note, value=value, **({} if target is None else {"target": target}))


def main(results: Results) -> None:
    torch.manual_seed(0)
    if results.tiny:
        torch.compiler.set_stance("force_eager")  # the same calls, without minutes of compiling
    speed = Speed(results)
    for name, batch in GROUPS.items():
        if results.tiny and name in ("pretrain_large", "pretrain_small"):
            continue  # at tiny sizes they are pretrain_base again
        if results.left < 15:
            results.add(name, note=NO_TIME)
            continue
        results.attempt(name, lambda n=name, b=batch: speed.group(n, 2 if results.tiny else b))
        torch.compiler.reset()  # one group's graphs are no use to the next
        compile_once.cache_clear()
        speed.free()


if __name__ == "__main__":
    main(from_command_line("speed"))
