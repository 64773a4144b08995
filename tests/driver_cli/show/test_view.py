"""What the driver knows of a run, by the controller's events."""

from __future__ import annotations

from .example_run import event, results, view


def test_events_keep_the_view_up_to_date_and_unknown_ones_are_harmless() -> None:
    """A controller of another version may say more, or say it differently."""
    seen = view(0, 1)
    seen.apply(event("something-new", data={"state": "odd"}))
    seen.apply(event("round-closed", round=1, data={"unexpected": True}))
    assert seen.rounds == {}
    seen.apply(event("round-closed", round=1, data=results(0.5).rounds[0].model_dump(mode="json")))
    assert [one.round for one in seen.closed] == [1]
    seen.apply(event("run-ended", data={"state": "stopped", "reason": "enough"}))
    assert (seen.ended, seen.run.reason) == (True, "enough")


def test_history_and_other_runs_are_no_news() -> None:
    """A driver that attaches is not told what happened before it came."""
    seen = view(0, 1)
    assert seen.concerns(event("round-closed"))
    assert not seen.concerns(event("round-closed", at="2030-01-01T00:00:08.999Z"))
    assert not seen.concerns(event("round-closed", run_id="another"))
    assert seen.concerns(event("learner-joined", run_id=None))
