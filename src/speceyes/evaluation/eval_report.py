"""A run's figures in words: Markdown in the layout of the paper's Table 1, CSV, and a few lines."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from speceyes.evaluation import arms as known
from speceyes.evaluation import paper_table, transfer_costs
from speceyes.evaluation.analysis import figures
from speceyes.evaluation.arms import AGENT_PAPER, BASELINE, FUNNEL_PAPER
from speceyes.evaluation.context import threshold_name
from speceyes.evaluation.rounds import FEWEST
from speceyes.evaluation.runs import Run
from speceyes.evaluation.spending import money_lines
from speceyes.evaluation.verdict import plain_lines, verdict

Made = tuple[Run, Mapping[str, Any]]
"""A run and its figures."""


def share(cell: Mapping[str, Any]) -> str:
    """Accuracy in percent with its interval.

    Example:
        >>> share({"accuracy": 0.5, "low": 0.25, "high": 0.75})
        '50.0 (25.0-75.0)'
    """
    return f"{100 * cell['accuracy']:.1f} ({100 * cell['low']:.1f}-{100 * cell['high']:.1f})"


def times(gain: Sequence[float] | None) -> str:
    """A gain with its interval.

    Example:
        >>> times((2.0, 1.5, 2.5)), times((2.0, None, None)), times(None)
        ('2.00x (1.50-2.50)', '2.00x', '-')
    """
    if gain is None:
        return "-"
    ends = "" if gain[1] is None else f" ({gain[1]:.2f}-{gain[2]:.2f})"
    return f"{gain[0]:.2f}x{ends}"


def _spread(found: Sequence[float | None], scale: float = 1.0, places: int = 2) -> str:
    """A value with its interval, where there is one."""
    value, low, high = (None if x is None else f"{scale * x:.{places}f}" for x in found)
    return f"{value}" if low is None else f"{value} ({low}-{high})"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(_cell(c) for c in row) + " |" for row in rows)])


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def brief(run: Run) -> str:
    """A few lines for a terminal."""
    found = figures(run)
    titles = {name: known.arm(name).title for name in found["arms"]}
    width = max(26, 2 + max(map(len, titles.values())))
    lines = [
        *plain_lines(verdict(found)),
        "",
        f"{found['n']} test queries in {found['time']['rounds']} rounds, "
        f"{found['calibration_n']} for calibration",
        f"{'':<{width}}{'accuracy, %':<22}{'speed':<22}{'CPU s a query':<15}",
    ]
    for name, arm in found["arms"].items():
        gain = found["time"]["arms"][name]["gain"]
        lines.append(
            f"{titles[name]:<{width}}{share(arm):<22}{times(gain):<22}"
            f"{_processors(found['time']['arms'][name]):<15}"
            + (f"{arm['failed']} failed" if arm["failed"] else "")
        )
    lines += [*_same_arm(found), *money_lines(found["money"])]
    return "\n".join(line.rstrip() for line in lines)


def _same_arm(found: Mapping[str, Any]) -> list[str]:
    """The speed of an arm over itself, for whoever reads the other intervals."""
    if (same := found["time"].get("same_arm")) is None:
        return []
    title = known.arm(same["arm"]).title
    return [f"{title.capitalize()} over itself (A/A), which is 1: {times(same['speed'])}"]


def _pair(run: Run) -> tuple[str, str]:
    models = run.fixed["models"]
    return models["large"]["name"], models["small"]["name"]


def markdown(made: Sequence[Made]) -> str:
    """The whole report of some runs."""
    groups: dict[tuple[str, str], list[Made]] = {}
    for run, found in made:
        groups.setdefault(_pair(run), []).append((run, found))
    parts = ["# Evaluation", _how(made)]
    for (large, small), members in groups.items():
        parts += [
            f"## Accuracy and speed: {Path(large).name}, drafts by {Path(small).name}",
            _table_one(members, large, small),
        ]
    for run, found in made:
        parts.append(_details(run, found))
    return "\n\n".join(parts) + "\n"


def _how(made: Sequence[Made]) -> str:
    lines = [
        "Accuracy in percent with its 95 % interval (Wilson, over images); a query without an "
        "answer is wrong. "
        "Speed over the agent alone, in batches of the same size, with a 95 % interval over rounds "
        f"(jackknife, Student's t); none where there are fewer than {FEWEST} rounds. All arms of a "
        "run answered the same queries on the same warm models, in turns that change from round "
        "to round."
    ]
    if any(FUNNEL_PAPER in found["arms"] for _, found in made):
        lines.append(
            f"{known.arm(FUNNEL_PAPER).title.capitalize()} is held against "
            f"{known.arm(AGENT_PAPER).title}, as in the paper's Table 1: that row's speed means "
            "what the paper's does. All others are held against the agent in batches."
        )
    if any(run.fixed["benchmark"]["parity"] for run, _ in made):
        lines.append(
            "**Parity**: options stand in published order and prompts are the published ones. In "
            "V* the right option is then always the first, so that a model which prefers A gains."
        )
    return "\n\n".join(lines)


def _table_one(members: Sequence[Made], large: str, small: str) -> str:
    """A row an arm, two columns a benchmark, and their mean; the paper's rows below ours."""
    columns = [(found, column) for _, found in members for column in found["columns"]]
    head = ["method"]
    head += [f"{column}: {what}" for _, column in columns for what in ("accuracy", "speed")]
    head += ["mean accuracy", "mean speed"]
    rows = []
    names = dict.fromkeys(name for _, found in members for name in found["arms"])
    backbone = paper_table.backbone(large, small)
    for name in names:
        row, accuracies, gains = [known.arm(name).title], [], []
        for found, column in columns:
            cell = found["columns"][column].get(name)
            gain = found["time"]["columns"][column].get(name)
            row += ["-", "-"] if cell is None else [share(cell), times(gain)]
            accuracies += [] if cell is None else [cell["accuracy"]]
            gains += [] if gain is None else [gain[0]]
        rows.append([*row, *_means([100 * a for a in accuracies], gains, len(columns))])
        paper = paper_table.row(backbone, known.arm(name).variant)
        if paper:
            cells = [paper.get(column) for _, column in columns]
            row = [f"{known.arm(name).title}, as the paper has it"]
            for pair in cells:
                row += ["-", "-"] if pair is None else [f"{pair[0]:.2f}", f"{pair[1]:.2f}x"]
            there = [pair for pair in cells if pair is not None]
            means = _means([a for a, _ in there], [s for _, s in there], len(columns))
            rows.append([*row, *means])
    return _table(head, rows)


def _tokens_by_model(
    titles: Mapping[str, str], counted: Mapping[str, Mapping[str, Mapping[str, float]]]
) -> list[str]:
    """Tokens read and decoded a query, by model; nothing where no model counts."""
    roles = list(dict.fromkeys(role for counts in counted.values() for role in counts))
    if not roles:
        return []
    head = [f"{role}: {what}" for role in roles for what in ("decoded", "read", "reused")]
    rows = [
        [
            titles[a],
            *(
                "-" if role not in counts else f"{counts[role][what]:.1f}"
                for role in roles
                for what in ("decoded", "read", "reused")
            ),
        ]
        for a, counts in counted.items()
    ]
    return ["Tokens a query, by model:", _table(["arm", *head], rows)]


def _processors(arm: Mapping[str, Any]) -> str:
    return "-" if arm["cpu_s"] is None else f"{arm['cpu_s']:.3f}"


def _others(arm: Mapping[str, Any]) -> str:
    if arm["others"] is None:
        return "-"
    return f"{arm['others']:.0%} (at most {arm['most_others']:.0%})"


def _one_by_one(found: Mapping[str, Any] | None) -> list[str]:
    """Predicted and measured gain of the same two arms, one query at a time."""
    if found is None:
        return []
    predicted = "-" if found["predicted"] is None else f"{found['predicted']:.2f}x"
    return [
        "One by one, the funnel over the agent: "
        f"{times(found['measured'])} measured, {predicted} by the cost model of the paper's "
        "Sec. 3.4 with these arms' own costs."
    ]


def _tools(found: Mapping[str, Any] | None) -> list[str]:
    """The agent's solved queries with and without tools: the audit of arXiv 2606.02357."""
    if found is None:
        return []
    share = found["without_too"]
    also = "-" if share is None else f"{share[0]:.1%} ({share[1]:.1%} to {share[2]:.1%})"
    return [
        f"What tools contribute: of the queries that the agent solves, it solves {also} without "
        "its tools too.",
        _table(
            ["solved", "queries"],
            [
                ["with tools and without", str(found["both"])],
                ["only with tools", str(found["only_with"])],
                ["only without tools", str(found["only_without"])],
                ["by neither", str(found["neither"])],
            ],
        ),
        f"Exact McNemar test of the two: p = {found['p']:.3g}.",
    ]


def _means(accuracies: Sequence[float], gains: Sequence[float], n: int) -> list[str]:
    """Plain means over columns, as the paper has them; "-" where a column is missing."""
    whole = len(accuracies) == len(gains) == n
    if not whole:
        return ["-", "-"]
    return [f"{sum(accuracies) / n:.2f}", f"{sum(gains) / n:.2f}x"]


def _details(run: Run, found: Mapping[str, Any]) -> str:
    fixed = run.fixed
    bad, time = fixed["benchmark"]["bad"], found["time"]
    order = list(found["arms"])
    titles = {name: known.arm(name).title for name in order}
    last = run.manifest["sessions"][-1]
    code = {s["code"]["source_sha256"] for s in run.manifest["sessions"]}
    parts = [
        f"## {run.folder.name}",
        "\n\n".join(verdict(found)),
        f"{fixed['benchmark']['name']}: {found['n']} test queries, {found['calibration_n']} for "
        f"calibration (no image in both), seed {fixed['plan']['seed']}, batches of "
        f"{min(fixed['plan']['batch_size'], time['round_size'])} in {time['rounds']} rounds of "
        f"{time['round_size']}, K = {fixed['context']['top_k']}. "
        f"{last['hardware']['processor']}, {last['hardware']['cpus']} CPUs; torch "
        f"{last['versions']['torch']}, speceyes {last['versions']['speceyes']}, code "
        f"{last['code']['revision'] or last['code']['source_sha256']}."
        + (f" The code changed between the run's {len(code)} starts." if len(code) > 1 else ""),
        "Thresholds "
        + ("given" if fixed["plan"]["threshold"] is not None else "chosen on calibration")
        + ": "
        + ", ".join(f"{a} {t:.6g}" for a, t in found["thresholds"].items())
        + ".",
        _table(
            [
                "arm",
                "accuracy",
                "failed",
                "tokens",
                "tool calls",
                "turns",
                "speed",
                "queries/s",
                "CPU s a query",
                "CPU gain",
                "others' share",
                "p50 ms",
                "p95 ms",
                "p99 ms",
            ],
            [
                [
                    titles[a],
                    share(arm),
                    str(arm["failed"]),
                    _spread(arm["tokens"], places=1),
                    _spread(arm["calls"]),
                    _spread(arm["turns"]),
                    times(time["arms"][a]["gain"]),
                    f"{1 / time['arms'][a]['per_query_s']:.1f}",
                    _processors(time["arms"][a]),
                    times(time["arms"][a]["cpu_gain"]),
                    _others(time["arms"][a]),
                    *(_spread(time["arms"][a][f"p{q}"], 1e3, 0) for q in (50, 95, 99)),
                ]
                for a, arm in found["arms"].items()
            ],
        ),
        *_tokens_by_model(titles, time["tokens"]),
        *_one_by_one(time["one_by_one"]),
        *_same_arm(found),
        *transfer_costs.lines(run.folder),
        *_tools(found["tools"]),
        "Against the agent alone (points of accuracy with a 95 % interval over images; exact "
        "McNemar test, two-sided, in which the rows of an image change places together):",
        _table(
            ["arm", "points", "only the agent right", "only the arm right", "p"],
            [
                [
                    titles[a],
                    _spread(t["gap"], 100, 1),
                    str(t["only_agent"]),
                    str(t["only_arm"]),
                    f"{t['p']:.4g}",
                ]
                for a, t in found["tests"].items()
            ],
        ),
        "How well each score tells right drafts from wrong ones:",
        _table(
            ["score", "AUROC (score interval)", "AURC (bootstrap)", "unscored drafts"],
            [
                [
                    a,
                    "-" if s["auroc"] is None else _spread(s["auroc"], places=4),
                    _spread(s["aurc"], places=4),
                    str(s["unscored"]),
                ]
                for a, s in found["scores"].items()
            ],
        ),
    ]
    if found["routes"]:
        parts += [
            "Routes, and how many recorded drafts take the same one when they are gated again:",
            _table(
                ["arm", "accepted", "rejected", "needed tools", "failed", "same again"],
                [
                    [
                        titles[a],
                        *(str(r[k]) for k in ("accepted", "rejected", "tools", "error")),
                        "-"
                        if a not in found["regated"]
                        else f"{found['regated'][a]['same']} of {found['regated'][a]['n']}",
                    ]
                    for a, r in found["routes"].items()
                ],
            ),
        ]
    parts += [
        "Accuracy by kind of question:",
        _table(
            ["kind", "n", *(titles[a] for a in order)],
            [
                [kind, str(cells[BASELINE]["n"]), *(share(cells[a]) for a in order)]
                for kind, cells in found["kinds"].items()
            ],
        ),
    ]
    for axis, rows in found["sweeps"].items():
        gains = time["sweeps"][axis]
        parts += [
            f"Recorded drafts gated again, over {axis} (speed by the cost model):",
            _table(
                ["aggregate", "K", "threshold", "judge", "accuracy", "accepted", "speed"],
                [
                    [
                        r["aggregate"],
                        str(r["top_k"]),
                        f"{r['threshold']:.6g}",
                        r["judge"],
                        share(
                            {
                                "accuracy": r["accuracy"],
                                "low": r["accuracy_low"],
                                "high": r["accuracy_high"],
                            }
                        ),
                        f"{r['accepted']:.1%}",
                        "-" if g["gain"] is None else f"{g['gain']:.2f}x",
                    ]
                    for r, g in zip(rows, gains, strict=True)
                ],
            ),
        ]
    if time["batches"]:
        parts += [
            "Batch sizes, run with the models (the funnel with min):",
            _table(
                ["batch", "n", "agent queries/s", "funnel queries/s", "speed", "accuracy"],
                [
                    [
                        str(b["batch_size"]),
                        str(b["n"]),
                        f"{b['agent_per_s']:.2f}",
                        f"{b['funnel_per_s']:.2f}",
                        times(b["gain"]),
                        share(b["accuracy"]),
                    ]
                    for b in time["batches"]
                ],
            ),
        ]
    if found["failed"]:
        parts += [
            f"Queries without an answer, counted as wrong ({len(found['failed'])} listed):",
            _table(["query", "arm", "why"], found["failed"]),
        ]
    if bad:
        parts += [
            f"Rows of the benchmark that can't be used ({len(bad)}):",
            _table(["row", "why"], bad),
        ]
    return "\n\n".join(parts)


def to_csv(made: Sequence[Made]) -> str:
    """A line for each run, column and arm."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(
        [
            "run",
            "large",
            "small",
            "column",
            "arm",
            "n",
            "correct",
            "accuracy",
            "accuracy_low",
            "accuracy_high",
            "speed",
            "speed_low",
            "speed_high",
            "threshold",
        ]
    )
    for run, found in made:
        for column, cells in found["columns"].items():
            for name, cell in cells.items():
                gain = found["time"]["columns"][column][name] or ("", "", "")
                arm = known.arm(name)
                aggregate = arm.aggregate
                if aggregate is not None:
                    used = threshold_name(aggregate, arm.judge, found["thresholds"])
                writer.writerow(
                    [
                        run.folder.name,
                        *_pair(run),
                        column,
                        name,
                        cell["n"],
                        cell["correct"],
                        cell["accuracy"],
                        cell["low"],
                        cell["high"],
                        *gain,
                        "" if aggregate is None else found["thresholds"][used],
                    ]
                )
    return out.getvalue()
