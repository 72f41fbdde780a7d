#!/usr/bin/env bash
# The package prometheus-client: a NaN that a histogram observes is counted nowhere, and its sum is NaN from then on.
#
# One would guess: that observe(nan) raises, or is counted as +Inf is, in the last bucket and in the count.
# What happens: `_count` and all buckets leave it out, and `_sum` is NaN for ever, so that the mean in a dashboard, which
# is sum / count, is gone until the process is restarted. Infinity does the same to the sum, but is counted.
# Source: https://github.com/prometheus/client_python (Histogram.observe adds to the sum, then looks for a bucket).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet prometheus-client==0.26.0
"$folder/venv/bin/python" - <<'PYTHON'
import math
from importlib.metadata import version

from prometheus_client import CollectorRegistry, Histogram

print(f"prometheus-client {version('prometheus-client')}")
registry = CollectorRegistry()
seconds = Histogram("seconds", "Seconds", buckets=(1.0,), registry=registry)
for value in (0.5, math.nan, 0.5):
    seconds.observe(value)
count, total = registry.get_sample_value("seconds_count"), registry.get_sample_value("seconds_sum")
print(f"three observations, one of them NaN: count {count}, sum {total}")
assert count == 2
assert math.isnan(total)
PYTHON
