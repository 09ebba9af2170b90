PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := build/demo.xbar

.PHONY: help demo test check types docs bench bench-mapping bench-passes pages soak fuzz kills dist clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[demo,test,check,docs]'
	@touch $@

demo: $(VENV)/installed ## compile a shipped model, run it on a simulated array with device errors
	@mkdir -p build
	$(BIN)/xbcompile compile models/digits_mlp.onnx --target docs/my_chip.toml --calibration digits:train:1000 -o $(DEMO)
	$(BIN)/xbcompile verify $(DEMO)
	$(BIN)/xbcompile run $(DEMO) --data digits:test --repeat 5
	@echo 'to have the command on the PATH: source $(BIN)/activate'

test: export PYTHONDONTWRITEBYTECODE = # workers and the commands that tests start would compile every module again
test: $(VENV)/installed ## the whole test suite; each worker starts on half of it, so that most modules share what their tests compile
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal

check: $(VENV)/installed types ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/installed ## mypy alone, over the package, tests, models, benchmarks
	@rm -rf build/check && mkdir -p build/check
	@cp -r xbcompile tests models benchmarks docs build/check/  # as it is installed: mypy cannot follow package-dir
	@cp -r passes runtime targets build/check/xbcompile/
	@rm build/check/xbcompile/example_networks  # a link to models
	cd build/check && MYPYPATH=models:tests/plugin_sample/src ../../$(BIN)/mypy --config-file ../../pyproject.toml \
		xbcompile tests models benchmarks docs

docs: $(VENV)/installed ## the site of pages, notebooks and the reference, its links followed, in build/docs
	$(BIN)/python docs/build_site.py

bench: $(VENV)/installed ## speed and memory, beside other simulators where they are installed: docs/performance.md; ARGS="--rows W1,W4"
	$(BIN)/python -m benchmarks.bench $(ARGS)

bench-passes: $(VENV)/installed ## what passes are worth, with and without each: docs/accuracy.md; ARGS="--write-docs"
	$(BIN)/python -m benchmarks.passes $(ARGS)

pages: $(VENV)/installed ## what commands in README and docs print today, put into these pages; PAGES="README.md"
	$(BIN)/python -m tests.support.pages --write $(PAGES)

fuzz: $(VENV)/installed ## attempts on models, programs, targets, data and options, a minute each; ARGS="program --minutes 60"
	$(BIN)/python -m tests.fuzz $(ARGS)

bench-mapping: $(VENV)/installed ## mapping: images, writes and makespans beside their lower bounds and plainer packers
	$(BIN)/python benchmarks/mapping.py

kills: $(VENV)/installed ## commands killed at random moments: what is left, whether the next call works; ARGS="--kills 100"
	$(BIN)/python -m tests.soak.kill $(ARGS)

soak: $(VENV)/installed ## 1,000 models in one process, whose memory and open files must not grow; ARGS="--cycles 200"
	$(BIN)/python -m tests.soak.soak $(ARGS)

dist: $(VENV)/installed ## source archive and wheel in build/dist, each tried in a fresh environment outside of the checkout
	rm -rf build/dist
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'build>=1.2'
	$(BIN)/python -m build --outdir build/dist
	.ci/try_installed build/dist $(PYTHON)

clean: ## remove the virtual environment and build files
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
