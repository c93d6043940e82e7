"""Order of the phases, and nothing else: no models, threads or clocks.  (Sec. 3, arXiv 2603.23483.)

`next_phase` says what a query needs next, given what is known of it and the policy; `outcome` says
how it ends. Everything else in this room only carries out what these two say, so that answers and
routes can't depend on how the work is scheduled.

A query's way under the default policy::

    judge --no tools--> draft --> gate --accepted--> answer (--> audit, for a share)
      |                            |
      +--tools needed--> agent <---+--rejected         agent --> answer

With a ladder, a rejected draft is followed by the next rung's, of more pixels; the agent comes
after the last.

What can't be decided cheaply goes to the agent: a judge that fails means tools, a draft that fails
is rejected. Only the agent's own failure, a missing agent, or a request that can't be carried out
ends a query without an answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from speceyes.types import Completion, Judgement, Route, Trajectory, Verdict

Phase: TypeAlias = Literal["judge", "draft", "gate", "agent", "answer", "audit", "done"]
Order: TypeAlias = Literal["judge_first", "draft_first"]
"""Cost of a query before the agent, with c_J and c_S the seconds of a judgement and a draft, beta
the share that the judge lets through and a the share that the gate accepts: "judge_first" costs
c_J + beta c_S, "draft_first" c_S + a c_J. Both accept the same drafts."""


@dataclass(frozen=True, slots=True)
class Policy:
    """Parts that a pipeline has, and the order that it asks them in.

    Args:
        judges: There is a judge.
        drafts: There are an answerer and a gate.
        has_agent: There is a fallback.
        order: Whether the judge or the draft comes first.
        rungs: Drafts that a query may have, one behind the other, before the agent; at least 1.
    """

    judges: bool
    drafts: bool
    has_agent: bool
    order: Order = "judge_first"
    rungs: int = 1


@dataclass(slots=True)
class Facts:
    """Everything that decides a query's way. Phases add what they found; nothing is taken back, but
    that a rung's draft and verdict take the place of those of the rung below.

    Args:
        direct: The query goes to the agent without being judged or drafted.
        judgement: Phase I.
        draft: Phase II, of the rung that it is at.
        verdict: Phase III, on that draft.
        trajectory: Phase IV, or the audit's.
        audited: The agent is to be asked as well, after an answer by draft.
        answered: The answer was given.
        failure: The request can't be carried out: cancelled, expired, or something broke.
        rung: Of the draft, from 0.
    """

    direct: bool = False
    judgement: Judgement | None = None
    draft: Completion | None = None
    verdict: Verdict | None = None
    trajectory: Trajectory | None = None
    audited: bool = False
    answered: bool = False
    failure: str | None = None
    rung: int = 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """End of a query; the fields of `speceyes.Result` of the same names."""

    route: Route
    answer: str | None
    error: str | None = None


def next_phase(facts: Facts, policy: Policy) -> Phase:
    """Phase that the query needs next.

    Example:
        >>> policy = Policy(judges=True, drafts=True, has_agent=True)
        >>> next_phase(Facts(), policy)
        'judge'
        >>> next_phase(Facts(judgement=Judgement(needs_tools=True)), policy)
        'agent'
        >>> next_phase(Facts(judgement=Judgement(needs_tools=False)), policy)
        'draft'
    """
    settled = facts.failure is not None or facts.trajectory is not None
    if facts.answered:
        return "audit" if facts.audited and not settled else "done"
    if settled:
        return "answer"
    unjudged = policy.judges and facts.judgement is None
    if policy.drafts and not facts.direct and not needs_tools(facts):
        if unjudged and policy.order == "judge_first":
            return "judge"
        if facts.draft is None:
            return "draft"
        if facts.verdict is None:
            return "gate"
        if facts.verdict.accepted:
            return "judge" if unjudged else "answer"
        if facts.rung + 1 < policy.rungs:
            return "draft"
    return "agent" if policy.has_agent else "answer"


def needs_tools(facts: Facts) -> bool:
    """True where the judge has sent the query to the agent."""
    return facts.judgement is not None and facts.judgement.needs_tools


def accepted(facts: Facts) -> bool:
    """True where judge and gate both agree to the draft. A judge that hasn't spoken doesn't object:
    ask only where `next_phase` is "answer" or later.
    """
    passed = facts.verdict is not None and facts.verdict.accepted
    return passed and facts.draft is not None and not needs_tools(facts) and not facts.direct


def outcome(facts: Facts) -> Outcome:
    """Answer of a query whose next phase is "answer", or the reason why it has none."""
    if facts.failure is not None:
        return Outcome("error", None, facts.failure)
    if facts.trajectory is not None:
        return _by_agent(facts.trajectory)
    if accepted(facts):
        assert facts.draft is not None
        return Outcome("draft", facts.draft.text.strip())
    return Outcome("error", None, f"{_agent_needed(facts)}, and this pipeline has no fallback")


def _by_agent(trajectory: Trajectory) -> Outcome:
    if trajectory.stop == "error":
        return Outcome("error", None, f"the agent failed: {trajectory.error or 'no reason given'}")
    if trajectory.answer is None:
        turns = len(trajectory.steps)
        none = f"the agent gave no answer within {turns} turns"
        return Outcome("agent", None, trajectory.error or none)
    return Outcome("agent", trajectory.answer)


def _agent_needed(facts: Facts) -> str:
    """Reason why only the agent could answer."""
    verdict = facts.verdict
    if needs_tools(facts):
        reason = facts.judgement.reason if facts.judgement is not None else ""
        return f"the judge sends it to the agent{f' ({reason})' if reason else ''}"
    if verdict is None:
        return "it was to go to the agent directly"
    if verdict.reason:
        return f"the draft was rejected: {verdict.reason}"
    return f"the draft's score {verdict.score} is below {verdict.threshold}"
