"""The report as a page, a table and a model card: self-contained, complete, and safe for any name."""

from __future__ import annotations

import io
import re
from html.parser import HTMLParser
from typing import Any

import pytest
from rich.console import Console

from raydistill.evaluation.card import model_card
from raydistill.evaluation.html import render_html
from raydistill.evaluation.terminal import print_report


def task_report(num_seeds: int, **more: Any) -> dict[str, Any]:
    """Made-up numbers that are all different, so that each can be found on a page."""
    return {
        "metric": "accuracy", "domain": "text", "label_names": ["bad", "good"], "num_train": 1234, "num_labelled": 123,
        "num_test": 456, "num_skipped": 0, "chance": 0.5, "teachers": {"bert": 0.9012}, "ensemble": 0.9012,
        "student_alone": 0.7023, "student_distilled": 0.8134, "retention": 0.9025,
        "by_seed": {"student_alone": [0.7023] * num_seeds, "student_distilled": [0.8134] * num_seeds},
        "spread": {"student_alone": 0.0111, "student_distilled": 0.0222},
        "gain": {"mean": 0.1111, "standard_error": 0.0205, "verdict": "better"},
        "macro_f1": {"ensemble": 0.8911, "student_alone": 0.6911, "student_distilled": 0.7911},
        "calibration_error": {"ensemble": 0.0311, "student_alone": 0.0511, "student_distilled": 0.0411},
        "agreement": {"student_alone": 0.7333, "student_distilled": 0.8333}, **more,
    }  # fmt: skip


def teacher_figures(**more: Any) -> dict[str, Any]:
    return {"samples": 5_000, "samples_cached": 70, "busy_s": 12.0, "waited_s": 1.0, "failovers": 0, "hedges": 0,
            "worst_gap_s": 0.0, "waiting_share": 0.03, **more}  # fmt: skip


def report(tasks: dict[str, dict[str, Any]] | None = None, num_seeds: int = 1, **more: Any) -> dict[str, Any]:
    model = {
        "parameters": 1_000_000, "bytes": 4_000_000, "device": "cpu", "latency_ms": 1.5, "latency_ms_batch_32": 0.5,
    }  # fmt: skip
    tasks = tasks or {"mood": task_report(num_seeds)}
    return {
        "name": "trial", "description": "A trial.", "tasks": tasks,
        "mean_retention": {"alone": 0.7755, "distilled": 0.9025},
        "models": {"bert": {**model, "parameters": 22_713_216}, "student": model},
        "cost": {"wall_s": 99.0, "teacher_samples": 5_000, "teacher_samples_cached": 70, "teacher_busy_s": 12.0,
                 "student_samples": 8_000, "training_s": {"alone": 20.0, "distilled": 30.0}, "peak_rss_bytes": 2**31},
        "teachers": {"bert": teacher_figures()},
        "events": [], "seeds": list(range(num_seeds)), "student_seed": 0,
        "settings": {"label_fraction": 0.1, "temperature": 2.0, "hard_weight": 0.3, "num_steps": 100,
                     "soft_labels": "stored"},
        "curves": {f"{arm}-seed{seed}": [{"step": 10, "train_loss": 1.0, "validation": dict.fromkeys(tasks, 0.6),
                                          "retention": 0.6}]
                   for arm in ("alone", "distilled") for seed in range(num_seeds)},
        "versions": {"raydistill": "0.1.0", "torch": "2"}, "machine": "a machine", **more,
    }  # fmt: skip


class Page(HTMLParser):
    """What a browser would look at: tags, where they point, and the words."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.targets: list[str] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.targets += [value or "" for key, value in attributes if key.split(":")[-1] in ("src", "href", "srcset")]

    def handle_data(self, data: str) -> None:
        self.words += data


def printed(content: dict[str, Any]) -> str:
    console = Console(record=True, width=200, file=io.StringIO())
    print_report(content, console)
    return console.export_text()


def test_the_page_fetches_nothing() -> None:
    text = render_html(report(), "name: trial\n")
    page = Page(text)
    assert all(target.startswith("#") for target in page.targets)
    assert not {"script", "link", "iframe", "img", "object"} & set(page.tags)
    assert not re.search(r"@import|url\((?!#)", text)
    assert page.tags.count("svg") == 2


def test_the_page_holds_every_task_number_event_and_the_config() -> None:
    tasks = {"mood": task_report(1), "clothes": task_report(1, student_distilled=0.6543)}
    words = Page(render_html(report(tasks, events=[{"at_s": 7.0, "what": "bert was lost"}]), "seed: 12345\n")).words
    for part in ("mood", "clothes", "0.901", "0.702", "0.813", "0.654", "0.791", "0.041", "0.833", "better", "+0.111",
                 "22,713,216", "5,000", "1,234", "bert was lost", "seed: 12345", "a machine", "torch 2"):  # fmt: skip
        assert part in words, part


def test_what_befell_an_earlier_process_of_the_run_is_told_as_earlier() -> None:
    words = Page(render_html(report(events=[{"at_s": -60.0, "what": "bert was lost"}]), "")).words
    assert "60 s before this process began" in words


def test_without_events_the_page_says_so() -> None:
    assert "Nothing happened" in Page(render_html(report(), "")).words


@pytest.mark.parametrize("name", ["<b>bold</b>", "a & b", '"><script>alert(1)</script>', "<!-- gone"])
def test_names_are_words_on_the_page_whatever_is_in_them(name: str) -> None:
    content = report({name: task_report(1, teachers={name: 0.9, "b": 0.8}, label_names=[name, "x"])}, description=name)
    content["models"][name] = content["models"]["bert"]
    content["name"] = name
    content["events"] = [{"at_s": 1.0, "what": name}]
    plain, page = Page(render_html(report(), "x")), Page(render_html(content, name))
    assert set(page.tags) <= set(plain.tags) | {"td", "tr", "h2"}
    assert page.words.count(name) >= 6


@pytest.mark.parametrize("name", ["a_b", "a$b$c", "50%", "x^2", "日本"])
@pytest.mark.filterwarnings("ignore:Glyph:UserWarning")
def test_pictures_name_tasks_as_they_are(name: str) -> None:
    svg = render_html(report({name: task_report(1)}), "").split("<svg", 1)[1].split("</svg>")[0]
    assert name in Page(f"<svg{svg}</svg>").words


def test_the_table_shows_before_after_gain_and_cost() -> None:
    text = printed(report())
    for part in ("trial", "mood", "accuracy", "bert 0.901", "0.702", "0.813", "+0.111", "better", "0.902", "1,000,000",
                 "Mean retention 0.902 distilled", "10%", "2.0 GiB"):  # fmt: skip
        assert part in text, part
    assert "not clearly better" not in text and "±" not in text


def test_several_teachers_are_also_shown_together() -> None:
    text = printed(report({"mood": task_report(1, teachers={"a": 0.81, "b": 0.82}, ensemble=0.83)}))
    assert "a 0.810" in text and "b 0.820" in text and "together 0.830" in text


def test_several_seeds_show_their_spread() -> None:
    text, words = printed(report(num_seeds=3)), Page(render_html(report(num_seeds=3), "")).words
    for shown in (text, words):
        assert "0.702 ± 0.011" in shown and "0.813 ± 0.022" in shown and "3 seeds" in shown


@pytest.mark.parametrize("verdict", ["worse", "no clear difference"])
def test_what_distilling_did_not_bring_is_said(verdict: str) -> None:
    gain = {"mean": -0.1, "standard_error": 0.02, "verdict": verdict}
    content = report({"mood": task_report(1), "clothes": task_report(1, gain=gain)})
    sentence = "Distilling is not clearly better than training alone on clothes"
    assert sentence in printed(content) and sentence in Page(render_html(content, "")).words


@pytest.mark.parametrize("name", ["a[b]", "[bold]", "[/x]", "[red]stop"])
def test_names_with_brackets_are_printed_as_they_are(name: str) -> None:
    content = report({name: task_report(1, teachers={name: 0.9})}, name=name)
    content["models"][name] = content["models"].pop("bert")
    assert printed(content).count(name) >= 4


def test_the_model_card_tells_what_the_student_is_and_how_good() -> None:
    card = model_card(report(num_seeds=2, student_seed=1))
    head, _, body = card.removeprefix("---\n").partition("\n---\n")
    assert "library_name: raydistill" in head
    for part in ("# trial", "A trial.", "1,000,000 parameters", "from bert", "from_pretrained", "| mood | bad, good |",
                 "| 0.901 | 0.702 | 0.813 | 456 |", "10% of the labelled rows"):  # fmt: skip
        assert part in body, part


def test_the_model_card_speaks_of_the_kept_student_and_not_of_the_mean() -> None:
    by_seed = {"student_alone": [0.1, 0.2], "student_distilled": [0.3, 0.4]}
    card = model_card(report({"mood": task_report(2, by_seed=by_seed)}, num_seeds=2, student_seed=1))
    assert "| 0.200 | 0.400 |" in card


def test_the_model_card_shortens_long_lists_of_labels() -> None:
    names = [f"label{number}" for number in range(40)]
    card = model_card(report({"mood": task_report(1, label_names=names)}))
    assert "label11, …" in card and "label12" not in card


def test_a_student_that_waits_is_told_for_whom_and_what_to_do() -> None:
    assert "waited" not in printed(report())
    text = printed(report(teachers={"bert": teacher_figures(waiting_share=0.4)}))
    assert "waited 40% of their time for teachers, most for bert" in text
    assert "teachers.bert.max_replicas" in text


def test_failures_that_cost_nothing_but_time_are_told() -> None:
    failed = report(teachers={"bert": teacher_figures(failovers=3, worst_gap_s=0.42)})
    assert "3 requests were answered by another replica after a failure; longest gap 0.42 s" in printed(failed)
    words = Page(render_html(failed, "")).words
    assert "Soft labels" in words and "0.42" in words
