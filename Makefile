# Everything that a user, a developer or CI runs. `make` alone lists it.

PYTHON ?= python3
BIN := .venv/bin
SETUP := pyproject.toml requirements.lock $(wildcard requirements/*.lock) src/modelyard/system/build_facts.py \
	src/modelyard/system/llama_builds.py \
	$(addprefix scripts/,setup_venv.py setup_process.py lock_file.py llama_build.py pip_output.py)

.DEFAULT_GOAL := help
N ?= 10000

.PHONY: help install convert serve ui ui-shots browser test quick check fix docs site simulate bench architectures conformance faults fuzz attack lock audit package release

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

install: .venv/installed ## make .venv, with the command modelyard and its page, and .weights, with the demo weights
	@$(BIN)/python scripts/build_ui.py --optional
	@$(BIN)/python scripts/demo_weights.py .weights
	@echo "Installed: $(BIN)/modelyard"

convert: .venv/installed-convert ## install, with what converts safetensors checkpoints (1 GB, most of it torch)
	@$(BIN)/python scripts/demo_weights.py .weights
	@echo "Installed: $(BIN)/modelyard, and the converter"

serve: .venv/installed ## install, then serve the two demo models on 127.0.0.1:1234 until Ctrl-C
	@$(BIN)/python scripts/build_ui.py --optional
	@$(BIN)/python scripts/demo_weights.py .weights
	@$(BIN)/python scripts/foreground.py $(BIN)/modelyard serve examples/demo.toml

ui: .venv/installed ## build the page at /ui out of web/
	@$(BIN)/python scripts/build_ui.py

ui-shots: .venv/installed-dev ui ## take the pictures of the page in docs/images/ with the system's Chromium
	@PYTHONPATH=tests:scripts $(BIN)/python scripts/ui_shots.py

browser: .venv/installed-dev ui ## test the page in the system's Chromium, on real models; ARGS="-k chat" passes options to pytest
	@MODELYARD_BROWSER=required $(BIN)/python -m pytest -m "browser or not browser" tests/page $(ARGS)

# A third of their time, tests wait for processes, streams and clocks.
test: .venv/installed-dev ## run the tests, three files at a time; ARGS="-k name" passes options to pytest
	@$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder $(ARGS)

quick: .venv/installed-dev ## run the unit tests but the slow ones, and one chat with a real model: for each change, in a minute and a half
	@$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -q -m "not long and not slow and not browser" \
		tests/unit tests/integration/test_chat.py $(ARGS)

check: .venv/installed-dev ## lint, formatting, types, layers, and those of the page: what CI checks
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/mypy examples/*.py
	$(BIN)/lint-imports
	$(BIN)/python scripts/build_ui.py --check

fix: .venv/installed-dev ## repair what ruff can repair, then format
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

simulate: .venv/installed-dev ## play N interleavings of loads, unloads and requests; SEED=… one again; DAYS=N traffic with costs; NODES=N a cluster
	@$(BIN)/python $(if $(NODES),scripts/simulate_cluster.py --nodes $(NODES),scripts/simulate.py $(if $(DAYS),--days $(DAYS) $(if $(HOURS),--hours $(HOURS)),$(if $(SEED),--seed $(SEED),$(N))))

bench: .venv/installed-dev ## measure Modelyard beside its peers, into bench/results/; ARGS="--only swap" passes options
	@$(BIN)/python -m bench $(ARGS)

architectures: .venv/installed-dev ## compare tiny models of all architectures with transformers, into docs/models.md; ARGS="qwen3" some
	@PYTHONPATH=tests:scripts $(BIN)/python -m architectures $(ARGS)

conformance: .venv/installed-dev ## run the tests that take long, which make test leaves out; ARGS passes options to pytest
	@MODELYARD_TESTS=thorough $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder \
		-m "long or thorough" $(ARGS)

faults: .venv/installed-dev ## try inputs that end llama.cpp on a server that streams; ARGS="files" some, "--isolated" untried
	@PYTHONPATH=tests:scripts $(BIN)/python -m faults $(ARGS)

attack: .venv/installed-dev ## attack a server that streams, and see what others notice; ARGS="heads" some
	@PYTHONPATH=tests:scripts $(BIN)/python -m attacks $(ARGS)

fuzz: .venv/installed-dev ## play random models, settings, texts and requests for SECONDS; KIND=… SEED=… plays one again
	@PYTHONPATH=tests:scripts:src $(BIN)/python -m fuzz $(if $(SECONDS),--seconds $(SECONDS)) \
		$(if $(KIND),--kind $(KIND)) $(if $(SEED),--seed $(SEED))

lock: .venv/installed-dev ## write the lock files and the SBOM again; ARGS="--upgrade" takes the newest versions
	@$(BIN)/python scripts/lock.py $(ARGS)

audit: .venv/installed-dev ## look for known vulnerabilities of what the lock files pin, where an advisory source is reached
	@$(BIN)/python scripts/audit.py

package: .venv/installed ui ## build the wheel and the source archive into dist/, and try both in an empty environment
	@$(BIN)/python scripts/build_package.py $(ARGS)

release: .venv/installed ## set the version, date the changelog, commit and tag: VERSION=1.2.3
	@$(BIN)/python scripts/release.py "$(VERSION)"

docs: .venv/installed-dev ## write the generated parts of docs/ again, and Model from AsyncModel
	@$(BIN)/python scripts/write_fields.py
	@$(BIN)/python scripts/write_model.py
	@$(BIN)/python scripts/write_docs.py

site: .venv/installed-site ## build the documentation as a web site in build/site, and check its links
	@$(BIN)/python scripts/build_site.py
	@echo "Built: build/site/index.html"

# llama.cpp is compiled again where CMAKE_ARGS is given and differs from what it was compiled with.
ifneq ($(origin CMAKE_ARGS),undefined)
ifneq ($(CMAKE_ARGS),$(shell cat .venv/cmake-args 2>/dev/null))
SETUP += compile-again
endif
endif
# And where MODELYARD_BACKEND is given and is not what was chosen; "auto" looks at the machine each time.
ifneq ($(MODELYARD_BACKEND),)
ifneq ($(MODELYARD_BACKEND),$(shell cat .venv/backend 2>/dev/null))
SETUP += compile-again
endif
endif
.PHONY: compile-again
compile-again:

.venv/installed: $(SETUP)
	@$(PYTHON) scripts/setup_venv.py demo
	@touch $@

.venv/installed-convert: $(SETUP)
	@$(PYTHON) scripts/setup_venv.py demo convert
	@touch .venv/installed $@

.venv/installed-dev: $(SETUP)
	@$(PYTHON) scripts/setup_venv.py demo convert dev
	@touch .venv/installed .venv/installed-convert $@

.venv/installed-site: $(SETUP)
	@$(PYTHON) scripts/setup_venv.py demo convert dev site
	@touch .venv/installed .venv/installed-convert .venv/installed-dev $@
