"""The tables and the picture of methods.json; the README's part between its two marks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

Tree = Mapping[str, Any]

BEGIN = "<!-- methods: made by benchmarks/methods.py table -->"
END = "<!-- methods: end -->"
GIB, MIB = 1 << 30, 1 << 20
SAVERS = (
    ("full fine-tuning", "base {} full"),
    ("`freeze_embeddings`", "base {} full, frozen embeddings"),
    ("`freeze_layers: 6`", "base {} full, frozen embeddings and 6 blocks"),
    ("`gradient_checkpointing`", "base {} full, checkpointing"),
    ("`freeze_embeddings` and `gradient_checkpointing`", "base {} full, frozen embeddings, checkpointing"),
    ("lora and `gradient_checkpointing`", "base {} lora, checkpointing"),
    ("qlora and `gradient_checkpointing`", "base {} qlora, checkpointing"),
    ("masked LM", "base {} full, masked LM"),
    ("masked LM and `freeze_embeddings`", "base {} full, masked LM, frozen embeddings"),
    ("masked LM, were logits computed at every place", "base {} full, masked LM, logits everywhere"),
)


def taken(node: Tree) -> int:
    """Peak bytes of a step beyond the libraries' baseline."""
    return int(node["peak_bytes"]) - int(node["baseline_bytes"])


def speeds(node: Tree) -> list[float]:
    """Tokens a second of each measured update."""
    return [node["tokens"] / seconds for round_ in node["rounds"] for seconds in round_]


def methods_of(tree: Tree) -> list[str]:
    """In the order of the file: full first."""
    found = [key.split()[2] for key in tree.get("memory", {}) if key.startswith("base bf16 ") and "," not in key]
    return found + [m for of in tree.get("quality", {}).values() for m in of if m not in found]


def methods_table(tree: Tree) -> str:
    """A line for each method."""
    recipes = list(tree.get("quality", {}))
    heads = ["method", "trained", "carried on", "optimizer", "peak, base", "peak, large", "tokens/s", "GFLOP/token"]
    for recipe in recipes:
        heads += [f"{recipe}: English", "zero-shot", "retrieval"]
    rows = []
    for method in methods_of(tree):
        node = tree.get("memory", {}).get(f"base bf16 {method}")
        large = tree.get("memory", {}).get(f"large bf16 {method}")
        row = [f"`{method}`", *(_costs(node) if node else ["-"] * 7)]
        if large:
            row[5] = gib(taken(large))
        for recipe in recipes:
            summary = tree["quality"][recipe].get(method, {}).get("summary", {})
            row += [_score(summary.get(key)) for key in ("english", "zero_shot", "retrieval")]
        rows.append(row)
    return markdown(heads, rows)


def memory_caption(tree: Tree) -> str:
    """What the figures of memory and speed are of."""
    node = next(iter(tree["memory"].values()))
    case, on = node["case"], node["machine"]
    clock = "a second of one thread's CPU time" if node["clock"].startswith("CPU") else "a second"
    return (
        f"Sizes: encoders of random weights in XLM-R's shapes, one step of {case['rows']} x {case['width']} tokens, "
        f"weights and moments in fp32, products in bf16 unless said otherwise, the peak (`{node['measured']}`) beyond "
        f"what the libraries take. Trained parameters without the head; carried on: bytes that a phase hands to the "
        f"next; tokens: {clock}, of one update, or the median of several, lowest to highest. {on['device']}, threads: "
        f"{on['threads']}, torch {on['torch']}."
    )


def quality_caption(tree: Tree, recipe: str) -> str:
    """What the figures of quality are of, and how they fall short of the recipe."""
    setting = tree["settings"][recipe]
    seeds = max((len(node["runs"]) for node in tree["quality"][recipe].values()), default=0)
    return (
        f"`{recipe}`: intermediate task and targets by the method, arm `{setting['arm']}`, seeds: {seeds}; "
        f"English, zero-shot: means over the targets, zero-shot over the languages not trained on; retrieval: "
        f"accuracy on {setting['retrieval']}. Beside the recipe as shipped: "
        + ", ".join(f"`{override}`" for override in setting["overrides"])
        + "."
    )


def captions(tree: Tree) -> list[str]:
    return ([memory_caption(tree)] if tree.get("memory") else []) + [
        quality_caption(tree, recipe) for recipe in tree.get("quality", {})
    ]


def _costs(node: Tree) -> list[str]:
    found = speeds(node)
    return [
        f"{(node['trained_parameters'] - node['trained_in_head']) / 1e6:.2f} M",
        size(node["disk_bytes"]),
        size(node["optimizer_bytes"]),
        gib(taken(node)),
        "-",
        f"{median(found):,.0f}" + (f" ({min(found):,.0f} to {max(found):,.0f})" if len(found) > 1 else ""),
        f"{node['flops'] / node['tokens'] / 1e9:.2f}",
    ]


def savers_table(tree: Tree) -> str:
    """What saves memory beside the method, in both precisions."""
    memory = tree.get("memory", {})
    rows = []
    for name, pattern in SAVERS:
        nodes = [memory.get(pattern.format(precision)) for precision in ("fp32", "bf16")]
        if any(nodes):
            rows.append(
                [name, *(gib(taken(n)) if n else "-" for n in nodes)]
                + [f"{n['flops'] / n['tokens'] / 1e9:.2f}" if n else "-" for n in nodes[1:]]
            )
    return markdown(["XLM-R base", "peak, fp32", "peak, bf16", "GFLOP/token"], rows)


def precisions_table(tree: Tree) -> str:
    """Every method in fp32 and bf16."""
    memory = tree.get("memory", {})
    rows = []
    for method in methods_of(tree):
        nodes = [memory.get(f"base {precision} {method}") for precision in ("fp32", "bf16")]
        rows.append(
            [f"`{method}`"]
            + [gib(taken(n)) if n else "-" for n in nodes]
            + [f"{median(speeds(n)):,.0f}" if n else "-" for n in nodes]
        )
    return markdown(["XLM-R base", "peak, fp32", "peak, bf16", "tokens/s, fp32", "tokens/s, bf16"], rows)


def quality_table(tree: Tree, recipe: str) -> str:
    """Zero-shot means by task."""
    of = tree["quality"][recipe]
    tasks = [key for key in next(iter(of.values()))["summary"] if key not in ("english", "zero_shot", "retrieval")]
    rows = []
    for method, node in of.items():
        drift = max((run.get("merge_drift", 0.0) for run in node["runs"].values()), default=0.0)
        rows.append(
            [f"`{method}`", str(node["learning_rate"]), ", ".join(node["runs"])]
            + [_score(node["summary"].get(task)) for task in tasks]
            + [f"{drift:.4f}" if drift else "-"]
        )
    return markdown(["method", "rate", "seeds", *tasks, "merge drift"], rows)


def whole(tree: Tree) -> str:
    """The text file beside the JSON."""
    parts = ["# Methods", methods_table(tree), *captions(tree), precisions_table(tree), savers_table(tree)]
    for recipe in tree.get("quality", {}):
        parts += [f"## {recipe}: mean over the languages that were not trained on", quality_table(tree, recipe)]
    return "\n\n".join(parts) + "\n"


def readme_block(tree: Tree) -> str:
    return "\n\n".join([BEGIN, methods_table(tree), *captions(tree), savers_table(tree), END])


def into_readme(readme: str, tree: Tree) -> str:
    """The README with the part between its marks made anew. ValueError where the marks are not there, once each."""
    if readme.count(BEGIN) != 1 or readme.count(END) != 1:
        raise ValueError(f"the README needs {BEGIN} and {END}, once each")
    before, _, rest = readme.partition(BEGIN)
    return before + readme_block(tree) + rest.partition(END)[2]


def _score(found: Tree | None) -> str:
    if not found:
        return "-"
    return (
        f"{found['median']:.1f} ±{found['half_range']:.1f}" if found.get("seeds", 1) > 1 else f"{found['median']:.1f}"
    )


def size(count: int) -> str:
    return gib(count) if count >= GIB else f"{count / MIB:.1f} MiB"


def gib(count: int) -> str:
    return f"{count / GIB:.2f} GiB"


def markdown(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def draw(tree: Tree, path: Path) -> None:
    """Peak memory of each method on both sizes, stacked, and speed, as a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    methods = methods_of(tree)
    memory = tree["memory"]
    sizes = [which for which in ("base", "large") if any(f"{which} bf16 {method}" in memory for method in methods)]
    width = 4.7 * (len(sizes) + 1)
    figure, axes = pyplot.subplots(1, len(sizes) + 1, figsize=(width, 0.36 * len(methods) + 1.8), sharey=True)
    for axis, which in zip(axes, sizes, strict=False):
        parts: dict[str, list[float]] = {"weights": [], "optimizer's state": [], "gradients, activations": []}
        for method in methods:
            node = memory.get(f"{which} bf16 {method}")
            if node is None:
                for values in parts.values():
                    values.append(0.0)
                continue
            fixed = (node["weight_bytes"], node["optimizer_bytes"])
            for values, count in zip(parts.values(), (*fixed, max(0, taken(node) - sum(fixed))), strict=True):
                values.append(count / GIB)
        left = [0.0] * len(methods)
        for (name, values), colour in zip(parts.items(), ("#8da0cb", "#fc8d62", "#66c2a5"), strict=True):
            axis.barh(methods, values, left=left, color=colour, label=name)
            left = [a + b for a, b in zip(left, values, strict=True)]
        for place, total in enumerate(left):
            axis.text(total, place, f" {total:.1f}" if total else " not measured", va="center", fontsize=8)
        axis.set_xlim(0, max(left) * 1.15)
        axis.set_xlabel("GiB")
        axis.set_title(f"peak of a step, XLM-R-{which}-sized")
    axes[0].legend(loc="lower right", fontsize=8)
    found = [speeds(memory[f"base bf16 {method}"]) if f"base bf16 {method}" in memory else [0.0] for method in methods]
    middles = [median(values) for values in found]
    spread = [
        [m - min(v) for m, v in zip(middles, found, strict=True)],
        [max(v) - m for m, v in zip(middles, found, strict=True)],
    ]
    axes[-1].barh(methods, middles, xerr=spread, color="#a6d854", error_kw={"lw": 0.8})
    axes[-1].set_xlabel("tokens/s, median; line: slowest to fastest")
    axes[-1].set_title("speed, XLM-R-base-sized")
    axes[0].invert_yaxis()
    node = memory[f"base bf16 {methods[0]}"]
    case = node["case"]
    figure.suptitle(
        f"one step of {case['rows']} x {case['width']} tokens, bf16 products, fp32 weights; "
        f"{node['machine']['device']}, threads: {node['machine']['threads']}",
        fontsize=9,
    )
    figure.tight_layout()
    figure.savefig(path, dpi=110)
