"""Gates of 0 and 1 compute what slicing does; those between have gradients and fold into weights."""

import pytest
import torch
from torch import Tensor

from compactor.ir.gating import Gated
from compactor.ir.program import Program
from compactor.ir.slicing import slice_program
from compactor.ir.space import space_of
from compactor.passes.canonicalize.canonicalize import canonical
from compactor.training.positions import hidden, streams
from compactor.training.taps import exposed
from tests.gates import Gates, hard, soft
from tests.models import program


def teacher(architecture: str) -> Program:
    return canonical(program(architecture))[0]


def gated(model: Program, train: bool = False) -> Gated:
    space = space_of(model)
    return Gated(model, space, [g.name for g in space.groups], [b.name for b in space.blocks], train=train)


def whole(model: Program, gates: Gates) -> Gates:
    """The gates with those of whole groups."""
    units = {g.name: gates[0].get(g.name, torch.ones(g.size)).float() for g in space_of(model).groups}
    return units, {name: v.float() for name, v in gates[1].items()}


def distance(found: Tensor, wanted: Tensor) -> float:
    return float((found.detach() - wanted).norm() / wanted.norm())


def first(outputs: Tensor | tuple[Tensor, ...]) -> Tensor:
    return outputs if isinstance(outputs, Tensor) else outputs[0]


def test_gates_of_0_and_1_are_a_slice(architecture: str) -> None:
    model = teacher(architecture)
    module, inputs = gated(model), model.example_inputs(3)
    assert distance(first(module(inputs, *whole(model, hard(space_of(model), space_of(model).full())))),
                    first(model(*inputs))) < 1e-5  # fmt: skip
    for seed in range(3):
        subnet = space_of(model).sample(seed)
        found = module(inputs, *whole(model, hard(space_of(model), subnet)))
        assert distance(found[0], first(slice_program(model, subnet)(*inputs))) < 1e-4


def test_every_gate_has_a_gradient(architecture: str) -> None:
    model = teacher(architecture)
    gates = whole(model, soft(space_of(model), 0, least=0.5))
    found = gated(model, train=True)(model.example_inputs(4), *gates)[0]
    values = [*gates[0].values(), *gates[1].values()]
    gradients = torch.autograd.grad(found.square().mean(), values)
    assert all(g.isfinite().all() for g in gradients)
    assert all(g.abs().sum() > 0 for g in gradients)


@pytest.mark.parametrize("name", ["resnet_b", "mobilenet_v2", "bert", "vit", "tied_lm"])
def test_gates_fold_into_the_slice(name: str) -> None:
    model = teacher(name)
    space = space_of(model)
    subnet = space.sample(0, depth=1.0)
    units, blocks = whole(model, hard(space, subnet))
    units = {k: v * soft(space, 0, least=0.5)[0][k].detach().float() for k, v in units.items()}
    module = gated(model)
    student = slice_program(model.with_state(module.folded(units)), subnet)
    inputs = model.example_inputs(3)
    with torch.no_grad():
        assert distance(first(student(*inputs)), module(inputs, units, blocks)[0]) < 1e-4


@pytest.mark.parametrize("name", ["resnet_a", "bert", "vit", "gpt2"])
def test_shown_hidden_states_are_those_of_the_slice(name: str) -> None:
    model = teacher(name)
    space, inputs = space_of(model), model.example_inputs(3)
    own = streams(model, model)[0]
    everything = [g.name for g in space.groups], [b.name for b in space.blocks]
    module = Gated(model, space, *everything, train=False, shown=[(s.node, s.dim) for s in own])
    subnet = space.sample(1, depth=0.6)
    student, alive = slice_program(model, subnet), space.alive(subnet)
    outputs = module(inputs, *whole(model, hard(space, subnet)))
    shown = dict(zip((s.name for s in own), outputs[len(model.outputs) :], strict=True))
    theirs = hidden(student)
    wanted = dict(zip(theirs, exposed(student, theirs).module()(*inputs)[len(model.outputs) :], strict=True))
    assert set(wanted) <= set(shown)
    for stream in own:
        if stream.name in wanted:
            kept = space.kept_indices(space.analysis.of(stream.node), alive)[stream.dim]
            found = shown[stream.name].movedim(stream.dim, 0)
            if kept is not None:
                mask = torch.from_numpy(kept)
                assert not found[~mask].any()
                found = found[mask]
            assert distance(found, wanted[stream.name].movedim(stream.dim, 0).detach()) < 1e-4


@pytest.mark.parametrize("name", ["bert", "vit", "convnext", "groupnorm", "llama"])
def test_all_gates_may_be_closed(name: str) -> None:
    """As in steps of training that close too many: outputs and gradients stay finite."""
    model = teacher(name)
    units, blocks = whole(model, soft(space_of(model), 0))
    units = {k: (0 * v.detach()).requires_grad_() for k, v in units.items()}
    found = gated(model, train=True)(model.example_inputs(4), units, blocks)[0]
    gradients = torch.autograd.grad(found.square().mean(), [*units.values()], allow_unused=True)
    assert found.isfinite().all() and all(g is None or g.isfinite().all() for g in gradients)
