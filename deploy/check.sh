#!/usr/bin/env bash
# Checks all of this folder: the alerts by promtool, the chart by helm, manifests by Kubernetes' own
# schemas, the unit by systemd-analyze, and the queries of alerts and dashboard by a real Prometheus
# that watches a real failover. Needs Python 3.11, npm, and a Debian, or Prometheus and promtool on
# the path; the rest it installs below deploy/check. The first argument names the binary; without it
# STEADFAST_BIN does, or a debug build is made. Further arguments go to unittest:
#
#   deploy/check.sh target/debug/steadfast test_rules
#
# This writes deploy/kubernetes anew from the chart:
#
#   UPDATE=1 deploy/check.sh target/debug/steadfast test_manifests
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source deploy/check/install.sh

environment deploy/check
find_prometheus
find_helm
find_steadfast "${1:-}"
shift $(($# > 0))

cd deploy/check
# The run takes a minute on a machine that is busy with other work.
exec timeout 150 venv/bin/python -W error -m unittest "$@"
