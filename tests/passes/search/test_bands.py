"""Sub-spaces of real architectures: nested, ordered, within the teacher."""

import pytest

from compactor.ir.space import space_of
from compactor.passes.search.bands import BANDS, subnets
from compactor.training.supernet import Supernet
from tests.models import program

NAMES = ["bert", "vit", "gpt2", "resnet_a", "resnet_bottleneck", "convnext", "mobilenet_v2"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("band", BANDS, ids=lambda band: band.name)
def test_all_lie_within_the_first_and_the_last_is_the_smallest(name: str, band) -> None:
    space = space_of(program(name))
    found = subnets(space, band, multiple=1)
    sizes = [space.cost(s).parameters for s in found]
    assert max(sizes) == sizes[0] and min(sizes) == sizes[-1] and len(set(found)) == len(found) > 1
    first = dict(found[0].kept)
    for subnet in found:
        assert set(found[0].dropped) <= set(subnet.dropped)
        for group, units in subnet.kept:
            assert set(units) <= set(first.get(group, units))


@pytest.mark.parametrize("name", NAMES)
def test_bands_get_smaller(name: str) -> None:
    space = space_of(program(name))
    sizes = [space.cost(subnets(space, band, multiple=1)[0]).parameters for band in BANDS]
    assert sizes == sorted(sizes, reverse=True) and sizes[0] > sizes[-1]
    assert space.cost(space.full()).parameters >= sizes[0]


def test_every_class_of_blocks_keeps_one() -> None:
    space = space_of(program("bert"))
    smallest = subnets(space, BANDS[-1])[-1]
    assert 0 < len(smallest.dropped) < len(space.blocks)


def test_the_ends_of_a_sub_space_run_on_one_set_of_weights() -> None:
    model = program("bert")
    found = subnets(space_of(model), BANDS[-1], multiple=1)
    net, inputs = Supernet(model, found[0]), model.example_inputs(2)
    assert all(next(iter(net(s, *inputs).values())).isfinite().all() for s in (found[0], found[-1]))
