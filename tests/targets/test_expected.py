"""Expected latency: the prediction at 0 and 1, and gradients that are right and never negative."""

import time
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from compactor.errors import UnsupportedError
from compactor.ir.expected import Expectation
from compactor.ir.space import SearchSpace, space_of
from compactor.passes.canonicalize.canonicalize import canonical
from compactor.target import Observation
from compactor.targets.device import ProfileTarget
from compactor.targets.fits import Fit
from compactor.targets.profile import Memory
from compactor.targets.registry import profiles
from tests.gates import Gates, hard, soft
from tests.models import program

SEVERAL = ("resnet_bottleneck", "mobilenet_v3", "vit", "bert", "gpt2")


def unpadded(name: str) -> ProfileTarget:
    """A device whose output channels are not padded to lanes."""
    profile = profiles.resolve(name).profile
    return ProfileTarget(profile.model_copy(update={"model": profile.model.model_copy(update={"lanes": {}})}))


def cached() -> ProfileTarget:
    """One whose cache holds the weights of some subnets and not of others."""
    target = unpadded("raspberry-pi-4")
    memory = Memory(bandwidth_gbs=4, cache_mb=8e-3, cache_gbs=40)
    return ProfileTarget(target.profile.model_copy(update={"memory": memory}))


TARGETS = {"jetson-orin": unpadded("jetson-orin"), "x86-avx2": unpadded("x86-avx2"), "cached": cached()}


@pytest.fixture(params=TARGETS)
def target(request: pytest.FixtureRequest) -> ProfileTarget:
    return TARGETS[request.param]


def both(space: SearchSpace, target: ProfileTarget, gates: Gates) -> list[Tensor]:
    """Gradients of the expected latency: of all groups, then of all blocks."""
    values = [v for part in gates for v in part.values()]
    latency = target.expected(Expectation(space).kernels(*gates), "int8")
    return list(torch.autograd.grad(latency, values))


def test_at_0_and_1_it_is_the_prediction(architecture: str) -> None:
    space = space_of(program(architecture))
    expectation = Expectation(space)
    for subnet in [space.full(), *(space.sample(seed, depth=d) for seed in range(3) for d in (0.5, 1.0))]:
        if (kernels := space.plan.kernels(subnet)) is None:
            continue  # fuses differently
        expected = expectation.kernels(*hard(space, subnet))
        for target in TARGETS.values():
            for precision in target.precisions:
                found = target.expected(expected, precision)
                assert found.dtype == torch.float64 and found.shape == ()
                assert float(found) == pytest.approx(target.predict(kernels, precision).p50, rel=1e-9)


@pytest.mark.parametrize("name", SEVERAL)
def test_a_block_on_its_way_out(name: str, target: ProfileTarget) -> None:
    space = space_of(canonical(program(name))[0])
    expectation = Expectation(space)
    for block in space.blocks:
        steps = torch.linspace(1, 0, 5)
        latencies = [float(target.expected(expectation.kernels({}, {block.name: p}), "int8")) for p in steps]
        without = space.kernels(space.choose({}, (block.name,)))
        assert latencies == sorted(latencies, reverse=True)
        assert latencies[-1] == pytest.approx(target.predict(without, "int8").p50, rel=1e-9)


def test_gradients_are_finite_differences(target: ProfileTarget) -> None:
    space = space_of(program("resnet_b"))
    expectation, (units, blocks) = Expectation(space), soft(space, 0, least=0.5)
    names = [*units, *blocks]

    def nanoseconds(*values: Tensor) -> Tensor:
        given = dict(zip(names, values, strict=True))
        kernels = expectation.kernels({n: given[n] for n in units}, {n: given[n] for n in blocks})
        return target.expected(kernels, "int8") * 1e6

    values = [v.detach()[:3].clone().requires_grad_() if v.dim() else v for v in units.values()]
    rest = [v.detach()[3:] for v in units.values()]

    def some(*given: Tensor) -> Tensor:  # three units of each group: the others have the same slope
        whole = [torch.cat([g, r]) for g, r in zip(given, rest, strict=False)]
        return nanoseconds(*whole, *given[len(rest) :])

    assert torch.autograd.gradcheck(some, (*values, *blocks.values()), eps=1e-4, atol=1e-4, rtol=1e-5)


def test_more_kept_is_never_faster(architecture: str, target: ProfileTarget) -> None:
    space = space_of(program(architecture))
    for seed in range(3):
        assert all(g.ge(0).all() and g.isfinite().all() for g in both(space, target, soft(space, seed)))
    for gradient in both(space, target, soft(space, 3, least=0.5)):
        assert gradient.gt(0).all(), "every group and block counts"
    units, blocks = hard(space, space.sample(0))
    gates = tuple({n: v.double().requires_grad_() for n, v in part.items()} for part in (units, blocks))
    assert all(g.ge(0).all() and g.isfinite().all() for g in both(space, target, gates))  # type: ignore[arg-type]


def test_channels_are_padded_to_lanes() -> None:
    target, space = profiles.resolve("x86-avx2"), space_of(program("resnet_b"))
    expectation = Expectation(space)
    for seed in range(5):
        subnet = space.sample(seed, depth=1.0)
        expected = float(target.expected(expectation.kernels(*hard(space, subnet)), "int8"))
        assert expected == pytest.approx(target.predict(space.kernels(subnet), "int8").p50, rel=1e-9)
        for least in (0.0, 0.5):
            gradients = both(space, target, soft(space, seed, least))
            assert all(g.ge(0).all() and g.isfinite().all() for g in gradients)
            assert sum(g.sum() for g in gradients) > 0


def test_leaving_out_a_vector_pays_and_a_channel_does_not() -> None:
    """The mean over random numbers of channels, of the steps that a prediction has."""
    space = space_of(program("resnet_b"))
    group = max(space.groups, key=lambda g: g.size)
    memory = Memory(bandwidth_gbs=1e6)
    plain = profiles.resolve("x86-avx2").profile
    lanes = group.size // 4
    target = ProfileTarget(
        plain.model_copy(update={"memory": memory, "model": plain.model.model_copy(update={"lanes": {"int8": lanes}})})
    )
    expectation = Expectation(space)

    def latency(units: Tensor) -> float:
        return float(target.expected(expectation.kernels({group.name: units}, {}), "int8"))

    certain = [latency((torch.arange(group.size) < n).double()) for n in range(1, group.size + 1)]
    steps = [b - a for a, b in pairwise(certain[1:])]
    assert [n for n, step in enumerate(steps, 2) if step > 2 * min(steps)] == [lanes, 2 * lanes, 3 * lanes]
    for share in (0.3, 0.5, 0.8):
        drawn = torch.distributions.Binomial(group.size, torch.tensor(share)).log_prob(
            torch.arange(1, group.size + 1.0)
        )
        mean = float((drawn.exp() * torch.tensor(certain)).sum() / drawn.exp().sum())
        assert latency(torch.full((group.size,), share).double()) == pytest.approx(mean, rel=0.02)


def test_what_a_fit_has_learned_counts(target: ProfileTarget) -> None:
    space = space_of(canonical(program("resnet_bottleneck"))[0])
    seen = [space.kernels(space.sample(seed)) for seed in range(10)]
    slow = [Observation("int8", k, 1.5 * target.predict(k, "int8").p50 + 0.01 * len(k)) for k in seen]
    fitted = ProfileTarget(target.profile, Fit(target.learned(slow), {}))
    expectation = Expectation(space)
    for subnet in (space.full(), space.sample(20), space.sample(21)):
        found = float(fitted.expected(expectation.kernels(*hard(space, subnet)), "int8"))
        assert found == pytest.approx(fitted.predict(space.kernels(subnet), "int8").p50, rel=1e-9)
        assert found > 1.2 * target.predict(space.kernels(subnet), "int8").p50
    assert all(g.gt(0).all() for g in both(space, fitted, soft(space, 0, least=0.5)))


def test_gradients_reach_probabilities_of_any_precision() -> None:
    space = space_of(program("vit"))
    logits = {g.name: torch.zeros(g.size, requires_grad=True) for g in space.groups}
    units = {name: v.sigmoid().to(torch.bfloat16) for name, v in logits.items()}
    TARGETS["jetson-orin"].expected(Expectation(space).kernels(units, {}), "float16").backward()
    assert all(v.grad is not None and v.grad.gt(0).all() for v in logits.values())


def test_a_precision_the_device_has_not_is_refused() -> None:
    kernels = Expectation(space_of(program("resnet_b"))).kernels({}, {})
    with pytest.raises(UnsupportedError, match="jetson-orin does not run 'bfloat16'"):
        TARGETS["jetson-orin"].expected(kernels, "bfloat16")


def test_a_step_takes_milliseconds() -> None:
    space = space_of(canonical(program("mobilenet_v3"))[0])
    expectation, gates, times = Expectation(space), soft(space, 0), []
    for _ in range(20):
        start = time.process_time()
        TARGETS["jetson-orin"].expected(expectation.kernels(*gates), "int8").backward()
        times.append(time.process_time() - start)
    assert min(times) < 10e-3
