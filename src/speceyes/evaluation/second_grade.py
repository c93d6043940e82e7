"""A language model's grades of a run beside those of the rules."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from speceyes.evaluation import arms as known
from speceyes.evaluation.llm_judge import Case, LLMJudge, Opinion, agreement
from speceyes.evaluation.runs import TEST, Run
from speceyes.evaluation.statistics import wilson_interval
from speceyes.protocols import VisionLanguageModel

GRADES: Final = "grades.jsonl"
"""In the run's folder: every verdict beside its question, right answer and answer."""
_SHOWN: Final = 20


def second_grades(run: Run, model: VisionLanguageModel) -> str:
    """A section of the report: both grades of each arm, and where they differ.

    Only answers that were not graded before are asked about; see `LLMJudge`.

    Args:
        run: The run.
        model: The grader; it sees text only.
    """
    judge = LLMJudge(model, Path(run.folder) / GRADES)
    lines = [
        f"### Graded once more, by {model.name}",
        "",
        "Accuracy in percent, 95 % Wilson intervals, of the answers that both graded. The rules' "
        "grades count everywhere else. Kappa is Cohen's: 1 at best, 0 by chance.",
        "",
        "| arm | by the rules | by the grader | agreement | kappa | right by the rules only "
        "| right by the grader only | no verdict |",
        "|---|---|---|---|---|---|---|---|",
    ]
    differ: dict[tuple[str, str, str], Opinion] = {}
    for name in dict.fromkeys(b.arm for b in run.blocks if b.phase == TEST and b.n):
        rows = run.of(TEST, name)
        cases = [Case(r.question, r.gold, r.result.answer, r.choices) for r in rows]
        opinions = judge(cases)
        found = agreement(opinions)
        for case, opinion in zip(cases, opinions, strict=True):
            if opinion.judge is not None and opinion.judge != opinion.rules:
                differ.setdefault((case.question, case.gold, case.answer or ""), opinion)
        by_rules, by_grader = (
            found.both_right + found.rules_only,
            found.both_right + found.judge_only,
        )
        cells = [
            known.arm(name).title,
            _share(by_rules, found.n),
            _share(by_grader, found.n),
            "" if found.share is None else f"{100 * found.share:.1f}",
            "" if found.kappa is None else f"{found.kappa:.2f}",
            str(found.rules_only),
            str(found.judge_only),
            str(found.unjudged),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    if differ:
        lines += [
            "",
            f"Where they differ ({min(len(differ), _SHOWN)} of {len(differ)} answers):",
            "",
        ]
        lines += ["| question | right answer | answer | rules | grader |", "|---|---|---|---|---|"]
        for (question, gold, answer), opinion in list(differ.items())[:_SHOWN]:
            grades = ("right" if opinion.rules else "wrong", "right" if opinion.judge else "wrong")
            lines.append("| " + " | ".join(map(_cell, (question, gold, answer, *grades))) + " |")
    return "\n".join(lines) + "\n"


def _share(k: int, n: int) -> str:
    if not n:
        return ""
    low, high = wilson_interval(k, n)
    return f"{100 * k / n:.1f} ({100 * low:.1f}-{100 * high:.1f})"


def _cell(text: str) -> str:
    short = " ".join(text.split()).replace("|", "\\|")
    return short if len(short) <= 120 else f"{short[:119]}…"
