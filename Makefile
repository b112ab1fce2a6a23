# sardonyx: `make run` answers a question, `make test` proves the rest.

PYTHON ?= python3
MODEL ?= smollm2-135m
PROMPT ?= What is the capital of France?

VENV := .venv
PARITY := .venv-parity
GPU := .venv-gpu
OPENVINO := .venv-openvino
CUDA := .venv-cuda

.DEFAULT_GOAL := help

.PHONY: help
help: ## show this list
	@sed -n 's/^\([a-z-]*\):.*## /\1	/p' $(MAKEFILE_LIST) | expand -t 12

.PHONY: run
run: $(VENV)/.run ## fetch and export the default model if needed, then answer PROMPT
	@$(VENV)/bin/sardonyx run $(MODEL) "$(PROMPT)"

.PHONY: chat
chat: $(VENV)/.run ## chat with the default model
	@$(VENV)/bin/sardonyx chat $(MODEL)

.PHONY: test
test: $(VENV)/.test ## everything that needs neither network nor torch
	$(VENV)/bin/python -m pytest -m "not parity and not gpu and not openvino" --cov --cov-report=term:skip-covered

.PHONY: parity
parity: $(PARITY)/.parity ## prove equality with transformers (installs torch)
	$(PARITY)/bin/python -m pytest -m parity -s

.PHONY: gpu
gpu: $(GPU)/.gpu ## run models on WebGPU, in software if need be (needs a Vulkan driver)
	ORT_WEBGPU_EP_ALLOW_SOFTWARE_ADAPTER=1 $(GPU)/bin/python -m pytest -m gpu

.PHONY: openvino
openvino: $(OPENVINO)/.openvino ## run models on OpenVINO's provider (any x86 processor)
	$(OPENVINO)/bin/python -m pytest -m openvino

.PHONY: cuda
cuda: $(CUDA)/.cuda ## run models on CUDA (needs an NVIDIA card)
	$(CUDA)/bin/python -m pytest -m cuda

.PHONY: lint
lint: $(VENV)/.lint ## format, lint, types, walls
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

.PHONY: format
format: $(VENV)/.lint ## put the code into shape
	$(VENV)/bin/ruff check --fix-only .
	$(VENV)/bin/ruff format .

.PHONY: clean
clean: ## remove environments and caches of this folder (not the user's models)
	rm -rf $(VENV) $(PARITY) $(GPU) $(OPENVINO) $(CUDA) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache .coverage

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(PARITY)/bin/python:
	$(PYTHON) -m venv $(PARITY)

$(GPU)/bin/python:
	$(PYTHON) -m venv $(GPU)

$(OPENVINO)/bin/python:
	$(PYTHON) -m venv $(OPENVINO)

$(CUDA)/bin/python:
	$(PYTHON) -m venv $(CUDA)

$(VENV)/.run: pyproject.toml | $(VENV)/bin/python
	@echo "installing sardonyx into $(VENV) (once)"
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[export]'
	@touch $@

$(VENV)/.test: pyproject.toml | $(VENV)/bin/python
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	@touch $@ $(VENV)/.run

$(VENV)/.lint: pyproject.toml | $(VENV)/bin/python
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[lint]'
	@touch $@ $(VENV)/.run

$(PARITY)/.parity: pyproject.toml | $(PARITY)/bin/python
	$(PARITY)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[parity]'
	@touch $@

$(GPU)/.gpu: pyproject.toml | $(GPU)/bin/python
	$(GPU)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[test,webgpu]'
	@touch $@

# These packages are an onnxruntime of their own, under the same module's name: the other has to go first.
$(OPENVINO)/.openvino: pyproject.toml | $(OPENVINO)/bin/python
	$(OPENVINO)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	$(OPENVINO)/bin/python -m pip uninstall --quiet --yes onnxruntime
	$(OPENVINO)/bin/python -m pip install --quiet --disable-pip-version-check --force-reinstall --no-deps onnxruntime-openvino==1.24.1
	@touch $@

$(CUDA)/.cuda: pyproject.toml | $(CUDA)/bin/python
	$(CUDA)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	$(CUDA)/bin/python -m pip uninstall --quiet --yes onnxruntime
	$(CUDA)/bin/python -m pip install --quiet --disable-pip-version-check --force-reinstall --no-deps 'onnxruntime-gpu[cuda,cudnn]>=1.32'
	@touch $@
