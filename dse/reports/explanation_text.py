"""An explanation as text, as plain values, and as a picture (SVG without scripts or requests)."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING, Any

from dse.analysis import policy_tree
from dse.analysis.explanation import WORTH_ASKING, Explanation, question, threshold, tree_json
from dse.analysis.policy_tree import Leaf, Tree
from dse.reports.terminal import printable

if TYPE_CHECKING:
    from dse.analysis.neighbours import Neighbour, Why
    from dse.storage.run_folder import RunRecord


@dataclass(frozen=True, repr=False, eq=False)
class RunExplanation(Explanation):
    """An explanation that shows itself as ``dse explain`` prints it, and its tree as a picture in a notebook."""

    run: RunRecord = field(kw_only=True)

    def __repr__(self) -> str:
        return text(self.run, self, None)

    def _repr_html_(self) -> str:
        picture = base64.b64encode(svg(self.run, self).encode("utf-8")).decode("ascii")  # apart, so that its style stays its own
        return f'<pre>{escape(repr(self))}</pre><img alt="decision tree" src="data:image/svg+xml;base64,{picture}">'


_SHOWN = {
    "latency_s": "latency",
    "energy_j": "energy",
    "area_mm2": "area",
    "embodied_kgco2e": "embodied",
    "total_kgco2e": "total",
}
_VERDICTS = {
    "infeasible": "not allowed",
    "worse": "worse",
    "better": "better in all objectives",
    "trade": "another trade-off",
    "same": "the same",
    "unmeasured": "quality not measured in this study",
}


def knob_text(run: RunRecord, design: int, *, only_varying: bool = True) -> str:
    """The knobs of a design of the front, those that differ between its designs."""
    every = (*run.designs, *run.contenders)
    knobs = next(d["knobs"] for d in every if d["design"] == design)
    names = [name for name in knobs if not only_varying or len({str(d["knobs"].get(name)) for d in every}) > 1] or list(knobs)
    return printable(", ".join(f"{name}={value}" for name, value in run.problem.shown({name: knobs[name] for name in names}).items()))


def _step_text(run: RunRecord, reason: Why, n: Neighbour) -> str:
    """``glb_mib 2 -> 1``: a step by the name and in the unit in which the knob was asked for."""
    (name, own), *_ = run.problem.shown({n.knob: reason.knobs[n.knob]}).items()
    (value,) = run.problem.shown({n.knob: n.value}).values()
    return printable(f"{name} {own} -> {value}" + "".join(f", {also}={v}" for also, v in run.problem.shown(n.moved).items()))


def text(run: RunRecord, explanation: Explanation, reason: Why | None) -> str:
    """What ``dse explain`` prints."""
    e = explanation
    s = e.segments
    single = int(e.candidates.design[e.single])
    further = int(e.candidates.design.max()) > len(run.designs)
    lines = [
        f"{s.size} segments ({' x '.join(map(str, s.shape))}) x {len(e.candidates)} designs of {printable(str(run.path))}"
        + (f" (those above {len(run.designs)} are beside its front: best elsewhere)" if further else ""),
        "  grids     " + ", ".join(f"{printable(n)} {g:.4g}" for n, g in zip(s.regions, s.gco2e_per_kwh, strict=True)) + " gCO2e/kWh",
        "  lifetimes " + ", ".join(f"{v:g}" for v in s.lifetime_years) + " years",
        "  rates     " + ", ".join(f"{v:g}" for v in s.rate_per_s) + " a second",
        "  budgets   " + ", ".join("none" if math.isinf(v) else f"{v * 1e3:g} ms" for v in s.latency_budget_s),
    ]
    if e.quality_floor is not None:
        why = "no standard error is known, so only the best quality was kept; --min-quality, min_quality=, keeps more"
        lines.append(f"  quality   at least {e.quality_floor:.4g} ({why if e.only_best else 'designs of like quality are compared'})")
    if e.impossible:
        lines.append(f"  {e.impossible} segments can be served by no design; they are left out")
    lines += ["", f"{'assignment':<26}{'mean kgCO2e':>13}{'over oracle*':>13}{'not served':>12}{'saving recovered':>18}"]
    for depth, policy in enumerate(e.policies):
        name = f"one design ({single})" if depth == 0 else f"tree of depth {depth}"
        lines.append(f"{name:<26}{policy.mean_kgco2e:>13.5g}{policy.mean_excess:>13.2%}{policy.unserved:>12}{_share(policy.recovered):>18}")
    lines.append(f"{'oracle (one a segment)':<26}{e.oracle_mean_kgco2e:>13.5g}{0:>13.2%}{0:>12}{'100%':>18}")
    lines.append("* mean of each segment's own excess, all alike, not of the means beside it, which segments of much carbon decide")
    told = e.policies[-1]
    if all(math.isnan(p.recovered) for p in e.policies):
        lines.append(f"One design is within {WORTH_ASKING:.1%} of the best wherever it can serve: there is nothing for a tree to save.")
        # What only the tree serves is its gain all the same.
        told = e.policies[0] if e.policies[0].unserved == told.unserved else told
    lines += ["", *_tree_lines(run, e, told.tree, "")]
    if reason is not None:
        lines += ["", *_why_lines(run, reason)]
    return "\n".join(lines)


def _share(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.1%}"


def _tree_lines(run: RunRecord, e: Explanation, tree: Tree, indent: str) -> list[str]:
    if isinstance(tree, Leaf):
        design = int(e.candidates.design[tree.choice])
        served = f", {tree.unserved} of them not served" if tree.unserved else ""
        return [f"{indent}-> design {design}: {knob_text(run, design)}  ({tree.cells} segments{served})"]
    return [
        f"{indent}{printable(question(tree, e.segments))}",
        *_branch(run, e, tree.left, indent, "yes"),
        *_branch(run, e, tree.right, indent, "no"),
    ]


def _branch(run: RunRecord, e: Explanation, tree: Tree, indent: str, answer: str) -> list[str]:
    inner = _tree_lines(run, e, tree, indent + "      ")
    first = inner[0][len(indent) + 6 :]
    return [f"{indent}  {answer:<3} {first}", *inner[1:]]


def _why_lines(run: RunRecord, reason: Why) -> list[str]:
    fixed = run.problem.fixed
    objectives = [o.metric for o in run.problem.objectives]
    # Quality, and objectives that have no column of their own, come first.
    first = [name for name in dict.fromkeys(["quality", *objectives]) if name not in _SHOWN and name in reason.metrics]
    columns = {name: name.removesuffix("_kgco2e") for name in first} | _SHOWN
    steps = [_step_text(run, reason, n) for n in reason.neighbours]
    wide = max(map(len, [*steps, "knob"])) + 1
    lines = [
        f"Why design {reason.design} ({knob_text(run, reason.design)}): what one step of each knob would change",
        f"{'knob':<{wide}}" + "".join(f"{title[:10]:>11}" for title in columns.values()) + "  verdict",
    ]
    for n, step in zip(reason.neighbours, steps, strict=True):
        cells = "".join(f"{_change(reason.metrics, n.metrics, name):>11}" for name in columns)
        star = " *" if n.knob in fixed else ""
        lines.append(f"{step:<{wide}}{cells}  {_verdict(n)}{star}")
    if any(n.knob in fixed for n in reason.neighbours):
        lines.append("* a knob that the search was told to keep (--set)")
    return lines


def _verdict(n: Neighbour) -> str:
    told = _VERDICTS[n.verdict]
    return printable(f"{told}: {'; '.join(n.broken)}") if n.broken else told


def _change(own: Mapping[str, float], other: Mapping[str, float], name: str) -> str:
    if name not in own or name not in other:
        return "-"
    if name == "quality":
        return f"{other[name] - own[name]:+.2f}"
    if own[name] == 0:
        return "-"
    return f"{other[name] / own[name] - 1:+.1%}"


def as_json(run: RunRecord, explanation: Explanation, reason: Why | None) -> dict[str, Any]:
    """An explanation as plain values; costs that are infinite and shares that do not exist are null."""
    e = explanation

    def finite(value: float) -> float | None:
        return value if math.isfinite(value) else None

    answer: dict[str, Any] = {
        "run": str(run.path),
        "segments": {
            "regions": list(e.segments.regions),
            "gco2e_per_kwh": list(e.segments.gco2e_per_kwh),
            "lifetime_years": list(e.segments.lifetime_years),
            "rate_per_s": list(e.segments.rate_per_s),
            "latency_budget_s": [finite(value) for value in e.segments.latency_budget_s],
            "count": e.segments.size,
            "impossible": e.impossible,
        },
        "weigh": e.weigh,
        "quality_floor": e.quality_floor,
        "only_best_quality": e.only_best,
        "designs": e.candidates.design.tolist(),
        "single_design": int(e.candidates.design[e.single]),
        "oracle_mean_kgco2e": e.oracle_mean_kgco2e,
        "oracle_designs": sorted({int(e.candidates.design[i]) for i in e.oracle[e.possible].tolist()}),
        "policies": [
            {
                "depth": depth,
                "mean_kgco2e": finite(p.mean_kgco2e),
                "mean_excess_over_oracle": finite(p.mean_excess),
                "unserved": p.unserved,
                "saving_recovered": finite(p.recovered),
                "tree": tree_json(p.tree, e),
            }
            for depth, p in enumerate(e.policies)
        ],
    }
    if reason is not None:
        answer["why"] = {
            "design": reason.design,
            "knobs": dict(reason.knobs),
            "metrics": dict(reason.metrics),
            "neighbours": [
                {
                    "knob": n.knob,
                    "value": n.value,
                    "moved_with_it": dict(n.moved),
                    "verdict": n.verdict,
                    "broken": list(n.broken),
                    "metrics": dict(n.metrics),
                }
                for n in reason.neighbours
            ],
        }
    return answer


# The picture: leaves side by side, questions above them, everything in one SVG that a browser or an editor opens.
_LEAF_WIDTH, _LEAF_GAP, _ROW, _MARGIN, _HEAD = 178, 14, 104, 24, 92
_LINES_IN_LEAF = 5
# Fills that stay apart for readers with any colour vision (Okabe and Ito), one a design in order of appearance.
_FILLS = ("#56b4e9", "#e69f00", "#009e73", "#f0e442", "#cc79a7", "#d55e00", "#0072b2", "#999999")
_STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#1a1a1a}.small{font-size:11px}.title{font-size:16px;font-weight:600}"
    ".node{fill:#f4f4f4;stroke:#666}.edge{stroke:#666;fill:none}.leaf{stroke:#444;fill-opacity:.7}.ground{fill:#fff}"
    "@media (prefers-color-scheme: dark){.ground{fill:#161616}text{fill:#eee}.node{fill:#2a2a2a;stroke:#aaa}.edge{stroke:#aaa}"
    ".leaf{fill-opacity:.45}}"
)


def svg(run: RunRecord, explanation: Explanation) -> str:
    """The deepest tree as a picture."""
    e = explanation
    tree = e.policies[-1].tree
    leaves = list(policy_tree.leaves(tree))
    depth = policy_tree.depth_of(tree)
    width = max(2 * _MARGIN + len(leaves) * (_LEAF_WIDTH + _LEAF_GAP) - _LEAF_GAP, 620)
    height = _HEAD + depth * _ROW + 130 + _MARGIN
    fills: dict[int, str] = {}
    for leaf in leaves:
        fills.setdefault(leaf.choice, _FILLS[len(fills) % len(_FILLS)])
    body: list[str] = []
    offset = (width - (len(leaves) * (_LEAF_WIDTH + _LEAF_GAP) - _LEAF_GAP)) / 2
    _draw(run, e, tree, [0], 0, depth, offset, fills, body)
    policy = e.policies[-1]
    saved = "" if math.isnan(policy.recovered) else f", {policy.recovered:.1%} of the oracle's saving over one design"
    head = [
        _text(_MARGIN, 32, f"Which design for which deployment: {run.problem.workload}", "title"),
        _text(_MARGIN, 54, f"{e.segments.size} segments, {len(e.candidates)} designs{saved}"),
        _text(
            _MARGIN, 73,
            f"mean kgCO2e: one design {e.policies[0].mean_kgco2e:.4g}, this tree {policy.mean_kgco2e:.4g}, "
            f"oracle {e.oracle_mean_kgco2e:.4g}",
            "small",
        ),
    ]  # fmt: skip
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" viewBox="0 0 {width:.0f} {height:.0f}" '
            'role="img">',
            f"<title>{escape(printable(f'Decision tree of designs for {run.problem.workload}'))}</title>",
            f"<style>{_STYLE}</style>",
            f'<rect class="ground" width="{width:.0f}" height="{height:.0f}"/>',
            *head,
            *body,
            "</svg>",
            "",
        ]
    )


def _draw(
    run: RunRecord, e: Explanation, tree: Tree, place: list[int], level: int, depth: int, offset: float, fills: Mapping[int, str],
    into: list[str],
) -> float:  # fmt: skip
    """Draw a subtree; returns the x of its root. ``place`` counts the leaves that stand already."""
    y = _HEAD + level * _ROW
    if isinstance(tree, Leaf):
        x = offset + place[0] * (_LEAF_WIDTH + _LEAF_GAP)
        place[0] += 1
        design = int(e.candidates.design[tree.choice])
        words = _wrapped(knob_text(run, design), 27)
        lines = [f"{tree.cells} segments" + (f", {tree.unserved} not served" if tree.unserved else ""), *words][:_LINES_IN_LEAF]
        into.append(
            f'<rect class="leaf" x="{x:.1f}" y="{y}" width="{_LEAF_WIDTH}" height="{34 + 15 * len(lines)}" rx="6" '
            f'fill="{fills[tree.choice]}"/>'
        )
        into.append(_text(x + 10, y + 20, f"design {design}"))
        into += [_text(x + 10, y + 38 + 15 * i, line, "small") for i, line in enumerate(lines)]
        return x + _LEAF_WIDTH / 2
    first: list[str] = []
    left = _draw(run, e, tree.left, place, level + 1, depth, offset, fills, first)
    right = _draw(run, e, tree.right, place, level + 1, depth, offset, fills, first)
    x = (left + right) / 2
    asked = question(tree, e.segments).partition("? (")
    label = asked[0] + ("?" if asked[1] else "")
    wide = max(120, 7.2 * len(label) + 20)
    for end, answer in ((left, "yes"), (right, "no")):
        into.append(f'<path class="edge" d="M{x:.1f},{y + 36} L{end:.1f},{y + _ROW}"/>')
        into.append(_text((x + end) / 2 + (-26 if answer == "yes" else 8), y + (36 + _ROW) / 2, answer, "small"))
    into.append(f'<rect class="node" x="{x - wide / 2:.1f}" y="{y}" width="{wide:.1f}" height="36" rx="6"/>')
    into.append(_text(x, y + 23, label, anchor="middle"))
    into += first
    return x


def _text(x: float, y: float, content: str, css: str = "", anchor: str = "start") -> str:
    shown = escape(printable(content))
    kind = f' class="{css}"' if css else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{kind}>{shown}</text>'


def _wrapped(content: str, width: int) -> Sequence[str]:
    import textwrap

    return textwrap.wrap(content, width) or [""]


__all__ = ["as_json", "knob_text", "svg", "text", "threshold"]
