"""Thresholds with a guarantee: from labelled drafts to a gate, and the watch over it.

numpy only. docs/guarantee.md has the assumptions, the theorems and what isn't promised.
"""

from __future__ import annotations

from speceyes.calibration.arming import Arming, Audit
from speceyes.calibration.evidence import bounds
from speceyes.calibration.fit import calibrate
from speceyes.calibration.groups import Groups, calibrate_groups
from speceyes.calibration.ledger import Ledger, labels_hash
from speceyes.calibration.many import Many, Setting, calibrate_many
from speceyes.calibration.matched import Gold
from speceyes.calibration.monitor import GateMonitor
from speceyes.calibration.priced import Priced, price
from speceyes.calibration.provenance import Scoring
from speceyes.calibration.record import Calibration, CurvePoint
from speceyes.calibration.relative import calibrate_relative
from speceyes.calibration.sequence import SequentialCalibration
from speceyes.calibration.shift import ShiftMartingale
from speceyes.calibration.shifted import calibrate_shifted
from speceyes.calibration.watched import WatchedGate

__all__ = [
    "Arming",
    "Audit",
    "Calibration",
    "CurvePoint",
    "GateMonitor",
    "Gold",
    "Groups",
    "Ledger",
    "Many",
    "Priced",
    "Scoring",
    "SequentialCalibration",
    "Setting",
    "ShiftMartingale",
    "WatchedGate",
    "bounds",
    "calibrate",
    "calibrate_groups",
    "calibrate_many",
    "calibrate_relative",
    "calibrate_shifted",
    "labels_hash",
    "price",
]
