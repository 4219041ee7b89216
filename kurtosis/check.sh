#!/usr/bin/env bash
# Checks all of this folder that can be checked without a container engine (README.md says what that
# is). Needs Python 3.11 and a Debian, or Prometheus and promtool on the path; the rest it installs
# below kurtosis/check and deploy/check. STEADFAST_BIN names the binary; without it a debug build is
# made. Arguments go to unittest: kurtosis/check.sh test_plan
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source deploy/check/install.sh

environment kurtosis/check
find_prometheus
find_steadfast

# As run.sh does: the package holds no file from outside of its folder.
cp deploy/grafana/steadfast.json kurtosis/grafana/

cd kurtosis/check
PYTHONPATH=../../deploy/check exec venv/bin/python -W error -m unittest "$@"
