"""How many replicas there are, and what each gets."""

import pytest

from tuner.deploy.serve.scaling import Room, Scale, scale_of
from tuner.errors import UserError
from tuner.ray_backend.cluster.resources import ClusterResources, NodeResources
from tuner.ray_backend.serving import Share


def room(
    *nodes: tuple[float, float], models: int = 1, roles: int = 1, is_own: bool = False, grows: bool = False
) -> Room:
    found = tuple(NodeResources(cpu, gpu) for cpu, gpu in nodes)
    return Room(ClusterResources(found, grows=grows), models, roles, is_own)


@pytest.mark.parametrize(("text", "scale"), [("1", Scale(1, 1)), ("4", Scale(4, 4)), ("1..8", Scale(1, 8))])
def test_numbers_of_replicas(text: str, scale: Scale) -> None:
    assert scale_of(text) == scale


@pytest.mark.parametrize("text", ["0", "-1", "8..1", "0..2", "1..", "1-8", "two", "", "1e3", "1..8..9"])
def test_what_is_no_number_of_replicas(text: str) -> None:
    with pytest.raises(UserError, match=r"is no number of replicas.*\n?.*1\.\.8") as raised:
        scale_of(text)
    assert repr(text) in str(raised.value)


class TestShares:
    def test_of_a_ray_of_our_own_cores_are_shared_and_not_reserved(self) -> None:
        own = room((8, 0), models=2, is_own=True)
        assert own.share(Scale(2, 2), None) == Share(2, 2, 0, 0) and own.threads(Scale(2, 2)) == 2
        assert own.has_room_for_another(own.share(Scale(2, 2), None))

    def test_of_a_cluster_each_reserves_a_core(self) -> None:
        assert room((8, 0)).share(Scale(1, 8), None) == Share(1, 8, 1, 0) and room((8, 0)).threads(Scale(1, 8)) == 1

    @pytest.mark.parametrize(
        ("gpus", "models", "roles", "most", "each"),
        [(1, 1, 1, 1, 0.5), (1, 1, 2, 1, 0.33), (8, 1, 1, 2, 1), (2, 2, 1, 2, 0.25), (1, 50, 1, 2, 0)],
    )
    def test_gpus_are_shared_with_room_for_a_version_that_takes_over(
        self, gpus: int, models: int, roles: int, most: int, each: float
    ) -> None:
        found = room((16, gpus), models=models, roles=roles, is_own=True)
        share = found.share(Scale(1, most), None)
        assert share.gpus == each and found.has_room_for_another(share)

    def test_as_the_user_says(self) -> None:
        found = room((16, 1))
        assert found.share(Scale(2, 2), 0.25).gpus == 0.25 and found.has_room_for_another(Share(2, 2, 1, 0.25))
        assert not found.has_room_for_another(found.share(Scale(1, 1), 1))
        assert found.share(Scale(1, 1), 0).gpus == 0

    def test_no_room(self) -> None:
        with pytest.raises(UserError) as raised:
            room((4, 0), (2, 1), models=2).share(Scale(2, 2), 0.5)
        assert "4 replicas of 1 CPU core and 0.5 GPU each have no room" in str(raised.value)
        assert "4 and 0, 2 and 1" in str(raised.value) and "--gpus 0.25" in str(raised.value)
        assert room((1, 0), grows=True).share(Scale(4, 4), 1).gpus == 1, "a cluster that grows adds nodes"
