# Two commands do all the set-up: `make demo` and `make test`. They need Python 3.11 to 3.14 and nothing else.
PYTHON ?= python3
VENV = .venv
BIN = $(VENV)/bin

.PHONY: help install demo test fuzz campaign docs docs-commands review-orientations lint stub format check-real check-scale check-outcome check-monailabel benchmark bank gpu-check nnunet-venv compare-training compare-models compare-variants compare-readers compare-cascade compare-plans clean

help:
	@echo "make demo        make a small data set, train, predict, score, report: about 5 minutes"
	@echo "make test        run the whole fast test suite"
	@echo "make fuzz        damaged files of every kind against every reader: 10 minutes; FUZZ='--seconds 60 --seed 2'"
	@echo "make campaign    kills, two at once, full disks, bits and claims; half an hour and more; CAMPAIGN='kills --count 3 --seed 2'"
	@echo "make docs        build the documentation into docs/_build/html and check its links"
	@echo "make docs-commands  run every command and the notebook of the documentation, with trainings of two steps: 10 minutes"
	@echo "make review-orientations  draws on scans of all 48 orders of axes in the page of segfw review: some minutes"
	@echo "make lint        check style and types"
	@echo "make stub        write the types of the Python API anew, after an option was changed"
	@echo "make check-real  train and score on real data in ../shared/data: about 20 minutes"
	@echo "make check-scale a whole CT with 104 structures is measured; 117 classes from raw data to measures; a queue of 2000 cases x 100 structures: about 16 minutes"
	@echo "make check-outcome  segfw outcome on 100 sets of noise and 100 of a simulated signal: 7 minutes of a core; call again to go on"
	@echo "make check-monailabel  MONAI Label's own client class against serve-monailabel, where it is installed; MONAILABEL='--client FILE'"
	@echo "make benchmark   print speed ratios of this machine"
	@echo "make bank        models of three real data sets, 3 seeds x 5 folds: 9 core-hours, call again to go on; BANK='../bank --at-once 2'"
	@echo "make gpu-check   what is right, how fast, how much memory on a CUDA device: 9 minutes"
	@echo "make nnunet-venv nnU-Net in an environment of its own, for the comparisons of python -m bench"
	@echo "make compare-training  nnU-Net and segfw train on ../shared/data/hippocampus: about 75 minutes; call again to go on"
	@echo "make compare-models  nnU-Net's models predicted by nnU-Net and segfw: masks, time, memory"
	@echo "make compare-variants  the same for small models of every kind that nnU-Net knows, which it makes first"
	@echo "make compare-readers   the same for copies of the images with every header and format that nnU-Net reads"
	@echo "make compare-cascade   step by step, for a small cascade that nnU-Net trains on four cases"
	@echo "make compare-plans   plans of nnU-Net's own planner and ours for ../shared/data, field by field"

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c "import sys; sys.exit('segfw needs Python 3.11 or newer, this is ' + sys.version.split()[0] + \
	    '; call make PYTHON=python3.11') if sys.version_info < (3, 11) else None"
	@echo "Setting up $(VENV), once: PyTorch and what segfw stands on are downloaded, which takes minutes on a fast line, and 2 GB"
	@echo "of disk. On Linux PyTorch brings CUDA, which is several GB more; make CPU=1 demo leaves it out. pip shows how far it is."
	$(PYTHON) -m venv $(VENV)
	$(if $(CPU),$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt \
	    --index-url https://download.pytorch.org/whl/cpu torch)
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@touch $@
	@echo "Set up. From now on: . $(BIN)/activate, then segfw --help"

install: $(VENV)/.installed

demo: install
	@echo "The demo: data are made, a network is trained and scored. About 5 minutes on two fast cores, 25 at most."
	$(BIN)/segfw demo demo

# Two processes at once, each with whole files of tests, because those of a file share what takes long to make
AT_ONCE ?= 2
test: install
	$(BIN)/python -m pytest -n $(AT_ONCE) --dist loadfile

# Ends with 1 if a file was more than refused; such files are kept.
FUZZ ?= --seconds 600 --seed 1
campaign: install
	PYTHONPATH=.:tests OMP_NUM_THREADS=1 $(BIN)/python -m campaign $(CAMPAIGN)

fuzz: install
	PYTHONPATH=.:tests OMP_NUM_THREADS=1 $(BIN)/python -m fuzz --keep fuzz_faults $(FUZZ)

# Warnings are errors, and nothing is fetched. Everything is read anew, because pages are made of the source as well.
docs: install
	$(BIN)/python -m sphinx -b html -q -W --keep-going -E docs docs/_build/html
	$(BIN)/python docs/check.py docs/_build/html

# Every block of README.md and docs/ that is not marked, the examples of --help, and the notebook
docs-commands: install
	PYTHONPATH=.:tests $(BIN)/python -m documents

# The page of segfw review in a browser; the fast suite takes three of the 48.
review-orientations: install
	$(BIN)/python -m pytest tests/review_page/every_orientation.py

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The types of the Python API's functions, made of their options records
stub: install
	$(BIN)/python tests/public_stub.py

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

check-real: install
	$(BIN)/python -m bench real-data

# The scale of whole-body models; TORSO= (empty) leaves out the shared torso data
TORSO ?= ../shared/data/torso_ct_100_labels
check-scale: install
	$(BIN)/python -m bench measuring
	$(BIN)/python -m bench many-classes --steps 2
	$(BIN)/python -m bench queue scale
	$(if $(TORSO),$(BIN)/python -m bench many-classes --steps 2 --torso $(TORSO))

# Of noise 1 to 11 of 100 may have p < 0.05.
OUTCOME_RUNS ?= outcome_runs.jsonl
check-outcome: install
	$(BIN)/python -m bench outcome noise --results $(OUTCOME_RUNS)
	$(BIN)/python -m bench outcome signal --results $(OUTCOME_RUNS)

check-monailabel: install
	$(BIN)/python -m bench monailabel-client $(MONAILABEL)

benchmark: install
	$(BIN)/python -m bench speed
	$(BIN)/python -m bench machine
	$(BIN)/python -m bench epoch
	$(BIN)/python -m bench evaluation

# The models that later work starts from, in a folder outside of the clone; options of the command may follow the folder.
BANK ?= ../bank
bank: install
	$(BIN)/python -m bench accuracy bank --work $(BANK)

gpu-check: install
	$(BIN)/python -m bench gpu --output gpu_check

# The CPU build of the pinned torch comes first: a plain install of nnU-Net could pull CUDA libraries of several GB.
# TORCH_INDEX= (empty) takes the index that pip is set up with.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
nnunet-venv: nnunet-venv/.installed

nnunet-venv/.installed: constraints.txt
	$(PYTHON) -m venv nnunet-venv
	nnunet-venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt \
	    --no-deps $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch
	nnunet-venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt "nnunetv2==2.8.1"
	nnunet-venv/bin/python -c "import nnunetv2"
	touch $@

compare-training: install nnunet-venv
	$(BIN)/python -m bench training --data ../shared/data/hippocampus --keep work_compare

# Models in ../shared/data/nnunet_models: what segfw makes of them beside what nnU-Net made, and how long both take.
compare-models: install nnunet-venv
	$(BIN)/python -m bench models imported --models ../shared/data/nnunet_models --run-nnunet --repeats 3

compare-variants: install nnunet-venv
	nnunet-venv/bin/python -m bench.in_nnunet.make_models work_nnunet_models --raw ../shared/data/hippocampus --images 2
	$(BIN)/python -m bench models imported --models work_nnunet_models

compare-readers: install nnunet-venv
	for name in hippocampus_3d_fullres hippocampus_2d; do \
	    $(BIN)/python -m bench readers ../shared/data/nnunet_models/$$name/model/*__* \
	        ../shared/data/nnunet_models/$$name/images || exit 1; \
	done

compare-cascade: install nnunet-venv
	$(BIN)/python -m bench cascade ../shared/data/hippocampus work_nnunet_cascade --cases 4 \
	    --nnunet-python nnunet-venv/bin/python

# Every raw data set in ../shared/data; those in refuse_or_repair, awkward and dicom are no data sets to plan for.
compare-plans: install nnunet-venv
	$(BIN)/python -m bench plans --preset plain resenc-m resenc-l --data $(addprefix \
	    ../shared/data/,hippocampus head_neck_ct cardiac_cine brain_tumour_2channel brain_slices_2d_many_labels \
	    retina_2d torso_ct_100_labels spleen_ct_one_case)

clean:
	rm -rf $(VENV) nnunet-venv demo fuzz_faults outcome_runs.jsonl docs/_build .pytest_cache .ruff_cache *.egg-info
