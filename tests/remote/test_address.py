"""Addresses of devices."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compactor.backend import Loader
from compactor.device import Facts, Needs
from compactor.errors import MissingRuntimeError, UsageError
from compactor.targets.remote.address import Address

NAMES = st.from_regex(r"[a-z][a-z0-9-]{0,12}", fullmatch=True)


@given(
    host=st.one_of(NAMES, st.just("192.168.0.7"), st.just("fe80::1")),
    port=st.none() | st.integers(1, 65535),
    user=st.none() | NAMES,
    python=st.just("python3") | st.from_regex(r"/[a-z]{1,8}(/[a-z0-9.]{1,8}){0,3}", fullmatch=True),
)
def test_what_is_written_is_read(host: str, port: int | None, user: str | None, python: str) -> None:
    address = Address(host, port, user, python)
    path = "" if python == "python3" else python
    assert Address.parse(f"{address}{path}") == address
    assert address.command.endswith(host) and (user is None or f"{user}@{host}" in address.command)


def test_python_below_the_home_folder() -> None:
    assert Address.parse("ssh://pi@kitchen/~/venv/bin/python").python == "venv/bin/python"
    assert Address.parse("ssh://pi@kitchen/").python == "python3"


@pytest.mark.parametrize("url", ["ssh://", "ssh://h:99999", "ssh://h?x=1", "ssh://h#x", "ssh://u:p@h", "http://h"])
def test_refused(url: str) -> None:
    with pytest.raises(UsageError, match="->"):
        Address.parse(url)


@pytest.mark.parametrize(
    ("python", "runtime", "enough"),
    [
        ("3.10.0", "1.20", True),
        ("3.9.18", "1.20", False),
        ("3.11.2", "1.20.0+cu12", True),
        ("3.11.2", "1.9.1", False),
        ("3.11.2", "", True),
        ("3.11.2", None, False),
    ],
)
def test_versions_are_numbers(python: str, runtime: str | None, enough: bool) -> None:
    facts = Facts("x86_64", "Linux", python, "/usr/bin/python3", runtime, "/tmp", 1, "a", "cpu")
    needs = Needs("target host-cpu", Loader(("m",), "onnxruntime", "1.20"), ("x86_64",))
    if enough:
        needs.require(facts, "ssh://pi@kitchen")
        return
    with pytest.raises(MissingRuntimeError, match="ssh://pi@kitchen has"):
        needs.require(facts, "ssh://pi@kitchen")
