# SPDX-License-Identifier: Apache-2.0
.PHONY: demo test lint clean

demo: .venv/.ready
	@.venv/bin/python tools/demo.py $(if $(INPUT),--input "$(INPUT)")

test: .venv/.ready
	@.venv/bin/python -m pytest -n 3 --dist loadfile -m "not alone" $(ARGS) || [ $$? -eq 5 ]
	@.venv/bin/python -m pytest -m alone $(ARGS) || [ $$? -eq 5 ]

lint: .venv/.ready
	@.venv/bin/ruff check . && .venv/bin/ruff format --check .

.venv/.ready: setup.py tools/setup.sh
	@tools/setup.sh

clean:
	rm -rf .venv out build install log
