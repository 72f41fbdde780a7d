#!/usr/bin/env bash
# The package python-calamine (also engine="calamine" of pandas): cells of errors and formulas come as empty cells.
#
# One would guess: that a cell with #REF! comes as such, or as an error; and that a formula without a stored value, as
# openpyxl writes them, is told apart from an empty cell.
# What happens: both are "", as an empty cell is. A column of results can so lose values that Excel shows.
# openpyxl gives the error's text and, read without data_only, the formula.
# Source: https://github.com/dimastbk/python-calamine (its types of cells have none for errors or formulas).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet python-calamine==0.9.1 openpyxl==3.1.5
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
from importlib.metadata import version

import openpyxl
import python_calamine

print(f"python-calamine {version('python-calamine')}, openpyxl {openpyxl.__version__}")
book = openpyxl.Workbook()
for row in (["value"], [1], ["#REF!"], ["#N/A"], ["=A2+1"], [2]):
    book.active.append(row)
book.save("book.xlsx")
by_calamine = [row[0] for row in python_calamine.load_workbook("book.xlsx").get_sheet_by_index(0).to_python()]
by_openpyxl = [row[0] for row in openpyxl.load_workbook("book.xlsx").active.iter_rows(values_only=True)]
print("by calamine", by_calamine)
print("by openpyxl", by_openpyxl)
assert by_calamine == ["value", 1.0, "", "", "", 2.0]
assert by_openpyxl == ["value", 1, "#REF!", "#N/A", "=A2+1", 2]
PYTHON
