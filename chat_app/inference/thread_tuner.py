"""Tunes the number of processor threads of a step online, from the times of the steps themselves.

Several threads share a step's work well only while each has a processor of its own. As soon as another program, such as
a training, needs one of them, the threads wait for each other at every layer, and a single thread is many times faster.

The number in use is dropped by a CUSUM test (Page 1954, Continuous Inspection Schemes) on what its steps lost against
the best of the other numbers; the other numbers are tried now and then, because the test knows only their old times.
Knows no model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median_low


@dataclass(frozen=True)
class TunerSettings:
    """The constants of the tuner.

    Attributes:
        warm_up: how often each number is used at the beginning. The first time finds cold memory and is not recorded.
        history: how many times of a number are remembered.
        slack: the CUSUM test's allowance: a step loses only what it takes beyond this multiple of the other's time.
        threshold: the CUSUM test's limit, in steps of the other number: while a page is drawn, a few steps are slow,
            and that is no reason to change.
        min_slow_steps: how many slow steps reach the limit at least; now and then one step takes very long by chance.
        trial_steps: steps of a trial of another number. The slowest counts: one step may be lucky.
        first_interval, max_interval: steps from one trial to the next; they double from the first to the largest.
        trial_share: the largest share of the time that trials of a slow number may take, for which they become rarer.
        last_resort: after this many steps there is a trial, however slow the last one was.
    """

    warm_up: int = 2
    history: int = 5
    slack: float = 1.25
    threshold: float = 4
    min_slow_steps: int = 3
    trial_steps: int = 2
    first_interval: float = 6
    max_interval: float = 192
    trial_share: float = 0.05
    last_resort: float = 400


SETTINGS = TunerSettings()


class ThreadTuner:
    """Chooses a number of threads for each step; steps of different sizes are tuned separately.

    Args:
        candidates: numbers to choose from, the most promising first; at least one.
        settings: constants of the tuner.
    """

    def __init__(self, candidates: Sequence[int], settings: TunerSettings = SETTINGS):
        self._candidates = tuple(dict.fromkeys(candidates))
        self._settings = settings
        self._sizes: dict[int, _SizeTuner] = {}

    def choose(self, tokens: int) -> int:
        """The number of threads for a step of this many tokens: mostly the fastest, now and then another on trial."""
        return self._tuner_for(tokens).choose()

    def record(self, threads: int, tokens: int, seconds: float) -> None:
        """Record how long a step took."""
        self._tuner_for(tokens).record(threads, seconds / tokens)

    def _tuner_for(self, tokens: int) -> _SizeTuner:
        """The tuner of steps of about this size. A new one starts with the best number of the nearest size, because a
        warm-up with bad numbers would make a reader wait."""
        size = tokens.bit_length()
        if size not in self._sizes:
            warm = [other for other, tuner in self._sizes.items() if tuner.is_warm]
            candidates = self._candidates
            if warm:
                best = self._sizes[min(warm, key=lambda other: abs(other - size))].best
                candidates = (best, *(threads for threads in candidates if threads != best))
            uses = dict.fromkeys(candidates, self._settings.warm_up) if warm else {}
            self._sizes[size] = _SizeTuner(candidates, self._settings, uses)
        return self._sizes[size]


@dataclass
class _SizeTuner:
    """Tunes the steps of about one size.

    Attributes:
        candidates: numbers of threads to choose from, the most promising first.
        uses: how often each was used. times: the last seconds a token of each. best: the number in use.
        loss: the CUSUM statistic: seconds a token that the last steps of `best` lost against the best other number.
        trial: the times of the number that is on trial.
        since: steps since the last trial. interval: after how many the next one is due. turn: counts trials, and so
            decides which number is next.
    """

    candidates: tuple[int, ...]
    settings: TunerSettings = SETTINGS
    uses: dict[int, int] = field(default_factory=dict)
    times: dict[int, list[float]] = field(default_factory=dict)
    best: int = -1
    loss: float = 0.0
    trial: list[float] = field(default_factory=list)
    since: int = 0
    interval: float = 0
    turn: int = 0

    def __post_init__(self) -> None:
        self.best = self.candidates[0]
        self.interval = self.settings.first_interval

    def choose(self) -> int:
        """The number of threads for the next step."""
        least_used = min(self.candidates, key=lambda threads: self.uses.get(threads, 0))
        if len(self.candidates) > 1 and self.uses.get(least_used, 0) < self.settings.warm_up:
            return least_used
        others = [threads for threads in self.candidates if threads != self.best]
        return others[self.turn % len(others)] if others and self.since >= self.interval else self.best

    def record(self, threads: int, seconds: float) -> None:
        """Record how long a token took."""
        was_warm = self.is_warm
        self.uses[threads] = self.uses.get(threads, 0) + 1
        if self.uses[threads] < self.settings.warm_up:
            return
        if was_warm and threads != self.best:
            self._record_trial(threads, seconds)
            return
        times = self.times.setdefault(threads, [])
        times.append(seconds)
        del times[: -self.settings.history]
        self.since += threads == self.best
        if was_warm:
            self._test_for_change(seconds)
        else:
            self._record_warm_up(threads)

    @property
    def is_warm(self) -> bool:
        """Whether every number was timed."""
        return len(self.times) == len(self.candidates)

    def median_time(self, threads: int) -> float:
        """Median of the last seconds a token; the lower one of two, because a step is easily held up by chance."""
        return median_low(self.times[threads])

    def _record_warm_up(self, threads: int) -> None:
        """Not every number was timed yet: the fastest of those that were is the best."""
        if threads != self.best and self.best in self.times:
            self.since, self.turn = 0, self.turn + 1
        self.best = min(self.times, key=self.median_time)

    def _test_for_change(self, seconds: float) -> None:
        """A step of the best number took `seconds` a token: update the CUSUM statistic, and change above its limit."""
        if len(self.candidates) == 1:
            return
        rival = min((threads for threads in self.candidates if threads != self.best), key=self.median_time)
        limit = self.settings.threshold * self.median_time(rival)
        loss = min(seconds - self.settings.slack * self.median_time(rival), limit / self.settings.min_slow_steps)
        self.loss = max(self.loss + loss, 0.0)
        if self.loss >= limit:  # The number that was the best may be so again: it is tried soon.
            self.best, self.loss, self.trial = rival, 0.0, []
            self.since, self.interval = 0, self.settings.first_interval

    def _record_trial(self, threads: int, seconds: float) -> None:
        """A step of another number took `seconds` a token; after the last step of the trial, the next one is
        planned."""
        self.trial.append(seconds)
        if len(self.trial) < self.settings.trial_steps:
            return
        cost = self.settings.trial_steps * (min(self.trial) / self.median_time(self.best) - 1)  # In steps of the best.
        self.times[threads] = [max(self.trial)]
        doubled = min(2 * self.interval, self.settings.max_interval)
        self.interval = min(max(doubled, cost / self.settings.trial_share), self.settings.last_resort)
        self.since, self.trial, self.turn = 0, [], self.turn + 1
