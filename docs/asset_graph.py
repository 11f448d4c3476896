"""The asset graph in the README, `python -m docs.asset_graph`: drawn from the definitions, a box a group, as Mermaid.

An arrow that others imply is left out. A test holds the README to it.
"""

from pathlib import Path

import networkx as nx

from jobs.definitions import definitions

README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "```mermaid\n", "```\n"


def main() -> None:
    before, rest = README.read_text(encoding="utf-8").split(BEGIN, 1)
    README.write_text(before + drawing() + rest.split(END, 1)[1], encoding="utf-8")


def drawing() -> str:
    """The fenced block, whole."""
    assets = definitions().resolve_asset_graph()
    boxes: dict[str, list[str]] = {}
    arrows = nx.DiGraph()
    for key in assets.toposorted_asset_keys:
        node = assets.get(key)
        boxes.setdefault(node.group_name, []).append(key.to_user_string())
        arrows.add_edges_from((assets.get(parent).group_name, node.group_name) for parent in node.parent_keys)
    arrows.remove_edges_from(nx.selfloop_edges(arrows))
    order = nx.lexicographical_topological_sort(arrows)
    lines = [f'    {group}["<b>{group}</b><br/>{"<br/>".join(boxes[group])}"]' for group in order]
    lines += [f"    {one} --> {other}" for one, other in sorted(nx.transitive_reduction(arrows).edges)]
    return BEGIN + "flowchart LR\n" + "\n".join(lines) + "\n" + END


if __name__ == "__main__":
    main()
