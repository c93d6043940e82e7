"""Other ways to spare the large model, each called like `SpecPipeline`."""

from speceyes.strategies.break_even import BreakEven, Pace, break_even, pace
from speceyes.strategies.cascade import Cascade, Drafter, drafter_of
from speceyes.strategies.reasoner import Reasoner
from speceyes.strategies.reasoning_transfer import ReasoningTransfer, Transferred
from speceyes.strategies.selection import Selector
from speceyes.strategies.specreason import SpecReason, Steps
from speceyes.strategies.transfer_rule import TransferRule

__all__ = [
    "BreakEven",
    "Cascade",
    "Drafter",
    "Pace",
    "Reasoner",
    "ReasoningTransfer",
    "Selector",
    "SpecReason",
    "Steps",
    "TransferRule",
    "Transferred",
    "break_even",
    "drafter_of",
    "pace",
]
