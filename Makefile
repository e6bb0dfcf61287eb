# Every target sets up what it needs; `make PYTHON=/path/to/python3.11` picks another interpreter.
.POSIX:
.PHONY: demo test lint docs nightly judges judged clean

PYTHON = python3.11
VENV = .venv
# mobilenet_v2 and resnet20 are small; any name of keras.applications does, such as MobileNetV3Small.
NETWORK = mobilenet_v2
DEMO_FLAGS =
PYTEST_FLAGS = -q -n 2
# Downloads and unpacks in a fifth of pip's time. It does not read pip's settings: where it finds no index, pip installs.
UV = uv==0.13.9

demo: $(VENV)/.stamp
	TF_CPP_MIN_LOG_LEVEL=3 $(VENV)/bin/python -m examples.train --dataset=mnist --network=$(NETWORK) $(DEMO_FLAGS)

test: $(VENV)/.stamp
	$(VENV)/bin/python -m pytest $(PYTEST_FLAGS) -m "not slow and not judges"

# A judge that cannot be had fails its tests alone; `make nightly JUDGES_ABSENT=arm,tosa` does without those two.
nightly: $(VENV)/.stamp
	-$(MAKE) judges
	$(VENV)/bin/python -m pytest $(PYTEST_FLAGS) -m "slow or not slow"

# Runtimes that conflict with our own packages, each in an environment under .judges.
judges: $(VENV)/.stamp
	$(VENV)/bin/python -m benchmarks.judges.install

# What devices' own tools make of our files, as far as it is quick.
judged: judges
	$(VENV)/bin/python -m pytest $(PYTEST_FLAGS) -m "judges and not slow" tests/tflite_export tests/examples

lint: $(VENV)/.stamp
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/pyright
	$(VENV)/bin/lint-imports --no-cache

# The site, in .docs/site; a warning is an error. In an environment of its own, without TensorFlow.
docs: .docs/.stamp
	NO_MKDOCS_2_WARNING=1 .docs/bin/mkdocs build --strict
	@echo ".docs/site/index.html"

.docs/.stamp: requirements-docs.lock
	"$(PYTHON)" -m venv --clear .docs || python3 -m venv --clear .docs
	.docs/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-docs.lock
	touch .docs/.stamp

$(VENV)/.stamp: setup.py requirements.lock
	@for python in "$(PYTHON)" python3; do \
	    if "$$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; then \
	        echo "$$python -m venv --clear $(VENV)"; \
	        exec "$$python" -m venv --clear $(VENV); \
	    fi; \
	done; \
	echo "requirements.lock is for Python 3.11. Received: PYTHON=$(PYTHON), and python3 is another version." >&2; \
	echo "Install Python 3.11, or name one: make PYTHON=/path/to/python3.11" >&2; \
	exit 1
	-$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check $(UV)
	$(VENV)/bin/uv pip install --quiet --system-certs --python $(VENV)/bin/python -r requirements.lock || \
	    $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-compile -r requirements.lock
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	$(VENV)/bin/python -m compileall -q -j 0 -x '/tests/' $(VENV)/lib
	touch $(VENV)/.stamp

clean:
	rm -rf $(VENV) .judges .docs build dist *.egg-info
