"""Other gates than the default one, and what they are compared and combined with.

Each is called on a draft and gives a verdict, so that `SpecPipeline(gate=...)` takes any.
docs/gate.md has their formulas, a table of what they are worth, and when to use which.
"""

from speceyes.gates.certify import Certificate, certify
from speceyes.gates.consistency import ConsistentAnswerer, Reordered, Smaller
from speceyes.gates.deepconf import GroupConfidenceGate
from speceyes.gates.entropy import EntropyGate
from speceyes.gates.joint_thresholds import Chosen, RecordedDrafts, choose_thresholds
from speceyes.gates.judged import JudgedAnswerer, JudgeGate
from speceyes.gates.logistic import LogisticGate, fit_logistic
from speceyes.gates.margin import MarginGate
from speceyes.gates.probability_only import ProbabilityOnlyGate
from speceyes.gates.span import AnswerSpanGate, answer_span

__all__ = [
    "AnswerSpanGate",
    "Certificate",
    "Chosen",
    "ConsistentAnswerer",
    "EntropyGate",
    "GroupConfidenceGate",
    "JudgeGate",
    "JudgedAnswerer",
    "LogisticGate",
    "MarginGate",
    "ProbabilityOnlyGate",
    "RecordedDrafts",
    "Reordered",
    "Smaller",
    "answer_span",
    "certify",
    "choose_thresholds",
    "fit_logistic",
]
