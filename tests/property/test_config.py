"""A config survives being written down, whatever its words look like."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from raydistill.config.loader import dump_config, load_config
from raydistill.config.models import Config

WORDS = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), min_size=1, max_size=12)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("config")


@given(
    name=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,8}", fullmatch=True),
    words=st.lists(WORDS, min_size=2, max_size=3, unique=True),
    temperature=st.floats(1e-6, 1e9),
    option=st.one_of(st.integers(-1000, 1000), st.booleans(), st.none(), WORDS),
)
@example("1e3", ["a", "b"], 1e-5, None)
@example("x", ["1e5", "2e-3"], 1e-5, "1E6")
@example("x", ["null", "yes"], 1e22, "0x1f")
def test_dump_then_load_gives_an_equal_config(
    folder: Path, name: str, words: list[str], temperature: float, option: object
) -> None:
    config = Config.model_validate(
        {
            "name": name,
            "description": words[0],
            "tasks": {
                name: {"domain": "text", "data": {"source": "csv", "path": f"./file{words[1]}", "label_names": words}}
            },
            "teachers": {name: {"task": name, "loader": "python", "model": "m", "options": {"o": option}}},
            "distill": {"temperature": temperature},
        }
    )
    file = folder / "config.yaml"
    file.write_text(dump_config(config), encoding="utf-8")
    assert load_config(file) == config
