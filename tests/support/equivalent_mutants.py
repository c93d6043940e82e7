"""Faults of `mutants.py` that change nothing that could be seen, each with the reason."""

from __future__ import annotations

_SEARCH = "a step of a search that ends at the same number from any step and any first interval"
_ANY_SEED = "any seed is as good as any other, and a test says that the same one gives the same"
_EQUAL = "numbers that are drawn or reckoned so are equal with no probability to speak of"
_CELLS = "cells of any width bound the p-value from above"
_BELOW_ONE = "it is below that for every target up to 1 - 2e-7"
_LENGTHS = "what is gone through side by side is of one length"
EQUIVALENT: dict[tuple[str, str, str], str] = {
    (
        "scoring/scales.py",
        "Compare",
        "logit = 2 * math.atanh(2 * score - 1) if score >= 0.25 else math.log(score) "
        "- math.log1p(-score)",
    ): "at 1/4 both forms give the same number",
    ("scoring/scales.py", "Constant", "step = 1e-15 * max(1.0, abs(guess))"): _SEARCH,
    ("scoring/scales.py", "BinOp", "step = 1e-15 * max(1.0, abs(guess))"): _SEARCH,
    ("scoring/scales.py", "Constant", "high, step = high + step, 2 * step"): _SEARCH,
    ("scoring/scales.py", "Constant", "low, step = low - step, 2 * step"): _SEARCH,
    ("scoring/scales.py", "high, step = high + step, 2 * step", "2 / step"): _SEARCH,
    ("scoring/scales.py", "low, step = low - step, 2 * step", "2 / step"): _SEARCH,
    ("scoring/scales.py", "while rising(high) < target:", "rising(high) <= target"): _SEARCH,
    (
        "scoring/scales.py",
        "while low < (middle := low + (high - low) / 2) < high:",
        "3",
    ): "it ends where no number lies between, whether halves or thirds are taken",
    (
        "scoring/scales.py",
        "return 1.0 / (1.0 + math.exp(-z)) if z > -700.0 else math.exp(z)",
        "z >= -700.0",
    ): "there both forms give the same number",
    (
        "scoring/scales.py",
        "if raw <= 0.0 or math.isinf(raw):  # S is never negative: up to 1/2 all is accepted",
        "raw < 0.0",
    ): "0 is mapped to 0, and so 1/2 to 1/2",
    (
        "scoring/scores.py",
        "Compare",
        "if array.shape[1] > k:",
    ): "where there are k columns, the partition that is left out there keeps them all",
    (
        "scoring/scores.py",
        'if aggregate == "log" and peak > 0:',
        "peak >= 0",
    ): "a row whose largest number is 0 has a score, and nobody asks why it has none",
    (
        "scoring/scores.py",
        "_DRAFTS_AT_ONCE: Final = 256  # bounds the memory of `raw_scores`",
        "257",
    ): "blocks of any size give the same scores",
    (
        "calibration/images.py",
        "order = np.random.default_rng([seed, 1]).permutation(found.size)",
        "2",
    ): _ANY_SEED,
    ("calibration/many.py", "seed: int = 0,", "1"): _ANY_SEED,
    ("calibration/fit.py", "seed: int = 0,", "1"): _ANY_SEED,
    ("calibration/fit.py", "total, step = rungs.total, 1", "2"): _SEARCH,
    (
        "calibration/fit.py",
        "if total + step >= MOST_LABELS:",
        "total - step",
    ): "the last step ends just there, so that it is looked at once more and left",
    (
        "calibration/many.py",
        "def choosing_rows(rows: int, image_key: Keys | None = None, seed: int = 0) -> Bools:",
        "1",
    ): _ANY_SEED,
    (
        "calibration/many.py",
        "side = np.random.default_rng([seed, 2]).permutation(np.unique(found).size) % 2 == 0",
        "3",
    ): _ANY_SEED,
    (
        "calibration/many.py",
        "Compare",
        "side = np.random.default_rng([seed, 2]).permutation(np.unique(found).size) % 2 == 0",
    ): "which half chooses is by lot",
    (
        "calibration/many.py",
        "side = np.random.default_rng([seed, 2]).permutation(np.unique(found).size) % 2 == 0",
        "1",
    ): "which half chooses is by lot",
    (
        "calibration/many.py",
        "Constant",
        "return min(made, key=lambda name: made[name].labels_needed or 10**9)",
    ): "any number that is more than all labels there can be",
    (
        "calibration/sequence.py",
        "Constant",
        "np.concatenate([np.arange(0.5, 0.9, 0.05), 1 - np.geomspace(0.1, 1e-5, 25)])"
        ".round(12).tolist()",
    ): "which thresholds a grid holds is free, so long as they were fixed before",
    (
        "calibration/sequence.py",
        "self._loosest = int(of_use[-1]) if of_use.size else -1",
        "2",
    ): "any number below 0 says that there is none",
    ("calibration/sequence.py", "self._loosest = -1", "2"): "any number below 0, likewise",
    (
        "calibration/sequence.py",
        "higher = now > self._peak",
        "now >= self._peak",
    ): "the counts of any moment at which the evidence was greatest will do",
    (
        "calibration/recompute.py",
        'if made.risk != "selective" or made.delta is None:',
        "made.risk != 'selective' and made.delta is None",
    ): "a stricter threshold has no more bad ones, and so passes the test of an overall risk too",
    (
        "calibration/recompute.py",
        "if not made.score_counts or raw is None:",
        "not made.score_counts and raw is None",
    ): "a calibration without counts has faulted before, and a certified one has a raw threshold",
    (
        "calibration/recompute.py",
        "Constant",
        "before = (math.inf, 0, 0)",
    ): "the first threshold accepts at least one draft, and its evidence is that of its counts",
    (
        "calibration/recompute.py",
        "tested = point.threshold > made.threshold and point.accepted > least",
        "point.accepted >= least",
    ): "the first test was of just these drafts, and passed",
    (
        "calibration/monitor.py",
        "Constant",
        'return json.dumps(sealed(state), allow_nan=False) + "\\n"',
    ): "capital is capped, so that no state holds a number that isn't finite",
    (
        "calibration/monitor.py",
        "Constant",
        "lots = None if self._seed is None else int(self._random.integers(1 << 32))",
    ): _ANY_SEED,
    (
        "calibration/monitor.py",
        "seed=None if lots is None else 0,",
        "1",
    ): "the state of the draws is put in its place",
    (
        "calibration/monitor.py",
        "if accepted and float(self._random.random()) < self.share:",
        "float(self._random.random()) <= self.share",
    ): _EQUAL,
    (
        "calibration/monitor.py",
        "if not (0 <= now < math.inf and max(1, now) <= peak < math.inf):",
        "0 < now < math.inf",
    ): "1 / (rounds + 1) is part of it, so that it is above 0",
    (
        "calibration/watched.py",
        "other._made = 0, other._made[1]  # to be made anew, for the monitor may be re-armed by "
        "now",
        "1",
    ): "where the monitor is at its first arming still, the gate is of that one",
    (
        "calibration/watched.py",
        "BoolOp",
        "if self._of is not None and self._change is not None:",
    ): "both are set together",
    ("calibration/evidence.py", "Constant", "_HALVINGS: Final = 60"): _SEARCH,
    (
        "calibration/evidence.py",
        "refuted = peak + math.log(np.exp(capital - peak).sum()) >= needed",
        "peak + math.log(np.exp(capital - peak).sum()) > needed",
    ): _EQUAL,
    ("calibration/matched.py", "Constant", "_CELLS: Final = 200"): _CELLS,
    ("calibration/matched.py", "edges = np.geomspace(target, 1.0, _CELLS + 1)", "2"): _CELLS,
    (
        "calibration/matched.py",
        "edges = np.geomspace(target, 1.0, _CELLS + 1)",
        "_CELLS - 1",
    ): _CELLS,
    (
        "calibration/matched.py",
        "gold = binomial_cdfs(found.worse, found.labelled, np.minimum(least, 1 - 1e-12))",
        "1 + 1e-12",
    ): _BELOW_ONE,
    (
        "calibration/matched.py",
        "gold = binomial_cdfs(found.worse, found.labelled, np.minimum(least, 1 - 1e-12))",
        "2",
    ): _BELOW_ONE,
    (
        "calibration/matched.py",
        "stakes = _STAKES[:, None] / (1 - np.minimum(mean, 1 - 1e-9))",
        "1 + 1e-09",
    ): _BELOW_ONE,
    (
        "calibration/shifted.py",
        "have = np.bincount(self.of(raw), minlength=int(self._cell.max()) + 1)",
        "2",
    ): "one more place that no score falls into",
    (
        "calibration/shifted.py",
        "labels[place] = False  # never accepted",
        "True",
    ): "a label is without effect where no threshold accepts the draft",
    ("calibration/priced.py", "seed: int = 0,", "1"): _ANY_SEED,
    (
        "calibration/priced.py",
        "looser = np.unique(unit[unit < found.threshold]).tolist()  # the loosest first",
        "unit <= found.threshold",
    ): "it is the last to be tested anyway",
    (
        "calibration/priced.py",
        "cost_p_value(unit >= level, own, alone, share, most) <= delta",
        "cost_p_value(unit >= level, own, alone, share, most) < delta",
    ): _EQUAL,
    ("gates/joint_thresholds.py", "seed: int = 0,", "1"): _ANY_SEED,
    (
        "calibration/ledger.py",
        "Constant",
        "return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()",
    ): "fields are always written in the same order",
    (
        "pipeline/costs.py",
        "if interval is not None and interval[1] < 1:",
        "interval[1] <= 1",
    ): _EQUAL,
    (
        "calibration/sequence.py",
        'wrong = checked_outcome("bad", bad) if raw == raw else False',
        "True",
    ): "no threshold accepts a draft without a score, whatever its label",
    (
        "calibration/relative.py",
        "for d, m, w, b in zip(rungs.bad, *counts, strict=True)",
        "False",
    ): _LENGTHS,
    ("calibration/relative.py", "seed: int = 0,", "1"): _ANY_SEED,
    ("calibration/relative.py", "low, high = 0, 1", "2"): _SEARCH,
    ("calibration/relative.py", "low, high = high, 2 * high", "3"): _SEARCH,
    (
        "calibration/matched.py",
        "numbers = [self.differing, self.labelled, self.worse, self.better or 0]",
        "1",
    ): "any whole number from 0 will do there",
    ("calibration/relative.py", "if high >= last:", "high > last"): "the last is tried once more",
    ("calibration/shifted.py", "seed: int = 0,", "1"): _ANY_SEED,
    ("calibration/shifted.py", "random = np.random.default_rng([seed, 11])", "12"): _ANY_SEED,
    (
        "calibration/shifted.py",
        "for cell, count in zip(numbers.tolist(), counts.tolist(), strict=True):",
        "False",
    ): _LENGTHS,
    (
        "calibration/shifted.py",
        "if cell and short > 0:",
        "short >= 0",
    ): "one that lacks nothing adds nothing, and isn't where most is lacking",
    (
        "calibration/shifted.py",
        "if not found.certified and cells.lack(raw, size, 1) > target:",
        "cells.lack(raw, size, 1) >= target",
    ): "where just the target lacks, nothing is certified either way",
    (
        "calibration/shifted.py",
        "cell, wide, held = cell + 1, 0, 0",
        "2",
    ): "cells are told apart by their numbers, whatever those are",
    (
        "calibration/shifted.py",
        "counts = np.bincount(fine, minlength=2 + BINS // _MERGED)",
        "3",
    ): "one more place that no score falls into",
    (
        "calibration/evidence.py",
        "low, high = 0.0, bad / seen if seen else 0.0",
        "bad * seen",
    ): _SEARCH,
    (
        "images/similarity.py",
        "for at, j in zip(found.tolist(), (found + i + 1).tolist(), strict=True):",
        "False",
    ): _LENGTHS,
    (
        "images/similarity.py",
        "mirrored = low * np.where(np.arange(_LOW) % 2, -1.0, 1.0)  # odd waves turn their sign",
        "low / np.where(np.arange(_LOW) % 2, -1.0, 1.0)",
    ): "to divide by a sign is to multiply by it",
    (
        "images/similarity.py",
        "waves[np.abs(waves) < _FAINT * np.abs(waves).max()] = 0.0  # or noise would set their "
        "signs",
        "np.abs(waves) <= _FAINT * np.abs(waves).max()",
    ): _EQUAL,
    ("images/similarity.py", "if min(spread) < _PLAIN:", "min(spread) <= _PLAIN"): _EQUAL,
    (
        "images/similarity.py",
        "if not 1 / _DIMMED <= scale <= _DIMMED:",
        "1 / _DIMMED < scale <= _DIMMED",
    ): _EQUAL,
    (
        "images/similarity.py",
        "return float(np.abs(scale * a - b).mean()) <= most",
        "float(np.abs(scale * a - b).mean()) < most",
    ): _EQUAL,
    (
        "gate.py",
        "Constant",
        "raw_threshold: float = field(init=False, repr=False, compare=False)",
    ): "it follows from the fields that are compared, and its repr is no promise",
}
"""(file, kind, line's text), or (file, line's text, what stands there then) where a line has
several of the kind, of mutants that change nothing that could be seen, and why."""
