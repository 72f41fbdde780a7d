#!/usr/bin/env bash
# The package transformers: a configuration class that inherits its __init__ is made without it.
#
# One would guess: that a subclass of a configuration, with nothing but a model_type of its own, has the arguments and
# the defaults of its parent, as every class of Python does.
# What happens: PreTrainedConfig makes a dataclass of each subclass. One without an __init__ in its own body gets a new
# one, which knows annotated fields alone, and that of the parent is not called. What is given is set, as any keyword
# is, but no default: the attribute is missing, so that a config.json from before an option was added can't be used.
# Source: PreTrainedConfig.__init_subclass__ in transformers/configuration_utils.py.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet transformers==5.23.0
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON' 2>&1 | grep -v "PyTorch was not found"
import transformers
from transformers import PreTrainedConfig


class Parent(PreTrainedConfig):
    model_type = "a_parent"

    def __init__(self, width=8, **kwargs):
        self.width = width
        super().__init__(**kwargs)


class Child(Parent):
    model_type = "a_child"


print("transformers", transformers.__version__)
print("the parent has width", Parent().width)
print("the child, given 4, has width", Child(width=4).width)
print("the child, given none, has a width:", hasattr(Child(), "width"))
assert Parent().width == 8
assert Child(width=4).width == 4
assert not hasattr(Child(), "width")
assert Child.__init__ is not Parent.__init__
PYTHON
