#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Makes .venv with everything that the demo and the tests need. Quiet, reused the second time.
#   PYTHON=python3.12 tools/setup.sh    chooses the interpreter (3.10 or newer)
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
log=.venv/setup.log
stamp=.venv/.ready

fail() { printf 'setup: %s\n' "$*" >&2; exit 1; }

command -v "$python" >/dev/null || fail "'$python' is missing: install Python 3.10 or newer (apt install python3 python3-venv)"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || fail "$("$python" --version) is too old: 3.10 or newer is needed (PYTHON=python3.12 make ...)"
"$python" -c 'import ensurepip, venv' 2>/dev/null || fail "the venv module is missing: apt install python3-venv"

[ -n "${VIRTUAL_ENV:-}" ] && unset VIRTUAL_ENV
if [ -n "${ROS_DISTRO:-}" ] && "$python" -c 'import rclpy, sensor_msgs' 2>/dev/null; then
  extras=test site=--system-site-packages
  echo "setup: ROS 2 $ROS_DISTRO is sourced and will be used"
else
  extras=ros,test site=
  unset PYTHONPATH LD_LIBRARY_PATH _ROS_WHEELS_BOOTSTRAP_COMPLETE
  echo "setup: no ROS 2 is sourced: its wheels from PyPI will be used"
fi
[ -x .venv/bin/python ] || "$python" -m venv $site .venv || fail "could not create .venv"

echo "setup: installing PyTorch, timm, OpenCV and ROS 2 into .venv (the first time: some GB, a few minutes; log: $log)"
.venv/bin/python -m pip install --disable-pip-version-check -e ".[$extras]" >"$log" 2>&1 &
pip=$!
seconds=0
while kill -0 $pip 2>/dev/null; do
  sleep 1
  seconds=$((seconds + 1))
  [ $((seconds % 15)) -ne 0 ] || printf 'setup: %3d s  %.90s\n' "$seconds" "$(grep -E '^ *(Collecting|Downloading|Using|Building|Installing)' "$log" | tail -n 1)"
done
wait $pip || { tail -n 15 "$log" >&2; fail "pip failed (whole log: $log)"; }
touch "$stamp"
echo "setup: done in $seconds s"
