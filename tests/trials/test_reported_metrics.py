"""What a job's user is told of metrics that are not what their experiment names."""

import json

from conftest import experiment

from tuner.train.function_trial import TargetTrial
from tuner.train.trial_base import AnyTrial
from tuner.trials.callback import TrialCallback
from tuner.trials.reported_metrics import ReportedMetrics
from tuner.trials.trial import Trial


class Notes(TrialCallback):
    def __init__(self) -> None:
        self.said: list[str] = []

    def trial_noted(self, trial: Trial, what: str) -> None:
        self.said.append(what)


def trial(config: AnyTrial | None = None) -> Trial:
    return Trial(0, {}, config or TargetTrial.model_construct(target="own:train"), "")


def names(notes: Notes) -> ReportedMetrics:
    return ReportedMetrics(experiment(), [notes])


def test_a_wrong_objective_is_told_at_the_first_report_and_once() -> None:
    names_of = names(notes := Notes())
    for reported in ({"val_acuracy", "loss", "epoch"}, {"loss", "epoch"}):
        names_of.check_names(trial(), reported)
    assert notes.said == [
        "its first report has no 'val_accuracy': it reported loss, val_acuracy; did you mean val_acuracy?"
        " · a trial without it fails"
    ]


def test_nothing_is_told_where_it_is_there_and_of_our_own_trainings() -> None:
    names_of = names(notes := Notes())
    names_of.check_names(trial(experiment().trial), {"loss"})
    names_of.check_names(trial(), {"val_accuracy", "epoch"})
    assert not notes.said


def test_what_is_left_out_is_told_once_a_job_and_names_with_one_reason_together() -> None:
    names_of = names(notes := Notes())
    one, other = trial(), trial()
    names_of.note_left_out(one, json.dumps({"a": "it was None", "b": "it was None", "c": "it was a set"}))
    names_of.note_left_out(other, json.dumps({"a": "it was None", "d": "it was a set"}))
    assert notes.said == [
        "left out of its reports: 'a', 'b': it was None; 'c': it was a set",
        "left out of its reports: 'd': it was a set",
    ]
    assert set(other.left_out) == {"a", "d"}


def test_an_epoch_that_does_not_count_the_reports_is_told() -> None:
    names_of = names(notes := Notes())
    for told, counted in ((None, 1), (1, 1), (0, 1), (4, 5), (5.0, 5)):
        names_of.check_epoch(trial(), told, counted)
    names_of.check_epoch(trial(experiment().trial), 7, 1)
    assert not notes.said
    names_of.check_epoch(trial(), 10, 2)
    assert notes.said == ["left out of its reports: 'epoch': tuner itself reports this name: the number of the report"]


def test_an_objective_that_was_no_number_is_told_by_what_it_was() -> None:
    names_of = names(Notes())
    odd = trial()
    names_of.note_left_out(odd, json.dumps({"val_accuracy": "it was a str ('0.5')"}))
    odd.reported = {"epoch", "loss"}
    assert names_of.missing(odd) == "never reported 'val_accuracy' as a number: it was a str ('0.5')"
    odd.reported = {"val_accuracy"}
    assert names_of.missing(odd) == ""
