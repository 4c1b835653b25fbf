"""Peak memory of a piece of CPU work, from PyTorch's own allocation events."""

from __future__ import annotations

from collections.abc import Callable

from torch.profiler import ProfilerActivity, profile


def peak_bytes(work: Callable[[], object]) -> int:
    """The most bytes that `work` had allocated at a time, beyond what was there before it."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recording:
        work()
    events = [event for event in recording.profiler.kineto_results.events() if event.name() == "[memory]"]
    current = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        current += event.nbytes()
        peak = max(peak, current)
    return peak
