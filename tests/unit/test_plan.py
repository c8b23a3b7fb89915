"""What a plan says: nodes from words, who fits and who waits, and the model's known cases."""

from __future__ import annotations

from typing import Any

import pytest

from raydistill.config.loader import load_config
from raydistill.config.models import Config, PlacementConfig
from raydistill.errors import ConfigError
from raydistill.planning.course import course
from raydistill.planning.crews import Cast, cast, grow
from raydistill.planning.demand import STUDENT, Party, demand
from raydistill.planning.fit import Fit, fit
from raydistill.planning.measured import Measured, MeasuredTeacher, Speeds, Work, parse_speeds
from raydistill.planning.nodes import Node, nodes_of_ray, parse_nodes, summary
from raydistill.planning.rates import (
    CLIENT_S,
    CORES,
    FULL,
    REPLICA_S,
    TURNS,
    WINDOW,
    Crew,
    Server,
    Steady,
    ahead,
    steady_local,
    steady_remote,
)
from raydistill.planning.room import Room, Spot, has_label
from raydistill.planning.sizes import Sizes, TaskSize, TeacherSize
from raydistill.planning.verdict import balances, verdict

HERE = Spot(0)


def config_with(teachers: dict[str, dict[str, Any]], **sections: Any) -> Config:
    data = {"source": "disk", "path": "-"}
    return load_config(
        {
            "name": "planned",
            "tasks": {"things": {"domain": "vision", "data": data}},
            "teachers": {
                name: {"task": "things", "loader": "python", "model": "any:thing", **settings}
                for name, settings in teachers.items()
            },
            **sections,
        }
    )


def fitted(config: Config, words: str) -> Fit:
    return fit(demand(config), parse_nodes(words))


# Nodes


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("64xL4", ["64 nodes of 1 L4, 8 CPU, 32 GB"]),
        ("12xh100", ["1 node of 8 H100, 208 CPU, 1872 GB", "1 node of 4 H100, 104 CPU, 936 GB"]),
        ("8xH100:gpus=2:cpus=20:memory=100", ["4 nodes of 2 H100, 20 CPU, 100 GB"]),
        ("4xcpu16:role=teacher, 1xL4", ["4 nodes of 16 CPU, 64 GB, role=teacher", "1 node of 1 L4, 8 CPU, 32 GB"]),
    ],
)
def test_nodes_are_read_from_words(words: str, told: list[str]) -> None:
    assert summary(parse_nodes(words)) == told


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("64xL5", "'L5' is not known; did you mean L4"),
        ("8xTPU", "known are T4, V100, A10G, L4"),
        ("L4", "is no number of devices; write 64xL4"),
        ("0xL4", "between 1 and 100,000"),
        ("", "is no number of devices"),
        ("4xL4:role", "'role' is no key=value"),
        ("4xL4:gpus=0.5", "gpus is a whole number"),
        ("4xL4:cpus=many", "cpus is a number, not 'many'"),
        ("4xcpu8:gpus=2", "and no gpus"),
        ("1xL4:gpus=nan", "gpus is more than nothing"),
        ("4xcpu8:cpus=inf", "cpus is more than nothing and at most 100,000"),
        ("4xcpu8:memory=-4", "memory is more than nothing"),
        ("1xL4:role=a:role=b", "role stands there twice"),
        (f"{'9' * 5000}xL4", "is no number of devices"),
    ],
)
def test_a_word_that_means_nothing_is_refused(words: str, named: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_nodes(words)
    assert named in str(refused.value) and "\n" not in str(refused.value)


def test_nodes_are_read_from_ray() -> None:
    found = [
        {"Alive": True, "Resources": {"CPU": 64.0, "GPU": 8.0, "accelerator_type:H100": 1.0, "memory": 2e12, "npu": 1},
         "Labels": {"role": "student", "ray.io/node-id": "x"}},
        {"Alive": True, "Resources": {"CPU": 4.0, "node:1.2.3.4": 1.0}, "Labels": {}, "NodeManagerAddress": "1.2.3.4"},
        {"Alive": False, "Resources": {"CPU": 99.0}},
    ]  # fmt: skip
    assert summary(nodes_of_ray(found)) == ["1 node of 8 H100, 64 CPU, 2000 GB, 1 npu, role=student", "1 node of 4 CPU"]
    assert [(node.cores, node.here) for node in nodes_of_ray(found, "1.2.3.4", cores=2)] == [(64, False), (2, True)]


def test_speeds_come_from_data_sheets_or_from_the_user() -> None:
    assert Speeds("L4").of("H100") == pytest.approx(989 / 121)
    assert Speeds("L4", given=parse_speeds(["h100=3.5"])).of("H100") == 3.5
    assert Speeds("H100").of("H100") == Speeds("CPU").of("CPU") == 1.0
    assert Speeds("CPU", tflops=0.1).of("L4") > 100
    assert "rough" in Speeds("CPU", tflops=0.1).remarks(["L4"])[0]
    assert parse_speeds(["A10=2"], {"A10"}) == {"A10": 2.0}
    for word in ("L4", "L4=0", "L4=fast", "L5=2"):
        with pytest.raises(ConfigError, match="--speed"):
            parse_speeds([word])


# Room


@pytest.mark.parametrize(
    ("wanted", "held"),
    [("a", True), ("b", False), ("!a", False), ("!b", True), ("in(b, a)", True), ("!in(a,b)", False), ("in(b)", False)],
)
def test_labels_are_matched_as_ray_does(wanted: str, held: bool) -> None:
    assert has_label({"role": "a"}, "role", wanted) is held


def test_parts_of_a_gpu_share_one_device_and_whole_ones_stay_whole() -> None:
    config = config_with({"part": {"placement": {"num_gpus": 0.5}}, "whole": {"placement": {"num_gpus": 1}}})
    (together,) = demand(config)
    part, whole = together.parties
    room = Room(parse_nodes("2xH100:gpus=2"))
    assert [room.take(part), room.take(part), room.take(whole)] == [Spot(0, (0,)), Spot(0, (0,)), Spot(0, (1,))]
    assert room.take(part) is None
    assert room.why_not(part) == (
        "no node has 0.5 GPU free beside 2 × teachers.part.placement, 1 × teachers.whole.placement"
    )


def test_what_asks_for_no_gpu_leaves_gpu_nodes_alone_and_spreading_takes_the_emptiest() -> None:
    config = config_with({"packed": {}, "spread": {"placement": {"strategy": "spread"}}})
    (together,) = demand(config)
    packed, spread = together.parties
    room = Room(parse_nodes("1xL4,2xcpu4"))
    assert [room.take(packed), room.take(packed), room.take(spread)] == [Spot(1), Spot(1), Spot(2)]


@pytest.mark.parametrize(
    "placement",
    [
        {"num_cpus": 3}, {"num_cpus": 0.3}, {"num_gpus": 0.3}, {"num_gpus": 2, "num_cpus": 0}, {"num_gpus": 1},
        {"accelerator_type": "L4"}, {"label_selector": {"role": "a"}}, {"num_cpus": 50}, {"resources": {"none": 1}},
    ],
)  # fmt: skip
def test_how_many_fit_is_how_many_find_a_place(placement: dict[str, Any]) -> None:
    def party(count: int, **settings: Any) -> Party:
        return Party("x", "teacher", "x", PlacementConfig(**settings), count, count, count)

    nodes = parse_nodes("3xL4:gpus=3:cpus=7, 8xH100:gpus=5:role=a, 4xcpu16:role=a")
    beside = [party(3, num_gpus=0.25, num_cpus=2), party(2, num_cpus=5, label_selector={"role": "a"})]
    room, count = Room(nodes), 0
    for each in sorted(beside, key=room.choosiness):
        for _ in range(each.least):
            assert room.take(each) is not None
    while room.take(party(1, **placement)) is not None:
        count += 1
    assert Room(nodes).how_many(party(1, **placement), beside) == count


def test_large_clusters_fill_up_node_by_node() -> None:
    config = config_with({"packed": {}, "spread": {"placement": {"strategy": "spread"}}})
    (together,) = demand(config)
    packed, spread = together.parties
    room = Room(parse_nodes("50000xcpu2"))
    assert [room.take(packed) for _ in range(5)] == [Spot(0), Spot(0), Spot(1), Spot(1), Spot(2)]
    assert [room.take(spread) for _ in range(3)] == [Spot(3), Spot(4), Spot(5)]
    for _ in range(20_000):
        assert room.take(packed) is not None
    assert room.num_allowed(packed) == 50_000


@pytest.mark.parametrize(
    ("placement", "named"),
    [
        ({"num_gpus": 3}, "asks for 3 GPU (teachers.one.placement 3) and the cluster has 2"),
        ({"num_cpus": 9}, "teachers.one.placement asks for 9 CPU on one node, 1 times, and the nodes of the cluster"),
        ({"accelerator_type": "H100"}, "has the accelerator_type 'H100' that teachers.one.placement asks for"),
        ({"label_selector": {"role": "x"}}, "has the labels {'role': 'x'} that teachers.one.placement.label_selector"),
        ({"resources": {"npu": 1}}, "asks for 1 npu"),
    ],
)  # fmt: skip
def test_what_can_never_fit_is_refused_in_the_preflights_words(placement: dict[str, Any], named: str) -> None:
    assert named in fitted(config_with({"one": {"placement": placement}}), "2xL4").never


def test_what_fits_in_sum_and_not_beside_the_others_waits_and_says_for_whom() -> None:
    config = config_with(
        {"small": {"placement": {"num_gpus": 0.6}, "min_replicas": 3}, "large": {"placement": {"num_gpus": 1}}},
        distill={"soft_labels": "remote"},
    )
    found = fitted(config, "3xL4")
    assert found.never == ""
    assert found.waiting == (
        "teachers.small.placement: 1 of 3 wait: no node has 0.6 GPU free beside 1 × teachers.large.placement, 2 × "
        "teachers.small.placement",
    )


def test_a_student_that_teachers_leave_no_room_for_never_begins() -> None:
    config = config_with(
        {"one": {"placement": {"num_gpus": 0.6}}},
        training={"num_workers": 2, "placement": {"num_gpus": 0.6}},
        distill={"soft_labels": "remote"},
    )
    assert "training.placement: 1 of 2 wait" in fitted(config, "2xL4").never
    fewer = config.training.model_copy(update={"min_workers": 1})
    elastic = fitted(config.model_copy(update={"training": fewer}), "2xL4")
    assert elastic.never == "" and "training.placement: 1 of 2 wait" in elastic.waiting[0]


def test_with_stored_labels_students_and_teachers_take_turns() -> None:
    teachers = {"one": {"placement": {"num_gpus": 1}}}
    sections = {"training": {"num_workers": 1, "placement": {"num_gpus": 1}}}
    assert fitted(config_with(teachers, distill={"soft_labels": "stored"}, **sections), "1xL4").never == ""
    assert fitted(config_with(teachers, distill={"soft_labels": "remote"}, **sections), "1xL4").never != ""


# The model


def crew(name: str, seconds: float, servers: int = 1, cores: float = 0.0, speed: float = 1.0) -> Crew:
    return Crew(name, Work(64, 0.0, seconds, cores), (Server(HERE, speed),) * servers)


def together(student_s: float, *teachers: Crew, window: int = 8, share: float = 1.0, cores: float = 0.0) -> Steady:
    missing = {teacher.name: share for teacher in teachers}
    return steady_remote(crew(STUDENT, student_s, cores=cores), teachers, missing, window, [2.0])


def test_the_slowest_decides() -> None:
    fast, slow = together(0.1, crew("a", 0.02)), together(0.01, crew("a", 0.05, servers=2))
    assert (fast.bound, fast.samples_per_s) == (STUDENT, pytest.approx(64 / (0.1 + CLIENT_S)))
    assert (slow.bound, slow.samples_per_s) == ("a", pytest.approx(64 * 2 / (0.05 + REPLICA_S)))


def test_of_several_teachers_the_slowest_pool_decides_and_faster_devices_count_for_more() -> None:
    found = together(0.01, crew("a", 0.03), crew("b", 0.09, servers=2))
    assert (found.bound, found.steps_per_s) == ("b", pytest.approx(2 / (0.09 + REPLICA_S)))
    assert together(0.01, crew("b", 0.09, speed=3.0)).steps_per_s == pytest.approx(1 / (0.03 + REPLICA_S))


def test_a_window_too_small_leaves_replicas_idle() -> None:
    found = together(0.01, crew("a", 0.09, servers=8), window=2)
    assert found.bound == f"{WINDOW}a"
    assert found.steps_per_s == pytest.approx(2 / (0.09 + REPLICA_S + 0.01 + CLIENT_S))


def test_what_the_store_has_is_not_asked() -> None:
    half = together(0.01, crew("a", 0.1), share=0.5)
    assert half.steps_per_s == pytest.approx(1 / (0.05 + REPLICA_S))
    assert together(0.01).samples_per_s == pytest.approx(64 / 0.01)


def test_what_the_student_spends_on_the_store_is_its_own_time() -> None:
    student, asked = crew(STUDENT, 0.01), [crew("a", 0.001)]
    found = steady_remote(student, asked, {"a": 1.0}, 8, [2.0], store_s=0.002)
    assert found.steps_per_s == pytest.approx(1 / (0.01 + CLIENT_S + 0.002))
    assert steady_local(student, [], {}, store_s=0.002).steps_per_s == pytest.approx(1 / 0.012)


def test_shared_cores_add_up() -> None:
    # Both want all cores of the machine all the time: 1/(1/S + 1/T).
    both = together(0.03, crew("a", 0.06, cores=2.0), cores=2.0)
    busy_s = 2 * (0.03 + 0.06) + CLIENT_S + REPLICA_S
    assert (both.bound, both.steps_per_s) == (CORES, pytest.approx(FULL * 2 / busy_s))
    # A core each: they are not in each other's way.
    assert together(0.06, crew("a", 0.03, cores=1.0), cores=1.0).bound == STUDENT


def test_in_one_process_times_add_up() -> None:
    found = steady_local(crew(STUDENT, 0.03), [crew("a", 0.06), crew("b", 0.01)], {"a": 1.0, "b": 1.0})
    assert (found.bound, found.steps_per_s) == (TURNS, pytest.approx(1 / 0.1))


def test_preparing_inputs_gains_nothing_from_a_faster_device() -> None:
    work = Work(64, 0.02, 0.08)
    assert work.seconds() == pytest.approx(0.1)
    assert work.seconds(speed=1000) == pytest.approx(0.02, rel=0.01)


def test_fewer_workers_than_the_config_has_do_several_parts_each() -> None:
    two = Crew(STUDENT, Work(64, 0.0, 0.1), (Server(HERE),) * 2)
    one = Crew(STUDENT, Work(64, 0.0, 0.1), (Server(HERE),), parts=2)
    assert steady_local(two, [], {}).samples_per_s == pytest.approx(2 * steady_local(one, [], {}).samples_per_s)
    assert steady_local(one, [], {}).steps_per_s == pytest.approx(5)


def test_asking_ahead_takes_as_long_as_the_slowest_or_as_the_cores_that_all_share() -> None:
    rows, windows = {"a": 640, "b": 640}, {"a": 4, "b": 4}
    seconds, who = ahead([crew("a", 0.1), crew("b", 0.05)], rows, windows, [2.0], "remote")
    assert (who, seconds) == ("a", pytest.approx(10 * (0.1 + REPLICA_S)))
    seconds, who = ahead([crew("a", 0.1, cores=2.0), crew("b", 0.1, cores=2.0)], rows, windows, [2.0], "remote")
    assert (who, seconds) == (CORES, pytest.approx(2.0 / FULL, rel=0.02))
    assert ahead([crew("a", 0.1), crew("b", 0.05)], rows, windows, [2.0], "local")[0] == pytest.approx(1.5)


# A whole run


def planned(
    teachers: dict[str, dict[str, Any]], answer_s: float, words: str = "1xcpu64", known: int = 0, views: int = 2,
    mode: str = "remote", **sections: Any,
) -> tuple[Cast, Sizes, Fit, list[Party]]:  # fmt: skip
    training = {"num_steps": 1000, "batch_size": 64, **sections.pop("training", {})}
    config = config_with(teachers, distill={"soft_labels": mode}, training=training, **sections)
    nodes = parse_nodes(words)
    found = fit(demand(config), nodes)
    assert not found.never
    answer = Work(64, 0.0, answer_s)
    measured = Measured(
        "CPU", Work(64, 0.0, 0.02), Work(640, 0.0, 0.1),
        {name: MeasuredTeacher({"remote": answer, "local": answer}, answer, 0.002, 0.001) for name in teachers},
    )  # fmt: skip
    parties = [party for each in demand(config) for party in each.parties]
    size = TeacherSize(known=known, known_plain=1280)
    sizes = Sizes({"things": TaskSize(6400, 640, 640, views)}, dict.fromkeys(teachers, size))
    whole = cast(config, parties, found, nodes, measured, Speeds("CPU"))
    return whole, sizes, found, parties


def test_a_run_asks_every_view_once_and_then_reads() -> None:
    whole, sizes, _, _ = planned({"a": {}}, answer_s=0.1)
    found = course(whole.config, sizes, whole, ("remote",))
    stages = {stage.what: stage for stage in found.stages}
    asking, reading = stages["distilled, asking teachers"], stages["distilled, from the store"]
    assert asking.seconds == pytest.approx(200 * (0.1 + REPLICA_S))  # two views of a hundred micro-batches
    assert asking.bound == "a"
    assert reading.seconds == pytest.approx(800 * (0.02 + 0.001))
    assert stages["students alone"].seconds == pytest.approx(1000 * 0.02)
    assert found.wall_s == sum(stage.seconds for stage in found.stages)


def test_with_a_full_store_nobody_is_asked_and_it_says_so() -> None:
    whole, sizes, _, _ = planned({"a": {}}, answer_s=0.1, known=2 * 6400)
    assert sizes.missing(whole.config) == {}
    found = course(whole.config, sizes, whole, ())
    assert found.asking is None
    assert "distilled, asking teachers" not in {stage.what for stage in found.stages}
    assert "the store has every soft label" in verdict(whole.config, whole, sizes, found, {})


@pytest.mark.parametrize(("mode", "stage"), [("stored", "soft labels, all"), ("remote", "distilled, asking teachers")])
def test_half_a_store_halves_the_asking(mode: str, stage: str) -> None:
    seconds = []
    for known in (0, 6400):
        whole, sizes, _, _ = planned({"a": {}}, answer_s=0.1, known=known, mode=mode)
        found = course(whole.config, sizes, whole, ("remote",) if mode == "remote" else ())
        seconds.append(next(each.seconds for each in found.stages if each.what == stage))
    assert seconds[1] == pytest.approx(seconds[0] / 2, rel=0.02)


def test_the_sentence_says_how_many_more_replicas_would_balance_it() -> None:
    whole, sizes, found, parties = planned(
        {"a": {"placement": {"num_gpus": 1}, "window": 16}}, answer_s=0.1, words="3xL4"
    )
    asking = course(whole.config, sizes, whole, ("remote",)).asking
    assert asking is not None
    balance = balances(whole, found, parties, asking, sizes.missing(whole.config))
    assert (balance["a"].replicas, balance["a"].needed, balance["a"].room) == (1, 5, 2)
    said = verdict(whole.config, whole, sizes, course(whole.config, sizes, whole, ("remote",)), balance)
    assert said == (
        "teacher-bound by a: 4 more replicas would balance it (5 in all; they need 4 CPU, 4 GPU; there is room for 2; "
        "teachers.a.max_replicas is 1)"
    )
    # And so many do.
    more, *_ = planned(
        {"a": {"placement": {"num_gpus": 1}, "window": 16, "min_replicas": 5}}, answer_s=0.1, words="5xL4"
    )
    assert more.steady({"a": 1.0}, "remote").bound == STUDENT


def test_teachers_grow_up_to_max_replicas_or_until_there_is_no_room() -> None:
    for words, most, replicas, short in (("8xL4", 3, 3, ""), ("2xL4", 3, 2, "a"), ("16xL4", 9, 5, "")):
        placed = {"a": {"placement": {"num_gpus": 1}, "window": 16, "max_replicas": most}}
        whole, sizes, found, parties = planned(placed, answer_s=0.1, words=words)
        grown, who = grow(whole, parties, found, sizes.missing(whole.config))
        assert (len(grown.spots["a"]), who) == (replicas, short)


def test_other_bounds_are_told_with_what_would_mend_them() -> None:
    whole, sizes, _, _ = planned({"a": {"min_replicas": 8, "window": 2}}, answer_s=0.1)
    said = verdict(whole.config, whole, sizes, course(whole.config, sizes, whole, ("remote",)), {})
    assert "bound by the window" in said and "teachers.a.window=6 would" in said
    whole, sizes, _, _ = planned({"a": {}}, answer_s=0.1, mode="local")
    said = verdict(whole.config, whole, sizes, course(whole.config, sizes, whole, ("local",)), {})
    assert "take turns in one process" in said


def test_teachers_are_trained_first_all_at_once_where_each_has_a_place() -> None:
    place = {"num_gpus": 1}
    for placement, seconds in (({"placement": place}, 200 * 0.3 + 0.1), ({}, 300 * 0.3 + 2 * 0.1)):
        whole, sizes, _, parties = planned(
            {"a": {"train": placement}, "b": {"train": placement}}, answer_s=0.1, words="2xL4"
        )
        schooled = fit(demand(whole.config, ["a", "b"]), whole.nodes)
        lessons = {
            name: MeasuredTeacher(each.asked, each.ahead, lesson=Work(64, 0.0, 0.3))
            for name, each in whole.measured.teachers.items()
        }
        measured = Measured("CPU", whole.measured.student, whole.measured.exam, lessons)
        whole = cast(whole.config, parties, schooled, whole.nodes, measured, Speeds("CPU", given={"L4": 1.0}))
        untaught = {"a": TeacherSize(lessons=200, exams=64), "b": TeacherSize(lessons=100, exams=64)}
        stages = course(whole.config, Sizes(sizes.tasks, untaught), whole, ("remote",)).stages
        assert sum(each.seconds for each in stages if each.what.startswith("training")) == pytest.approx(seconds)


def test_of_two_ways_the_faster_one_is_taken() -> None:
    whole, sizes, _, _ = planned({"a": {}}, answer_s=0.1, words="1xcpu64", mode="auto")
    assert course(whole.config, sizes, whole, ("remote", "local")).way == "remote"
    crowded = Cast(
        whole.config, (Node("CPU", {"CPU": 64.0}, cores=1.0),), whole.spots, whole.measured, whole.speeds
    )  # fmt: skip
    assert course(crowded.config, sizes, crowded, ("remote", "local")).way == "local"


def test_devices_are_held_by_kind_for_as_long_as_they_are_needed() -> None:
    teachers = {"a": {"placement": {"num_gpus": 1, "accelerator_type": "L4"}, "min_replicas": 2}}
    training = {"num_workers": 1, "placement": {"num_gpus": 1, "accelerator_type": "H100"}}
    whole, sizes, _, _ = planned(teachers, answer_s=0.1, words="2xL4,8xH100", training=training)
    found = course(whole.config, sizes, whole, ("remote",))
    seconds = {stage.what: stage.seconds for stage in found.stages}
    assert set(found.device_hours) == {"L4", "H100"}
    held = found.wall_s - seconds["distilled, from the store"] - seconds["validation and test"]
    assert found.device_hours["L4"] * 3600 == pytest.approx(2 * held)
    assert found.device_hours["H100"] * 3600 == pytest.approx(found.wall_s - seconds["teachers start"])
