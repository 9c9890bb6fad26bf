"""The shapes that a model was lowered for, as text; needs neither torch nor a runtime."""

from collections.abc import Mapping

Options = Mapping[str, str | int | float | bool]


def nominal_shapes(options: Options, batch: int) -> dict[str, list[int]]:
    """Shapes by input name at this batch size, from what `compactor.backends.feeds.describe_shapes` wrote."""
    shapes = {}
    for word in str(options["shapes"]).split():
        name, _, sizes = word.rpartition("=")
        shapes[name] = [batch if n == "?" else int(n) for n in sizes.split("x")] if sizes else []
    return shapes
