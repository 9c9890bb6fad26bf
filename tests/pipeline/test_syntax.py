"""The text of pipelines: what it means, what is refused, and that printing reads back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compactor.errors import UsageError
from compactor.pipeline import syntax
from compactor.pipeline.syntax import Step

_words = st.from_regex(r"[a-z_][a-z0-9_]{0,6}", fullmatch=True)
_scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(10**9), 10**9)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
)
_values = st.recursive(
    _scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_words, inner, max_size=3), max_leaves=6
)
_names = st.lists(_words, min_size=1, max_size=2).map(".".join)
_steps = st.builds(Step, _names, st.dictionaries(_words, _values, max_size=3))


@given(st.lists(_steps, min_size=1, max_size=4))
def test_printing_reads_back(steps: list[Step]) -> None:
    again = syntax.parse(",".join(map(str, steps)))
    assert [(s.name, s.options) for s in again] == [(s.name, s.options) for s in steps]


def test_values() -> None:
    (step,) = syntax.parse('a.b { n = 3, x=-1.5e-2, f=true, o=null, t="a,\\"b}", w=2ms, l=[1, [2]], d={k={}}, p=50% }')
    assert step.name == "a.b"
    assert step.options == {
        "n": 3, "x": -0.015, "f": True, "o": None, "t": 'a,"b}', "w": "2ms", "l": [1, [2]], "d": {"k": {}}, "p": "50%",
    }  # fmt: skip


def test_positions() -> None:
    assert [s.position for s in syntax.parse("a, b{x=1} ,c")] == [0, 3, 11]


@pytest.mark.parametrize(
    ("text", "position", "expected"),
    [
        ("", 0, "the name of a pass"),
        ("a,", 2, "the name of a pass"),
        ("a,,b", 2, "the name of a pass"),
        ("a b", 2, '"," or "{"'),
        ("a{x}", 3, "an option"),
        ("a{x=}", 4, "a value"),
        ("a{x=1", 5, '"," or "}"'),
        ("a{x=[1", 6, '"," or "]"'),
        ("a{x=1,x=2}", 6, "not yet given"),
        ('a{x="\\q"}', 4, "JSON escapes"),
        ("a{x=1}}", 6, '"," or "{"'),
    ],
)
def test_refusals_name_the_position(text: str, position: int, expected: str) -> None:
    with pytest.raises(UsageError, match=f"at position {position}, ") as caught:
        syntax.parse(text)
    assert expected in str(caught.value)
