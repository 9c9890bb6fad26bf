"""``compactor passes``."""

from typing import TYPE_CHECKING, Any

import click

from compactor.cli import common

if TYPE_CHECKING:
    from compactor.pipeline.passes import Pass

EPILOG = """\b
Examples:
  compactor passes list
  compactor passes show distill.logits
"""


@click.group("passes", epilog=EPILOG)
def command() -> None:
    """What a pipeline can be made of."""


@command.command("list")
@common.json_option
def list_passes(as_json: bool) -> None:
    """All passes that are installed."""
    from compactor import registry

    facts = [_facts(registry.load("compactor.passes", name)) for name in registry.names("compactor.passes")]
    if as_json:
        common.emit(facts)
        return
    from rich.table import Table

    table = Table("pass", "what it does", "needs")
    for fact in facts:
        table.add_row(fact["name"], fact["summary"], ", ".join(fact["needs"]))
    common.stdout().print(table)


@command.command("show")
@click.argument("name")
@common.json_option
def show(name: str, as_json: bool) -> None:
    """Options and conditions of the pass NAME."""
    from compactor import registry

    fact = _facts(registry.load("compactor.passes", name))
    if as_json:
        common.emit(fact)
        return
    click.echo(f"{fact['name']} (version {fact['version']}{', exact' if fact['exact'] else ''})\n{fact['text']}")
    for key in ("requires", "ensures", "breaks", "after", "before", "needs"):
        if fact[key]:
            click.echo(f"{key + ':':10s}{', '.join(fact[key])}")
    for option, schema in fact["options"].items():
        kind = schema.get("type") or schema.get("enum") or ""
        click.echo(f"  {option}={schema.get('default')}  {kind}  {schema.get('description', '')}".rstrip())


def _facts(kind: "type[Pass]") -> dict[str, Any]:
    text = (kind.__doc__ or "").strip()
    return {
        "name": kind.name,
        "version": kind.version,
        "exact": kind.exact,
        "summary": text.splitlines()[0] if text else "",
        "text": text,
        **{key: sorted(getattr(kind, key)) for key in ("requires", "ensures", "breaks", "after", "before", "needs")},
        "options": kind.Config.model_json_schema().get("properties", {}),
    }
