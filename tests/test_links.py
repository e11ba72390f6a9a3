"""The model of links and the simulation of ranks: against rates and times that can be worked out by hand."""

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixbench.models.errors import BadInput
from mixbench.profilers.links import Hardware, hardware, known, share
from mixbench.profilers.simulation import Compute, Post, Simulated, Step, Wait, simulate

pytestmark = pytest.mark.alone


def machine(topology: str = "mesh", **limits: float) -> Hardware:
    return Hardware(name="test", title="", topology=topology, flops_per_s=1.0, efficiency=1.0, source="", **limits)  # type: ignore[arg-type]


def test_flows_share_the_tightest_limit_and_others_take_what_is_left() -> None:
    # Bertsekas and Gallager's kind of example: two flows on link a (1), one of them also on link b (3) with a third flow.
    a, b = ("a", 1.0), ("b", 3.0)
    assert share([[a], [a, b], [b]]) == [0.5, 0.5, 2.5]
    assert share([[("flow", 0.2), a], [a]]) == [0.2, 0.8]
    assert share([[], [a]]) == [math.inf, 1.0]


@given(st.lists(st.lists(st.sampled_from("abcde"), min_size=1, max_size=3, unique=True), min_size=1, max_size=8), st.data())
def test_no_limit_is_broken_and_no_flow_could_have_more(paths: list[list[str]], data: st.DataObject) -> None:
    sizes = {key: data.draw(st.floats(0.1, 10.0)) for key in "abcde"}
    rates = share([[(key, sizes[key]) for key in path] for path in paths])
    used = {key: sum(rate for rate, path in zip(rates, paths, strict=True) if key in path) for key in "abcde"}
    for key, amount in used.items():
        assert amount <= sizes[key] * (1 + 1e-9)
    for rate, path in zip(rates, paths, strict=True):
        # Somewhere on its way the link is full, and no other flow there has more.
        assert any(
            used[key] >= sizes[key] * (1 - 1e-9)
            and all(other <= rate * (1 + 1e-9) for other, way in zip(rates, paths, strict=True) if key in way)
            for key in path
        )


def test_topologies_differ_in_what_a_transfer_passes() -> None:
    def keys(topology: str, source: int, target: int) -> list[object]:
        found = machine(topology, flow=9.0, link=5.0, port=7.0).limits(source, target, 6)
        return [key[0] if key[0] == "flow" else key for key, _ in found]  # type: ignore[index]

    assert keys("switch", 0, 2) == ["flow", ("out", 0), ("in", 2)]
    assert keys("mesh", 0, 2) == ["flow", ("out", 0), ("in", 2), ("link", 0, 2)]
    assert keys("uplink", 0, 2) == ["flow", ("port", 0), ("port", 2)]
    assert keys("ring", 0, 2)[3:] == [("link", 0, 1), ("link", 1, 2)]
    assert keys("ring", 0, 5)[3:] == [("link", 0, 5)]


def exchange(ranks: int, size: int) -> list[list[Step]]:
    """Each sends to the next and receives from the one before."""
    programs: list[list[Step]] = []
    for rank in range(ranks):
        after, before = (rank + 1) % ranks, (rank - 1) % ranks
        programs.append([Post((rank,), after, size, True), Post((before,), before, size, False), Wait((before,))])
    return programs


def test_a_transfer_takes_latency_and_size_over_its_rate() -> None:
    found = simulate([[Post((0,), 1, 100, True)], [Post((0,), 0, 100, False), Wait((0,))]], machine(link=50.0, latency_s=0.5))
    assert found.ends == (0.0, 2.5)


def test_a_transfer_begins_when_both_ends_have_posted_it() -> None:
    late: list[list[Step]] = [[Compute("x", 3.0), Post((0,), 1, 100, True)], [Post((0,), 0, 100, False), Wait((0,))]]
    found = simulate(late, machine(link=50.0))
    assert found.ends == (3.0, 5.0)
    assert [span.kind for span in found.spans] == ["compute", "wait", "transfer"]


def test_both_directions_of_a_link_are_free_and_those_of_an_uplink_are_not() -> None:
    assert simulate(exchange(2, 100), machine(link=50.0)).seconds == pytest.approx(2.0)
    assert simulate(exchange(2, 100), machine("switch", port=50.0)).seconds == pytest.approx(2.0)
    assert simulate(exchange(2, 100), machine("uplink", port=50.0)).seconds == pytest.approx(4.0)


def test_compute_hides_a_transfer_that_is_shorter() -> None:
    def with_work(seconds: float) -> Simulated:
        return simulate([[*p[:2], Compute("work", seconds), p[2]] for p in exchange(3, 100)], machine(link=50.0))

    assert with_work(5.0).seconds == pytest.approx(5.0)
    assert with_work(1.0).seconds == pytest.approx(2.0)


def test_two_transfers_on_one_port_take_turns_and_a_late_one_gets_the_rest() -> None:
    programs: list[list[Step]] = [
        [Post((1,), 1, 100, True), Compute("x", 1.0), Post((2,), 2, 100, True)],
        [Post((1,), 0, 100, False), Wait((1,))],
        [Post((2,), 0, 100, False), Wait((2,))],
    ]
    # 50 of the first alone; then both at 25 until the first is done at 3; the second has 50 left at full rate.
    assert simulate(programs, machine("switch", port=50.0)).ends == pytest.approx((1.0, 3.0, 4.0))


def test_launches_cost_the_rank_itself() -> None:
    assert simulate([[Compute("x", 1.0), Compute("y", 1.0)]], machine(link=1.0, launch_s=0.25)).seconds == 2.5


def test_a_deadlock_is_told() -> None:
    with pytest.raises(BadInput, match="rank 0 waits"):
        simulate([[Wait((7,))]], machine(link=1.0))


def test_every_entry_of_the_table_can_be_used_and_has_a_source() -> None:
    for name, entry in known().items():
        assert entry.name == name
        assert len(entry.source) > 20
        assert 0.3 <= entry.efficiency <= 0.8


def test_users_add_machines_and_wrong_ones_are_refused(tmp_path: Path) -> None:
    table = tmp_path / "mine.toml"
    table.write_text(
        '[mine]\ntitle="x"\ntopology="ring"\nflops_per_s=1e12\nefficiency=0.5\nlink=1e9\nsource="a guess of mine"\n'
    )
    assert hardware("mine", table).link == 1e9
    with pytest.raises(BadInput, match="no hardware named 'a100'") as error:
        hardware("a100")
    assert "a100-nvlink" in error.value.hint
    for text, said in (
        ("[x]\nspeed = 1\n", "unknown key 'speed'"),
        ("x = 1\n", "x is no table"),
        ("[x\n", "can't be read as TOML"),
        ('[x]\ntitle = "x"\n', "incomplete"),
        (table.read_text().replace('"ring"', '"star"'), "no topology 'star'"),
        (table.read_text().replace("link=1e9", ""), "no limit of bandwidth"),
        (table.read_text().replace("1e12", "0"), "has to be above 0"),
    ):
        table.with_name("bad.toml").write_text(text)
        with pytest.raises(BadInput, match=said):
            known(table.with_name("bad.toml"))
