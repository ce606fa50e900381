# make lab     open the course in JupyterLab (make lab ARGS=--no-browser on a server)
# make bench   time features, training, generation and more against the common ways
# for teachers: begin
# make test    run every test: style, helper module, notebooks
# make test-faults   every fault that the tests know, many times, with a table of the losses
# make browser-test    the notebooks in JupyterLab, in a real browser; pictures in build/browser
# make pictures      the README's two pictures of notebook 00, by that browser
# make save    run the notebooks in full and save them with their outputs
# make versions a copy for students, and an instructor's version of each notebook, into build/
# make slides   each notebook as a lecture, in build/slides
# make book     the course as a website with search, in build/book
# make publish REPO=owner/name    write the address of your copy into badges, links, set-up cells
# make clean   remove .venv and what was drawn, downloaded or trained
# for teachers: end

PYTHON ?= python3
BIN := .venv/bin
ARGS ?=

export CONVRNN_PROFILE

.PHONY: lab bench

.venv/complete: requirements.txt pyproject.toml
	$(PYTHON) -c "import sys; (3, 10) <= sys.version_info < (3, 15) or sys.exit('Python 3.10 to 3.14 is needed: make PYTHON=python3.12')"
	@echo "Installing the packages into .venv: some minutes, and up to 7 GB of disk."
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch .venv/complete

lab: .venv/complete
	$(BIN)/jupyter lab --ServerApp.root_dir=. --LabApp.default_url=/lab/tree/notebooks $(ARGS)

bench: .venv/complete
	for part in features training generation scenes first_caption; do \
	  $(BIN)/python benchmarks/speed_$$part.py --into benchmarks/results.json || exit 1; \
	done

# for teachers: begin
.PHONY: test test-faults browser-test pictures save versions slides book publish clean

# a core for each of the two workers: where both want all cores, they wait for each other
test test-faults: export OMP_NUM_THREADS = 1

test: CONVRNN_PROFILE = smoke
test: .venv/complete
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest -n 2 $(ARGS)

FAULTS := $(addprefix tests/test_,$(addsuffix .py,downloads archives coco checkpoints pictures captions runs fuzzing))

test-faults: CONVRNN_PROFILE = smoke
test-faults: .venv/complete
	CONVRNN_FAULTS=all $(BIN)/python -m pytest -n 2 $(FAULTS) $(ARGS)

browser-test: CONVRNN_PROFILE = smoke
browser-test: .venv/complete
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[browser,book]" || echo "not installed: what is needed for tests in a browser"
	$(BIN)/python -m pytest -m browser tests/test_browser.py $(ARGS)

pictures:
	$(MAKE) browser-test ARGS="-k 00_welcome"
	cp build/browser/attention.jpg build/browser/widget.jpg benchmarks

save: .venv/complete
	$(BIN)/python notebooks/save_outputs.py $(ARGS)

versions: .venv/complete
	$(BIN)/python notebooks/versions.py

slides: .venv/complete
	$(BIN)/jupyter nbconvert --to slides --config notebooks/slides_config.py --output-dir build/slides notebooks/0*.ipynb

book: .venv/complete
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[book]"
	$(BIN)/python -m sphinx -b html -W --keep-going -c book . build/book
	@echo "Open build/book/README.html"

publish:
	$(PYTHON) notebooks/publish.py $(REPO)

clean:
	git clean -dfX --quiet
# for teachers: end
