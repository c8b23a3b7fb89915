# Everything from a fresh clone: each target makes the environment in .venv first, where it is not there yet.
.PHONY: demo test lint bench environment
READY := .venv/.ready

demo: $(READY)
	.venv/bin/raydistill distill demo

test: lint
	.venv/bin/python -m pytest -n 2 --dist loadfile --durations 40

lint: $(READY)
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports
	.venv/bin/python scripts/config_reference --check
	.venv/bin/python scripts/methods_reference --check

bench: $(READY)
	.venv/bin/python benchmarks/soft_label_sources.py

environment: $(READY)

$(READY): pyproject.toml requirements.lock scripts/environment
	scripts/environment
	@touch $@
