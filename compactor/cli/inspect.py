"""``compactor inspect``."""

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from compactor.cli import common

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from compactor.ir.program import Program
    from compactor.ir.space import SearchSpace

EPILOG = """\b
Examples:
  compactor inspect teacher.pt2
  compactor inspect weights.pt --factory models:resnet20 --json
  compactor inspect teacher.pt2 --why layer1.0.conv1.weight:0
"""


@click.command("inspect", epilog=EPILOG)
@click.argument("teacher", type=click.Path(path_type=Path))
@common.teacher_options
@click.option("--why", metavar="PARAM[:AXIS]", help="The chain of ops that ties an axis to its group, or pins it.")
@common.json_option
def command(teacher: Path, factory: str | None, trust_pickle: bool, why: str | None, as_json: bool) -> None:
    """What can be removed from TEACHER, what cannot and why, and what each block costs.

    Groups and blocks are those of the canonical model, as `build` searches them.
    """
    from compactor.ir.space import SearchSpace
    from compactor.pipeline.canonical import canonical
    from compactor.pipeline.request import open_teacher

    program = open_teacher(teacher, factory=factory, trust_pickle=trust_pickle)
    space = SearchSpace(canonical(program))
    facts = describe(program, space) if why is None else explained(space, why)
    if as_json:
        common.emit(facts)
    elif why is None:
        _show(common.stdout(), facts)
    else:
        _show_why(common.stdout(), facts)


def describe(program: "Program", space: "SearchSpace") -> dict[str, Any]:
    """Identity, inputs, quantizers and costs of a model; groups, blocks and pins of its search space, as JSON.

    A block's MACs are what removing it saves.
    """
    cost, whole = program.cost(), space.program.cost()
    saved = {b.name: whole.macs - space.cost(space.choose({}, (b.name,))).macs for b in space.blocks}
    return {
        "fingerprint": program.fingerprint,
        "inputs": [s.to_dict() for s in program.inputs],
        "assumed": program.meta.get("assumed"),
        "outputs": list(program.outputs),
        "precision": program.arithmetic,
        "parameters": cost.parameters,
        "macs": cost.macs,
        "bytes": cost.bytes,
        "quantizers": [q.to_dict() for q in program.quantization],
        "groups": [
            {
                "name": g.name,
                "kind": g.kind,
                "size": g.size,
                "parameters": g.parameters,
                "members": [{"tensor": tensor, "dim": dim, "per_unit": count} for tensor, dim, count in g.members],
            }
            for g in space.groups
        ],
        "blocks": [
            {"name": b.name, "entry": b.entry, "exit": b.exit, "parameters": b.parameters, "macs": saved[b.name]}
            for b in space.blocks
        ],
        "pinned": [
            {"tensor": p.tensor, "dim": p.dim, "size": p.size, "node": p.node, "reason": p.reason} for p in space.pinned
        ],
    }


def explained(space: "SearchSpace", axis: str) -> dict[str, Any]:
    """Why the axes of ``PARAM[:AXIS]`` are in their groups or pinned, as JSON. Raises `InputError`."""
    from compactor.ir import explain

    axes = []
    for tensor, dim in explain.parse(space, axis):
        reasons = [
            {
                "indices": r.indices,
                "group": r.group.name if r.group else None,
                "kind": r.group.kind if r.group else None,
                "because": r.because,
                "chains": [[asdict(step) for step in chain] for chain in r.chains],
            }
            for r in explain.why(space, tensor, dim)
        ]
        axes.append({"tensor": tensor, "dim": dim, "reasons": reasons})
    return {"axes": axes}


def _show_why(console: "Console", facts: dict[str, Any]) -> None:
    from rich.text import Text

    def line(text: str) -> None:
        console.print(Text(text), soft_wrap=True)

    for axis in facts["axes"]:
        line(f"{axis['tensor']}:{axis['dim']}")
        for r in axis["reasons"]:
            if r["group"] is not None:
                line(f"  {r['indices']} indices belong to group {r['group']} ({r['kind']}), tied to")
            else:
                line(f"  {r['indices']} indices must stay: {r['because']}")
            for chain in r["chains"]:
                line("    " + " -> ".join(f"{s['node']} ({s['op']}) {s['axis']}".rstrip() for s in chain))


def _show(console: "Console", facts: dict[str, Any]) -> None:
    from rich.table import Table

    inputs = ", ".join(f"{i['name']} {tuple(i['shape'])} {i['dtype']}" for i in facts["inputs"])
    console.print(f"inputs: {inputs}")
    if facts["assumed"]:
        console.print(f"! {facts['assumed']}")
    console.print(f"{facts['parameters']:,} parameters, {facts['macs']:,} MACs, {facts['bytes']:,} bytes\n")
    tables = [] if not facts["quantizers"] else [_quantizers(facts["quantizers"])]
    groups = Table("group", "kind", "size", "parameters", "members", title="groups: axes that shrink together")
    for g in facts["groups"]:
        groups.add_row(g["name"], g["kind"], str(g["size"]), f"{g['parameters']:,}", str(len(g["members"])))
    blocks = Table("block", "from", "to", "parameters", "MACs", title="blocks: branches that can be removed whole")
    for b in facts["blocks"]:
        blocks.add_row(b["name"], b["entry"], b["exit"], f"{b['parameters']:,}", f"{b['macs']:,}")
    pinned = Table("why", "axes", "for example", title="pinned: axes that must stay whole")
    reasons = Counter(p["reason"] for p in facts["pinned"])
    for reason, count in reasons.most_common():
        first = next(p for p in facts["pinned"] if p["reason"] == reason)
        pinned.add_row(reason, str(count), f"{first['tensor']}:{first['dim']}")
    for table in (*tables, groups, blocks, pinned):
        table.title_justify = "left"
        console.print(table)


def _quantizers(quantizers: list[dict[str, Any]]) -> "Table":
    from rich.table import Table

    table = Table(
        "quantizer", "kind", "bits", "scheme", "scales", "read by", title="quantizers: what is rounded, and how"
    )
    for q in quantizers:
        scale = f"axis {q['axis']}, {len(q['scale'])} scales" if q["axis"] is not None else f"{q['scale']:.3g}"
        point = f", zero point {q['zero_point']}" if q["axis"] is None and q["zero_point"] else ""
        readers = ", ".join(f"{e['node']}:{e['place']}" for e in q["readers"])
        table.add_row(q["source"], q["kind"], str(q["bits"]), f"{q['scheme']} {q['dtype']}", scale + point, readers)
    return table
