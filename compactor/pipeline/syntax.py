"""The text of pipelines, MLIR style: ``canonicalize,search.uniform{keep=0.5},quantize.ptq``.

::

    pipeline = pass ("," pass)*
    pass     = name [ "{" [ option ("," option)* ] "}" ]
    option   = key "=" value
    value    = number | true | false | null | word | "string" | "[" values "]" | "{" options "}"
"""

import json
import re
from dataclasses import dataclass, field
from typing import Any

from compactor.errors import UsageError

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_\-]*(\.[A-Za-z_][A-Za-z0-9_\-]*)*")
_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_WORD = re.compile(r"[A-Za-z0-9_.%/:+\-]+")
_SPACE = re.compile(r"\s*")
_CONSTANTS = {"true": True, "false": False, "null": None}


@dataclass(frozen=True)
class Step:
    """One pass of a pipeline text: its name, its options and where in the text it starts."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    position: int = 0

    def __str__(self) -> str:
        return self.name + (_print(self.options) if self.options else "")


def parse(text: str) -> list[Step]:
    """The steps of a pipeline text. Raises `UsageError` naming the position of the first thing that does not fit."""
    return _Parser(text).pipeline()


class _Parser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def fail(self, expected: str) -> UsageError:
        found = repr(self.text[self.at : self.at + 12]) if self.at < len(self.text) else "the end"
        return UsageError(
            f"pipeline text: expected {expected} at position {self.at}, found {found}\n"
            f"    {self.text}\n    {' ' * self.at}^",
            "write it like canonicalize,search.uniform{keep=0.5},quantize.ptq",
        )

    def match(self, pattern: re.Pattern[str]) -> str | None:
        found = pattern.match(self.text, self.at)
        if found is None:
            return None
        self.at = found.end()
        return found[0]

    def take(self, char: str) -> bool:
        self.match(_SPACE)
        if not self.text.startswith(char, self.at):
            return False
        self.at += len(char)
        self.match(_SPACE)
        return True

    def pipeline(self) -> list[Step]:
        self.match(_SPACE)
        steps = [self.step()]
        while self.take(","):
            steps.append(self.step())
        self.match(_SPACE)
        if self.at < len(self.text):
            raise self.fail('"," or "{"')
        return steps

    def step(self) -> Step:
        position = self.at
        name = self.match(_NAME)
        if name is None:
            raise self.fail("the name of a pass")
        return Step(name, self.options() if self.take("{") else {}, position)

    def options(self) -> dict[str, Any]:
        options: dict[str, Any] = {}
        if self.take("}"):
            return options
        while True:
            start = self.at
            key = self.match(_KEY)
            if key is None or key in options or not self.take("="):
                self.at = start if key in options else self.at
                raise self.fail("an option that is not yet given" if key in options else 'an option, "key=value"')
            options[key] = self.value()
            if self.take("}"):
                return options
            if not self.take(","):
                raise self.fail('"," or "}"')

    def value(self) -> Any:
        if self.take("["):
            return self.items()
        if self.take("{"):
            return self.options()
        start = self.at
        string = self.match(_STRING)
        if string is not None:
            return _unquote(string, self, start)
        word = self.match(_WORD)
        if word is None:
            raise self.fail("a value")
        return _constant(word)

    def items(self) -> list[Any]:
        values: list[Any] = []
        if self.take("]"):
            return values
        while True:
            values.append(self.value())
            if self.take("]"):
                return values
            if not self.take(","):
                raise self.fail('"," or "]"')


def _unquote(string: str, parser: _Parser, start: int) -> Any:
    try:
        return json.loads(string)
    except json.JSONDecodeError:
        parser.at = start
        raise parser.fail("a string with JSON escapes") from None


def _constant(word: str) -> Any:
    if word in _CONSTANTS:
        return _CONSTANTS[word]
    if _NUMBER.fullmatch(word):
        return int(word) if re.fullmatch(r"[+-]?[0-9]+", word) else float(word)
    return word


def _print(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ",".join(f"{k}={_print(v)}" for k, v in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(map(_print, value)) + "]"
    if isinstance(value, str) and _WORD.fullmatch(value) and _constant(value) is value:
        return value
    return json.dumps(value)
