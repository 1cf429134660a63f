from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from tuner.objectives import Objective
from tuner.ray_backend.schedulers import ray_class_of
from tuner.report_keys import TIME
from tuner.search.schedulers import ASHA, PB2, PBT, Fifo, HyperBand, Median, SchedulerConfig
from tuner.search.space import Space

ACCURACY = Objective(metric="val_accuracy", mode="max")
SPACE: Space = TypeAdapter(Space).validate_python(
    {"lr": {"loguniform": [1e-3, 1]}, "width": {"int": [1, 100]}, "kind": {"choice": ["a", "b", "c"]}}
)


def arguments(config: Any, length: int | None = 27) -> dict[str, Any]:
    """What Ray's scheduler is made with; Ray accepts it."""
    given: dict[str, Any] = config.arguments(ACCURACY, length, SPACE)
    ray_class_of(config)(**given)
    return given


class TestBuilding:
    def test_time_is_counted_in_reports_and_the_objective_decides(self) -> None:
        for config in (ASHA(), HyperBand(), Median(), PBT(), PB2()):
            given = arguments(config)
            assert (given["time_attr"], given["metric"], given["mode"]) == (TIME, "val_accuracy", "max")

    def test_fifo_ends_nothing(self) -> None:
        assert arguments(Fifo()) == {}
        assert not Fifo.prunes and not Fifo.mutates

    def test_asha(self) -> None:
        given = arguments(ASHA(grace=2, reduction=4, brackets=2))
        expected = {"grace_period": 2, "reduction_factor": 4, "brackets": 2, "max_t": 27, "stop_last_trials": False}
        assert given.items() >= expected.items()

    def test_hyperband(self) -> None:
        assert arguments(HyperBand(reduction=2)).items() >= {"reduction_factor": 2, "max_t": 27}.items()

    def test_median(self) -> None:
        given = arguments(Median(grace=4, samples=5))
        assert given.items() >= {"grace_period": 4, "min_samples_required": 5}.items()

    @pytest.mark.parametrize("member", [PBT, PB2])
    def test_a_population(self, member: Any) -> None:
        given = arguments(member(interval=3, quantile=0.5))
        assert given.items() >= {"perturbation_interval": 3, "quantile_fraction": 0.5, "synch": True}.items()

    def test_pb2_has_a_range_for_each_key(self) -> None:
        assert arguments(PB2())["hyperparam_bounds"] == {"units": {"lr": [0, 1], "width": [0, 1], "kind": [0, 1]}}

    @pytest.mark.parametrize("member", [ASHA, HyperBand])
    def test_the_longest_trial_is_that_of_the_file_or_the_trials_own_or_a_hundred_reports(self, member: Any) -> None:
        assert arguments(member(longest=9))["max_t"] == 9
        assert arguments(member())["max_t"] == 27
        assert arguments(member(), None)["max_t"] == 100


class TestChecks:
    @pytest.mark.parametrize(
        ("config", "key"),
        [
            (ASHA(grace=9), "scheduler.grace"),
            (ASHA(grace=5, longest=5), "scheduler.grace"),
            (Median(grace=10), "scheduler.grace"),
            (PBT(interval=9), "scheduler.interval"),
            (PB2(interval=9), "scheduler.interval"),
            (HyperBand(reduction=10), "scheduler.reduction"),
        ],
    )
    def test_one_that_could_end_nothing_early_is_refused(self, config: Any, key: str) -> None:
        [problem] = config.check(9)
        assert problem.key == key
        assert "no trial would be pruned" in problem.message

    def test_what_is_allowed_is_told(self) -> None:
        [problem] = ASHA(grace=9).check(9)
        assert problem.message.startswith("9 is not below trial.epochs, which is 9")
        assert problem.hint == "allowed: 1 to 8; scheduler: {kind: fifo} prunes none, whatever the epochs"

    @pytest.mark.parametrize(
        "config", [ASHA(grace=8), Median(grace=8), PBT(interval=8), HyperBand(reduction=9), Fifo()]
    )
    def test_one_that_could_is_not(self, config: Any) -> None:
        assert list(config.check(9)) == []

    @pytest.mark.parametrize(
        "config", [ASHA(grace=500), Median(grace=500), PBT(interval=500), HyperBand(reduction=500)]
    )
    def test_nothing_is_known_of_a_function_of_ones_own(self, config: Any) -> None:
        assert list(config.check(None)) == []

    @pytest.mark.parametrize(
        ("given", "key"),
        [
            ({"kind": "asha", "grace": 0}, "grace"),
            ({"kind": "asha", "reduction": 1}, "reduction"),
            ({"kind": "asha", "brackets": 0}, "brackets"),
            ({"kind": "hyperband", "longest": 0}, "longest"),
            ({"kind": "median", "samples": 0}, "samples"),
            ({"kind": "pbt", "quantile": 0.6}, "quantile"),
            ({"kind": "pbt", "quantile": 0}, "quantile"),
            ({"kind": "pbt", "resample": 1.1}, "resample"),
            ({"kind": "pbt", "factors": [1.2]}, "factors"),
            ({"kind": "pb2", "factors": [1.2, 0.8]}, "factors"),
            ({"kind": "fifo", "grace": 1}, "grace"),
        ],
    )
    def test_a_setting_outside_is_refused(self, given: dict[str, Any], key: str) -> None:
        with pytest.raises(ValidationError, match=key):
            TypeAdapter(SchedulerConfig).validate_python(given)


class TestAhead:
    def test_a_population_is_known_before_it_goes_on(self) -> None:
        assert PBT().ahead(9, 16) == PB2().ahead(None, 16) == 16

    def test_the_trials_of_hyperbands_largest_bracket_wait_for_each_other(self) -> None:
        assert HyperBand(reduction=3).ahead(9, 100) == 9
        assert HyperBand(reduction=3).ahead(9, 4) == 4

    @pytest.mark.parametrize("config", [Fifo(), ASHA(), Median()])
    def test_others_wait_for_none(self, config: Any) -> None:
        assert config.ahead(9, 100) == 0


class TestMutations:
    HERE = {"lr": 0.1, "width": 50, "kind": "b"}  # noqa: RUF012

    def mutations(self, config: Any, count: int = 200) -> list[Any]:
        rng = np.random.default_rng(0)
        return [config.mutated(SPACE, self.HERE, {}, rng) for _ in range(count)]

    def test_pbt_moves_a_number_by_a_factor_and_a_choice_to_a_neighbour(self) -> None:
        found = self.mutations(PBT(resample=0))
        assert {round(each["lr"], 9) for each in found} == {0.12, 0.08}
        assert {each["width"] for each in found} == {60, 40}
        assert {each["kind"] for each in found} == {"a", "c"}
        assert len({(each["lr"] > 0.1, each["width"] > 50) for each in found}) == 4, "each key for itself"

    def test_pbt_draws_anew_as_often_as_it_is_told(self) -> None:
        found = self.mutations(PBT(resample=0.5), 1000)
        moved = sum(round(each["lr"], 9) in (0.12, 0.08) for each in found)
        assert 0.44 < moved / 1000 < 0.56
        assert not any(round(each["lr"], 9) in (0.12, 0.08) for each in self.mutations(PBT(resample=1)))

    @pytest.mark.parametrize(("name", "value"), [("kind", "c"), ("lr", 1.0), ("width", 1)])
    def test_pbt_leaves_nothing_at_the_end_of_its_range_for_ever(self, name: str, value: Any) -> None:
        rng = np.random.default_rng(0)
        here = self.HERE | {name: value}
        assert len({PBT(resample=0).mutated(SPACE, here, {}, rng)[name] for _ in range(50)} - {value}) > 1

    def test_pb2_goes_where_rays_process_says_on_the_scale_of_each_key(self) -> None:
        units = {"lr": 1 / 3, "width": 0.255, "kind": 1.0}
        found = PB2().mutated(SPACE, self.HERE, units, np.random.default_rng(0))
        assert found == {"lr": pytest.approx(0.01), "width": 26, "kind": "c"}
        beyond = PB2().mutated(SPACE, self.HERE, {"lr": 1.5, "width": -3, "kind": 0}, np.random.default_rng(0))
        assert beyond == {"lr": pytest.approx(1.0), "width": 1, "kind": "a"}
